#!/bin/sh
exec vpn-operator openvpn-client create "$@"

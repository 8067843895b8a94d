#!/bin/sh
rm -f "/tmp/sessions/$common_name/$trusted_ip:$trusted_port"

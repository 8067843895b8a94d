#!/bin/sh
# Called by openvpn with a file: user and password, a line each. /vpn/users has a line
# `user:password:connections` for each account.
user=$(sed -n 1p "$1") password=$(sed -n 2p "$1")
account=$(grep -F "$user:$password:" /vpn/users) || exit 1
[ "${account%:*}" = "$user:$password" ] || exit 1
if [ "$(ls "/tmp/sessions/$user" 2> /dev/null | wc -l)" -ge "${account##*:}" ]; then
    echo '[TOO_MANY_CONNECTIONS]' > "$auth_failed_reason_file"
    exit 1
fi

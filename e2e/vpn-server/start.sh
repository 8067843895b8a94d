#!/bin/sh
# The VPN servers of one Pod, with their files in /vpn:
#   1194/udp, 1194/tcp  OpenVPN
#   1195/udp            OpenVPN whose tunnel leads nowhere
#   51820/udp           WireGuard
set -e
mkdir -p /dev/net /run/wireguard /tmp/sessions
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
for network in 10.8.0.0/16 10.9.0.0/24; do
    iptables --wait -t nat -A POSTROUTING -s "$network" -o eth0 -j MASQUERADE
done
iptables --wait -A FORWARD -i stranded -j DROP

openvpn --config /vpn/openvpn.conf --dev udp --proto udp --port 1194 \
    --server 10.8.0.0 255.255.255.0 --explicit-exit-notify 1 &
main=$!
openvpn --config /vpn/openvpn.conf --dev tcp --proto tcp-server --port 1194 --server 10.8.1.0 255.255.255.0 &
others=$!
openvpn --config /vpn/openvpn.conf --dev stranded --proto udp --port 1195 --server 10.8.2.0 255.255.255.0 &
others="$others $!"
wireguard-go --foreground wg0 > /dev/null 2>&1 &
others="$others $!"
trap 'kill $main $others; wait; exit 0' TERM

until [ -S /run/wireguard/wg0.sock ]; do sleep 0.05; done
wg setconf wg0 /vpn/wg0.conf
ip address add 10.9.0.1/24 dev wg0
ip link set wg0 up
for device in udp tcp stranded; do
    until ip address show dev "$device" 2> /dev/null | grep -q inet; do sleep 0.05; done
done
touch /tmp/ready
wait $main

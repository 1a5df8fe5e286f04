#!/bin/bash
# The three ways to make a line, in a kernel that has netem: each measured by `cawrm wan show`. $1: the profiles.
set -eu
modprobe sch_netem
modprobe veth
modprobe tun
modprobe tcp_bbr
ip link set lo up
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
for mode in relay netem tun; do
	json=$(cawrm wan show $1 --mode $mode --json) # a failure ends the script
	echo "JSON $mode $(echo "$json" | tr -d '\n')"
done

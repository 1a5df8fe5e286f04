#!/bin/sh
# Before removing, not before upgrading: a daemon in use goes on.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now 'cawrm-attach@*.service' cawrm-nbd.socket cawrm-peer.socket cawrm.service || true
	fi
	;;
esac

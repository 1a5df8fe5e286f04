#!/bin/sh
# After installing and upgrading, of a .deb ("configure VERSION") and of an .rpm (number of versions).
set -e
if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers cawrm.conf
elif ! id cawrm >/dev/null 2>&1; then
	if command -v useradd >/dev/null 2>&1; then
		useradd --system --user-group --home-dir /var/lib/cawrm --shell /usr/sbin/nologin cawrm
	else # busybox
		adduser -S -D -H -h /var/lib/cawrm -s /sbin/nologin cawrm
	fi
fi
group=$(id -gn cawrm)
mkdir -p /var/lib/cawrm /etc/cawrm/attach
chown "cawrm:$group" /var/lib/cawrm /etc/cawrm /etc/cawrm/cawrm.toml
chmod 0750 /var/lib/cawrm /etc/cawrm
if [ -d /run/systemd/system ]; then
	systemd-tmpfiles --create cawrm.conf || true
	systemctl daemon-reload
	# A daemon that runs is started anew with the new program: clients that reconnect notice a pause.
	systemctl try-restart cawrm.service || true
fi

#!/bin/bash
# What lab.service of a root disk starts (debian-root.sh): the script of vm.sh, with its output and status on the ports.
export HOME=/root TERM=dumb LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
eval "set -- $(cat /vm/args)"
/vm/script "$@" </dev/null >/dev/virtio-ports/vm.out 2>&1
echo $? >/dev/virtio-ports/vm.rc
systemctl --no-block poweroff

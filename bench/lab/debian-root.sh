#!/bin/bash
# debian-root.sh FILE: makes an ext4 of a small Debian with systemd, out of the packages that are installed on this machine: their
# files, their entries of dpkg's database, and what the postinst of a few of them would have made. Nothing is downloaded.
#
# vm.sh --root boots it: lab.service runs the script when the machine is up.
set -eu -o pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

PACKAGES="systemd systemd-sysv udev bash dash coreutils dpkg util-linux mount e2fsprogs kmod nbd-client adduser passwd login
 grep sed findutils diffutils hostname base-files base-passwd libc-bin mawk perl-base tar"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root

# What they need, as far as it is installed here; the same list is the machine's own of what it has.
apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances $PACKAGES |
	grep '^[a-z]' | sed 's/:.*//' | sort -u >"$tmp/wanted"
dpkg-query -W -f '${db:Status-Status} ${Package} ${binary:Package}\n' |
	awk 'NR == FNR { wanted[$1]; next } $1 == "installed" && $2 in wanted { print $2, $3 }' "$tmp/wanted" - >"$tmp/packages"

mkdir -p "$root"/etc/systemd/system "$root"/{usr/{bin,sbin,lib,lib32,lib64,libx32},dev,proc,sys,run,tmp,mnt,root,srv,var/{log/journal,lib/dpkg/info}}
for d in bin sbin lib lib32 lib64 libx32; do ln -s usr/$d "$root/$d"; done
while read -r name package; do
	list=/var/lib/dpkg/info/$package.list
	[ -e "$list" ] || list=/var/lib/dpkg/info/$name.list
	cp "$list" "$root/var/lib/dpkg/info/"
	cat "$list"
done <"$tmp/packages" | grep -v -e '^/usr/share/\(doc\|man\|locale\|info\|i18n\|zoneinfo\)/' | sort -u |
	while read -r f; do if [ -L "$f" ] || [ -f "$f" ]; then echo "${f#/}"; fi; done >"$tmp/files"
tar -C / --no-recursion -cf - -T "$tmp/files" | tar -C "$root" --keep-directory-symlink -xf -
awk 'NR == FNR { wanted[$1]; next } /^Package: / { keep = $2 in wanted } keep' "$tmp/packages" /var/lib/dpkg/status >"$root/var/lib/dpkg/status"

cp /usr/share/base-passwd/passwd.master "$root/etc/passwd"
cp /usr/share/base-passwd/group.master "$root/etc/group"
cp -r /etc/alternatives "$root/etc/"
cp -P /usr/bin/awk "$root/usr/bin/awk"
echo lab >"$root/etc/hostname"
echo '127.0.0.1 localhost lab' >"$root/etc/hosts"
: >"$root/etc/fstab"
echo 5ca1ab1e000000000000000000000001 >"$root/etc/machine-id" # a journal for both lives
ldconfig -r "$root"
systemd-sysusers --root="$root" 2>/dev/null
systemctl --root="$root" -q enable remote-fs.target

# The script is where the ports are, and its end is the machine's.
cat >"$root/etc/systemd/system/lab.service" <<'U'
[Unit]
Description=The script of vm.sh
After=multi-user.target

[Service]
ExecStart=/vm/run
StandardOutput=null
KillMode=process
U
cat >"$root/etc/systemd/system/lab.target" <<'U'
[Unit]
Requires=multi-user.target
After=multi-user.target
Wants=lab.service
AllowIsolate=yes
U
# Nobody logs in; and what takes seconds of an emulated machine, and has nothing to do with disks.
for unit in {getty@,serial-getty@,getty-static,systemd-logind,systemd-user-sessions,systemd-update-utmp,systemd-timesyncd,modprobe@,systemd-udev-trigger,systemd-random-seed,\
systemd-sysctl,systemd-modules-load,kmod-static-nodes}.service \
	{e2scrub_all,fstrim,systemd-tmpfiles-clean}.timer {dev-hugepages,dev-mqueue,sys-kernel-{debug,tracing,config},sys-fs-fuse-connections}.mount; do
	ln -s /dev/null "$root/etc/systemd/system/$unit"
done

touch "$root/etc/.updated" "$root/var/.updated" # no rebuilding of indexes at the boot
rm -f "$1"
mke2fs -q -t ext4 -d "$root" "$1" 512M

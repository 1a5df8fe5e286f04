#!/bin/sh
# Make the three states of a file system that the experiment of the Zumastor paper (section 3.1) compares: empty, with a kernel's
# source tree, and with that tree changed into the one of a later release, as `patch` does it: files that differ are written anew.
# Needs root (loop devices) and two of Debian's linux-source packages.
#
# Usage: bench/kernel/images.sh DIR OLD NEW      e.g. tmp/kernel 6.1 6.12
set -eu
dir=$1 old=$2 new=$3
mkdir -p "$dir" && cd "$dir"

for v in "$old" "$new"; do
	ls linux-source-"$v"_*.deb >/dev/null 2>&1 || apt-get download "linux-source-$v"
done

# tree VERSION prints the package's tar archive.
tree() { dpkg-deb --fsys-tarfile linux-source-"$1"_*.deb | tar -xO "./usr/src/linux-source-$1.tar.xz" | xz -dc; }

[ -d new ] || { mkdir new.part && tree "$new" | tar -x --strip-components=1 -C new.part && mv new.part new; }

rm -f 0.img 1.img 2.img
truncate -s 4G work.img
mkfs.ext4 -q -F work.img
cp --sparse=always work.img 0.img
mkdir -p mnt
mount -o loop work.img mnt
trap 'umount mnt' EXIT
tree "$old" | tar -x --strip-components=1 -C mnt
sync -f mnt
fsfreeze -f mnt; cp --sparse=always work.img 1.img; fsfreeze -u mnt
LC_ALL=C diff -rq --no-dereference mnt new >changes || [ $? = 1 ]
sed -n 's|^Only in \(mnt[^:]*\): \(.*\)|\1/\2|p' changes | grep -v lost+found | xargs -d '\n' rm -rf
{ sed -n 's|^Files mnt/\(.*\) and new/.* differ|\1|p' changes; sed -n 's|^Only in new\([^:]*\): \(.*\)|.\1/\2|p' changes; } >list
tar -C new -cf - -T list | tar -C mnt -xf -
sync -f mnt
trap - EXIT
umount mnt
mv work.img 2.img

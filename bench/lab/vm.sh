#!/bin/bash
# Runs one script inside a throw-away virtual machine with Debian's kernel.
#
# For tests that need what the host's kernel may lack: the nbd driver, file
# systems on it. The machine is emulated (qemu TCG), needs no KVM, no root
# disk and no network, and boots in a few seconds. The guest is Debian's cloud
# kernel with a computed initramfs: busybox, the programs named below with
# their libraries, and only the modules asked for. Its root is a tmpfs, so
# anything that must lie on a real file system needs a --ramdisk.
#
# The script's output appears here (both streams, through a virtio-serial
# port) and its exit status is returned; 124 is the time limit, 125 a failure
# of the laboratory itself, 137 a killed emulator.
#
# Scripts start with #!/bin/bash: busybox's sh prefers its own applets to the
# real programs of the same name.
#
# A test that cuts the power kills the emulator by the id in the file of --pid;
# the status is then 137.
#
# On the host: qemu-system-x86 busybox-static cpio kmod, and the programs of
# BINS. The kernel comes by `apt-get download`; nothing is installed for it.
set -u -o pipefail

BINS="bash nbd-client mkfs.ext4 e2fsck blkdiscard blockdev fstrim cmp fallocate modprobe timeout dd sha256sum mount umount"
MODS="virtio_pci virtio_blk virtio_console nbd ext4 autofs4 crc32c-intel"

usage() {
	cat >&2 <<-U
	usage: vm.sh --run SCRIPT [options] [-- script arguments]
	  --add SRC:DST    put host file or directory SRC at DST in the guest (repeat)
	  --bin NAME       copy one more host program with its libraries (repeat)
	  --mod NAME       one more kernel module (repeat)
	  --ramdisk SIZE   attach a fresh sparse file as the next /dev/vdX (repeat)
	  --disk FILE|URI  attach a raw file, or an NBD export, as the next /dev/vdX (repeat)
	  --port NAME=PATH /dev/virtio-ports/NAME is what listens at this unix socket (repeat)
	  --image FILE     make a disk of 256 MiB that boots into the script, and end; its second partition, of 96 MiB, is empty
	  --boot           boot from the first disk
	  --root FILE      a disk (see debian-root.sh) that is /dev/vda and the root: its systemd starts the script; of --add it sees
	                   what goes below vm/
	  --pid FILE       write the emulator's process id there
	  --mem MB (1024)  --smp N (2)  --timeout SECONDS (300)
	  --log FILE       the kernel's console
	  --build          only build the cached initramfs
	cache: \$CAWRM_LAB_CACHE (default \${XDG_CACHE_HOME:-~/.cache}/cawrm-lab)
	U
	exit 2
}

fail() {
	echo "vm.sh: $*" >&2
	exit 125
}

CACHE=${CAWRM_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cawrm-lab}
TMP=$(mktemp -d "${TMPDIR:-/tmp}/cawrm-vm.XXXXXX") || exit 125
QEMU=
trap '[ -n "$QEMU" ] && kill "$QEMU" 2>/dev/null; rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM

RUN= MEM=1024 SMP=2 LIMIT=300 LOG=$TMP/console BUILD= IMAGE= BOOT= ROOT= ADDS=() DISKS=() PORTS=() PID=()
while [ $# -gt 0 ]; do
	case $1 in
	--run) RUN=$2; shift ;;
	--add) ADDS+=("$2"); shift ;;
	--bin) BINS+=" $2"; shift ;;
	--mod) MODS+=" $2"; shift ;;
	--ramdisk)
		truncate -s "$2" "$TMP/disk${#DISKS[@]}" || exit 125
		DISKS+=("$TMP/disk${#DISKS[@]}"); shift ;;
	--disk) DISKS+=("$2"); shift ;;
	--port) PORTS+=("$2"); shift ;;
	--image) IMAGE=$2; shift ;;
	--boot) BOOT=1 ;;
	--root) ROOT=1; DISKS=("$2" ${DISKS[@]+"${DISKS[@]}"}); shift ;;
	--pid) PID=(-pidfile "$2"); shift ;;
	--mem) MEM=$2; shift ;;
	--smp) SMP=$2; shift ;;
	--timeout) LIMIT=$2; shift ;;
	--log) LOG=$2; shift ;;
	--build) BUILD=1 ;;
	--) shift; break ;;
	*) usage ;;
	esac
	shift
done
[ -n "$RUN$BUILD$BOOT" ] || usage
PATH=$PATH:/usr/sbin:/sbin
for p in qemu-system-x86_64 busybox cpio depmod $BINS; do
	command -v "$p" >/dev/null || fail "no program $p on this machine (see the packages at the top)"
done

# ---- the kernel, unpacked from its package into the cache

fetch_kernel() {
	local package
	package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -1)
	[ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64 (apt-get update first)"
	mkdir -p "$CACHE/deb"
	(cd "$CACHE/deb" && apt-get -qq -o APT::Sandbox::User=root download "$package") ||
		fail "cannot download $package"
	rm -rf "$CACHE/kernel.tmp"
	dpkg -x "$(ls -t "$CACHE/deb/${package}"_*.deb | head -1)" "$CACHE/kernel.tmp" || fail "cannot unpack $package"
	depmod -b "$CACHE/kernel.tmp" "$(ls "$CACHE/kernel.tmp/lib/modules")" || fail "depmod failed"
	rm -rf "$CACHE/deb" "$CACHE/kernel"
	mv "$CACHE/kernel.tmp" "$CACHE/kernel"
}

# ---- the initramfs, cached under a hash of all that decides its content

SELF=$(readlink -f "$0")
KEY=$( (cat "$SELF"; echo "$BINS $MODS") | sha256sum | cut -c1-16)

build() {
	local kernel=$CACHE/kernel version root=$CACHE/$KEY.tmp/root p f dst
	version=$(ls "$kernel/lib/modules" | head -1)
	rm -rf "$CACHE/$KEY.tmp"
	mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,mnt,etc,root,lib64,vm,usr/lib/x86_64-linux-gnu} "$root/lib/modules/$version" || return 1
	cp "$kernel"/boot/vmlinuz-* "$CACHE/$KEY.tmp/vmlinuz" || return 1
	ln -s /bin "$root/sbin"; ln -s /bin "$root/usr/bin"; ln -s /bin "$root/usr/sbin"
	ln -s /usr/lib/x86_64-linux-gnu "$root/lib/x86_64-linux-gnu"
	ln -s /proc/mounts "$root/etc/mtab"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
	echo '127.0.0.1 localhost' >"$root/etc/hosts"

	cp "$(command -v busybox)" "$root/bin/busybox"
	for p in $(busybox --list); do
		[ -e "$root/bin/$p" ] || ln -s busybox "$root/bin/$p"
	done
	local programs=()
	for p in $BINS; do
		f=$(command -v "$p")
		rm -f "$root/bin/$p"
		cp -L "$f" "$root/bin/$p" || return 1
		programs+=("$f")
	done
	ldd "${programs[@]}" 2>/dev/null |
		awk '$2 == "=>" && $3 ~ /^\// {print $3} $1 ~ /^\/.*ld-linux/ {print $1}' | sort -u |
		while read -r f; do
			case $f in
			*/ld-linux*) cp -L "$f" "$root/lib64/" ;;
			*) cp -L "$f" "$root/usr/lib/x86_64-linux-gnu/" ;;
			esac
		done

	# modprobe computes what each module needs over the whole tree; depmod
	# then indexes the small one.
	for p in $MODS; do
		modprobe -d "$kernel" -S "$version" --show-depends "$p" 2>/dev/null || echo "vm.sh: no module $p" >&2
	done | awk '/^insmod/ {print $2}' | sort -u | while read -r f; do
		dst=$root/lib/modules/$version/${f#*/modules/$version/}
		mkdir -p "${dst%/*}" && cp "$f" "$dst"
	done
	cp "$kernel/lib/modules/$version"/modules.{order,builtin*} "$root/lib/modules/$version/"
	depmod -b "$root" "$version" || return 1

	cp "${SELF%/*}/guest-init.sh" "$root/init" && chmod 755 "$root/init" || return 1
	(cd "$root" && find . -print0 | cpio -0 -o -H newc --quiet) >"$CACHE/$KEY.tmp/initrd" || return 1
	rm -rf "$root" "${CACHE:?}/$KEY"
	mv "$CACHE/$KEY.tmp" "$CACHE/$KEY"
}

mkdir -p "$CACHE" || exit 125
exec 9>"$CACHE/lock"
flock 9 # two runs at once build it once
[ -d "$CACHE/kernel" ] || fetch_kernel
KEY=$( (echo "$KEY"; cat "${SELF%/*}/guest-init.sh"; ls "$CACHE/kernel/lib/modules") | sha256sum | cut -c1-16)
[ -e "$CACHE/$KEY/initrd" ] || build || fail "cannot build the initramfs"
exec 9>&-
[ -n "$RUN$BOOT" ] || exit 0

# ---- a second archive with the caller's files; the kernel unpacks both

archive() {
	mkdir -p "$TMP/x/vm"
	cp "$RUN" "$TMP/x/vm/script" && chmod 755 "$TMP/x/vm/script" || exit 125
	for a in ${ADDS[@]+"${ADDS[@]}"}; do
		dst=$TMP/x/${a#*:}
		mkdir -p "${dst%/*}" && cp -rL "${a%%:*}" "$dst" || exit 125
	done
	{ printf '%q ' "$@"; echo; } >"$TMP/x/vm/args"
	date +%s >"$TMP/x/vm/date"
	[ -z "$ROOT" ] || cp "${SELF%/*}/root-run.sh" "$TMP/x/vm/run" || exit 125
	printf "%s\n" vm.out vm.rc ${PORTS[@]+"${PORTS[@]%%=*}"} >"$TMP/x/vm/ports"
	(cd "$TMP/x" && find . -print0 | cpio -0 -o -H newc --quiet) >"$TMP/x.cpio" || exit 125
	cat "$CACHE/$KEY/initrd" "$TMP/x.cpio" >"$TMP/initrd"
	rm -rf "$TMP/x" "$TMP/x.cpio"
}
[ -n "$BOOT" ] || archive "$@"

KERNEL=$CACHE/$KEY/vmlinuz
OPTIONS="console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc nowatchdog"
[ -z "$ROOT" ] || OPTIONS+=" systemd.unit=lab.target"

# ---- or a disk with both: a master boot record, a FAT with a boot loader that a BIOS starts

image() {
	local start=2048 fat=$((2048 * 512)) boot=$((159 * 2048)) # sectors, bytes, sectors
	truncate -s 256M "$IMAGE" &&
		printf '%s\n' "label: dos" "$start,$boot,c,*" "$((start + boot)),,83" | sfdisk -q "$IMAGE" >/dev/null &&
		dd if=/usr/lib/syslinux/mbr/mbr.bin of="$IMAGE" bs=440 count=1 conv=notrunc status=none &&
		printf '%s\n' "default run" "label run" "kernel vmlinuz" "append $OPTIONS" "initrd initrd" >"$TMP/syslinux.cfg" &&
		mformat -i "$IMAGE@@$fat" -F -T $boot -h 64 -s 32 -H $start :: &&
		mcopy -i "$IMAGE@@$fat" "$KERNEL" "$TMP/initrd" "$TMP/syslinux.cfg" :: &&
		syslinux --install --offset $fat "$IMAGE"
}
if [ -n "$IMAGE" ]; then
	image || fail "cannot make a disk to boot from"
	exit 0
fi

# ---- the machine

START=(-kernel "$KERNEL" -initrd "$TMP/initrd" -append "$OPTIONS")
[ -z "$BOOT" ] || START=(-boot c)
ARGS=(-device virtio-serial-pci -chardev "file,id=console,path=$LOG" -serial chardev:console
	-chardev "file,id=out,path=$TMP/out" -device virtserialport,chardev=out,name=vm.out
	-chardev "file,id=rc,path=$TMP/rc" -device virtserialport,chardev=rc,name=vm.rc)
for p in ${PORTS[@]+"${PORTS[@]}"}; do
	ARGS+=(-chardev "socket,id=port-${p%%=*},path=${p#*=}" -device "virtserialport,chardev=port-${p%%=*},name=${p%%=*}")
done
n=0 CACHING=writeback
[ -z "$ROOT" ] || CACHING=unsafe # only the power of a machine without a root disk is cut
for d in ${DISKS[@]+"${DISKS[@]}"}; do
	ARGS+=(-drive "file=$d,format=raw,if=none,id=d$n,cache=$CACHING,discard=unmap" -device "virtio-blk-pci,drive=d$n")
	n=$((n + 1))
done
mkfifo "$TMP/out"
cat "$TMP/out" &
READER=$!
timeout -k 2 "$LIMIT" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -M pc -smp "$SMP" -m "$MEM" \
	-nodefaults -no-user-config -display none -no-reboot "${START[@]}" "${PID[@]}" "${ARGS[@]}" </dev/null &
QEMU=$!
wait $QEMU 2>/dev/null # bash would report a killed one at length
status=$?
QEMU=
: 2>/dev/null <>"$TMP/out" # lets the reader see the end if qemu never opened it
wait $READER
rc=$(head -1 "$TMP/rc" 2>/dev/null)
case $status in
124) echo "vm.sh: the machine was stopped after $LIMIT s" >&2; rc=124 ;;
137) echo "vm.sh: the machine was killed" >&2; rc=137 ;;
esac
if [ -z "$rc" ]; then
	echo "vm.sh: the machine ended without a result (qemu $status); its console:" >&2
	tail -n 25 "$LOG" >&2
	rc=125
fi
exit "$rc"

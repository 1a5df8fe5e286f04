# Sourced by scripts in the machine: containers on disks, file systems on their
# volumes. FS is a file system's kind, or its kind and anything after a hyphen;
# its container is /dev/DISK, its daemon's socket /run/FS.sock, its volume
# /dev/NBD, its directory /fs/FS.
export PATH=/bin

step() { echo "== $(cut -d' ' -f1 /proc/uptime) s: $*"; }

# serve FS DISK NBD: opens the container and attaches the volume. What the
# recovery found is printed.
serve() {
	cawrm serve "/dev/$2" --name "$1" --nbd "unix:/run/$1.nbd" --control "unix:/run/$1.sock" >"/run/$1.log" 2>&1 &
	echo $! >"/run/$1.pid"
	for _ in $(seq 200); do
		[ -S "/run/$1.sock" ] && cawrm attach "$1" "/dev/$3" --control "unix:/run/$1.sock" >/dev/null 2>&1 && break
		kill -0 "$(cat "/run/$1.pid")" || break
		sleep 0.1
	done
	if [ "$(cat "/sys/block/$3/size")" = 0 ]; then
		echo "$1: no volume at /dev/$3"
		cat "/run/$1.log"
		return 1
	fi
	sed -n "s/.*msg=recovered/$1: recovered/p" "/run/$1.log"
}

# unserve FS NBD: a clean end.
unserve() {
	cawrm detach "/dev/$2"
	kill "$(cat "/run/$1.pid")"
	while kill -0 "$(cat "/run/$1.pid")" 2>/dev/null; do sleep 0.05; done
}

# make FS NBD [MIB]: the variables are how mkfs.xfs is told that this is a test,
# which may have a log of less than 64 MiB; all of it is written with zeroes.
make() {
	case ${1%%-*} in
	ext4) mkfs.ext4 -q "/dev/$2" ${3:+"$3M"} ;;
	xfs) TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f -l size=10m ${3:+-d size="$3m"} "/dev/$2" ;;
	btrfs) mkfs.btrfs -q -f ${3:+-b "$3M"} "/dev/$2" ;;
	esac
}

enter() { # enter FS NBD: mounts, which replays the journal
	mkdir -p "/fs/$1"
	mount -t "${1%%-*}" -o discard "/dev/$2" "/fs/$1"
}

# sound FS NBD: the file system's own checker finds nothing. It must not be mounted.
sound() {
	case ${1%%-*} in
	ext4) e2fsck -fn "/dev/$2" ;;
	xfs) xfs_repair -n "/dev/$2" ;;
	btrfs) btrfs check "/dev/$2" ;;
	esac >"/run/$1.fsck" 2>&1 && return 0
	echo "$1: the file system is damaged"
	cat "/run/$1.fsck"
	return 1
}

# agrees FS DISK: cawrm check finds nothing in the container.
agrees() {
	cawrm check "/dev/$2" >"/run/$1.check" 2>&1 && return 0
	echo "$1: the container is damaged"
	cat "/run/$1.check" "/run/$1.log"
	return 1
}

# each COMMAND ARGS: runs COMMAND ARGS FS DISK NBD for all file systems of $FS
# at once and fails when one fails.
each() {
	local n=0 fs jobs=() failed=0
	for fs in $FS; do
		"$@" "$fs" "vd$(printf "\\x$((61 + n))")" "nbd$n" &
		jobs+=($!)
		n=$((n + 1))
	done
	for n in "${jobs[@]}"; do wait "$n" || failed=1; done
	return $failed
}

complain() {
	echo "FAILED in line $1"
	dmesg | tail -n 30
	tail -n 20 /run/*.log
}

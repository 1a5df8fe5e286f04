// Package lab tests cawrm in a virtual machine with Debian's kernel.
//
// What it needs of the kernel (the nbd driver, attaching by netlink, file
// systems on /dev/nbdN, dm-log-writes) is not on every machine that builds
// cawrm, and wants root. vm.sh boots a throw-away machine under emulation and
// runs one script in it; each test is such a script and what watches it from
// outside. Its only code gives the scripts that boot a machine to others.
//
//	TestKernelDevices  kernel-devices.sh: two sites, ext4, nbd-client, attach
//	TestReconnect      kernel-reconnect.sh: a daemon that is stopped, or killed,
//	                   under a device that is in use
//	TestPowerCut       power-cut.sh: containers on disks, ext4, xfs and btrfs on
//	                   their volumes, files with fsync; the emulator is killed,
//	                   and the machine boots again on what the disks have kept
//
//	TestLogWrites      log-record.sh: a container on a device whose writes
//	                   dm-log-writes records; outside, a crash at each entry of
//	                   that log. log-points.sh: some of them mounted
//
//	TestPromote        promote.sh: ext4 on a volume that the host serves and
//	                   mirrors over a bad line; outside, a clone of the mirror at
//	                   random moments, checked by e2fsck, and a promotion
//
//	TestPostgres       postgres.sh: a database under pgbench on a volume whose
//	                   mirror is in flush mode; its source is killed, the mirror
//	                   promoted, and the database opens there with every row
//	                   whose COMMIT was answered
//
//	TestSystemd        systemd.sh: the .deb, installed under a systemd that is the
//	                   first process; a mount that waits for the attach unit,
//	                   reload, restart, watchdog, shutdown, removal. Its root
//	                   is a disk of this machine's packages (debian-root.sh)
//
//	TestLines          line.sh: the ways in which wan makes a line, netem among
//	                   them, measured beside each other
//
//	TestPeers          cawrm bench peers: DRBD and cawrm, each in a machine of its
//	                   own, over netem
//
// # The disks of a power cut
//
// A killed emulator alone loses little: what the guest's kernel had sent is
// with the host's. So the disks are served to it over NBD by the test, which
// keeps what was flushed and any part of what was not, whole or torn at 512
// bytes, in any order (disk.Memory). The power goes at the n-th write or flush
// of a life, n from the seed; then the emulator gets SIGKILL. A seed replays
// the loads, the moments and the choices, but not the guest's scheduling.
//
// # The replay of a log
//
// Every point is tried three times: the device as it was after the entry; with
// a part of that write; and as it may have been before, with any part of the
// writes since the last flush. So is the device right after each mark of
// blocks. Each time `cawrm check` has to agree before the container is opened (and now and
// then after), and blocks that were written in a fixed order must be what the
// first n changes leave, n at least what was marked as flushed. The replay of
// all must be what is on the device.
//
// # Environment
//
//	CAWRM_SEED        replays a run's seed
//	CAWRM_POWER_CUTS  power cuts of each file system (1)
//	CAWRM_PROMOTIONS  moments at which the mirror is looked at (5)
//	CAWRM_POWER_FS    which file systems ("ext4 xfs btrfs")
//	CAWRM_LOG_FS      the file system of TestLogWrites (ext4)
//	CAWRM_LOG_PHASES, CAWRM_LOG_STEPS, CAWRM_LOG_FILES
//	                  its length: lives of the daemon (2), and in each changes of
//	                  blocks (150) and files of each of 3 writers (15)
//	CAWRM_LOG_POINTS  entries to crash at (200); all where there are no more
//	CAWRM_LOG_MOUNTS  points to mount, at most 20 (3)
//	CAWRM_LOG_DIR     keep the log there; if there is one, replay that, with the
//	                  same seed and lengths
//
// By hand:
//
//	CAWRM_POWER_CUTS=10 go test -v -count=1 -timeout 1h -run PowerCut ./bench/lab
//	CAWRM_LOG_PHASES=4 CAWRM_LOG_STEPS=400 CAWRM_LOG_FILES=40 CAWRM_LOG_POINTS=100000 \
//	    CAWRM_LOG_MOUNTS=12 go test -v -count=1 -timeout 2h -run LogWrites ./bench/lab
package lab

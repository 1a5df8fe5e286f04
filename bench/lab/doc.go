// Package lab tests cawrm in a virtual machine with Debian's kernel.
//
// What it needs of the kernel (the nbd driver, attaching by netlink, file
// systems on /dev/nbdN, dm-log-writes) is not on every machine that builds
// cawrm, and wants root. vm.sh boots a throw-away machine under emulation and
// runs one script in it; each test is such a script and what watches it from
// outside. This package has no code of its own.
//
//	TestKernelDevices  kernel-devices.sh: two sites, ext4, nbd-client, attach
//	TestPowerCut       power-cut.sh: containers on disks, ext4, xfs and btrfs on
//	                   their volumes, files with fsync; the emulator is killed,
//	                   and the machine boots again on what the disks have kept
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
// # Environment
//
//	CAWRM_SEED        replays a run's seed
//	CAWRM_POWER_CUTS  power cuts of each file system (1)
//	CAWRM_POWER_FS    which file systems ("ext4 xfs btrfs")
//
// By hand: CAWRM_POWER_CUTS=10 go test -v -timeout 30m -run PowerCut ./bench/lab
package lab

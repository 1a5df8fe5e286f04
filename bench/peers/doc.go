// Package peers measures cawrm beside the systems that one would take instead, over the same emulated line: qemu's blockdev-mirror to
// an NBD target, in its background and its write-blocking mode, and nbdcopy.
//
// Each system serves a volume over NBD on a unix socket, first without a mirror, then with one. The client is this project's own. What is measured:
//
//	writer    4 KiB writes at depth 16: rate and latency with the mirror over without
//	lag       time until the mirror has everything after that writer stops
//	initial   time and bytes of the first synchronisation of a volume of which about a fifth is stored
//	resume    an outage with a writer at 200 writes a second: its longest wait, then time and bytes until the mirror has everything
//	usable    the line is cut at random moments of catching up, and what the target holds is compared with the history of the writes:
//	          usable is what was the source's state at some moment. This writer has one write under way at a time
//
// # In a virtual machine
//
// DRBD (protocols A, B and C) and md's raid1 over nbd with write-behind need a kernel that has them, and root. A virtual machine with
// Debian's kernel (bench/lab) has both; each system gets a new one for each turn, and cawrm gets its turn in it too, behind
// the kernel's nbd driver: kernel, disks of memory, line and writer are then the same for all. The line is a veth pair with netem
// between two addresses of one kernel: loss is there, and the kernel's TCP.
//
//	host: cawrm bench peers -- vm.sh -- guest: cawrm bench inside ORDER -- lines of JSON --> host
//
// Measured is the same, and besides:
//
//	writer of 200 a second   its latency, corrected for coordinated omission
//	bare disk                the writer on the disk itself
//	outage                   the line is silent, and nobody is told; afterwards nobody does anything
//	resume                   the mirror is taken out of service, 512 chunks are written, and it is taken in again
//	usable                   at moments of that: when a random part of the missing bytes has gone over the line, it is cut
//
// A mirror has everything when the far site shows the same writes as the near one: the same question to all, past the line.
package peers

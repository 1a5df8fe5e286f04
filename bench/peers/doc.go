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
// DRBD and md need a kernel that has them; they are not measured here.
package peers

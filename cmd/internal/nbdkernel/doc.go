// Package nbdkernel makes a Linux block device (/dev/nbdN) of an NBD export, and takes it away again.
//
// It needs no other tool: Dial does the handshake of an NBD client, Connect hands the sockets to the kernel
// through the nbd driver's generic netlink family, and from then on the kernel speaks with the server. No
// process has to stay.
//
//	Dial ------> []*Conn + Export ------> Connect ------> /dev/nbdN ------> Flush, Disconnect
//	(handshake.go)                        (netlink.go)    (sysfs.go)
//
// A device whose export grows is told so (Grow), and has the new size at once.
//
// The kernel's client knows simple replies only, so the handshake asks for nothing beyond NBD_OPT_GO.
//
// What it does not do: TLS (the kernel would need kTLS and a handshake daemon), partitions, mounting.
package nbdkernel

// Package nbdsrv serves block devices to NBD clients: the Linux kernel, qemu, libnbd and nbdkit's tools.
//
// # Contract
//
// The caller gives a [Server] its exports, each a [Device] under a name, and listeners, and ends it with
// Shutdown. The server checks every request before a device sees it: bounds, alignment, flags,
// read-only. It calls a device from many goroutines at a time, in no order. A reply goes out only after
// the device has returned, which is what FLUSH and FUA rest on. Shutdown does not flush devices: that
// belongs to whoever closes them.
//
// # Flow
//
//	accept -- admit -- runReader: handshake -> view{export, size, mode}
//	                      |
//	    socket -> read buffer -> decode -> check -> serve
//	                                                 |  small, device does not wait
//	                                                 +-----------------> inline replies --+
//	                                                 |  anything else                     |
//	                                                 +-> task -> runWorker -> Device -----+-> queue -> socket
//
// One goroutine reads a connection. One read system call fetches many requests; reads and writes up to
// 256 KiB are served on the spot when the device is [Nonblocking], a write straight out of the read
// buffer, a read straight into the block of replies that leaves before the next system call that reads. All else
// goes to the connection's workers and is answered when it is done, in any order. Whoever queues a reply
// while nobody writes becomes the writer until the queue is empty, so replies that are ready together
// leave in one system call.
//
// # Copies
//
// An inline request, up to 256 KiB, is copied once between the server and the device and once between
// the server and the socket, through two buffers a connection that stay in the processor's cache. A
// larger write, or one that has to wait, is received straight into a page-aligned buffer, but for what
// the read buffer already held; such a read is read behind the place of its header into such a buffer
// and sent from there.
//
// # Memory
//
// All bounds stand in limits.go, and Config.MemoryBound adds them up: 1 GiB at the defaults, with 128 clients
// all of whom do their worst. In short: a handshake costs a quarter of a MiB at most, a connection beyond it
// about 3 MiB, and the payloads in flight of all connections share Config.MaxInflight (512 MiB). Nobody waits
// for what others hold of that: when it is used up, a connection still gets a payload of 256 KiB, and a
// larger one passes through a buffer of that size piece by piece. A write of up to 256 KiB to a device that
// does not wait is received into the read buffer and costs nothing else.
//
// When a bound of its own is reached a connection's reader stops reading. A client has to read its replies
// while it sends requests, as all known ones do. One that leaves a request half sent or its replies unread is
// cut off after Config.StallTimeout (60 s); one that has nothing outstanding never is. In the handshake there is a
// time for all of it (20 s), and a place for 256 connections, of which the oldest goes first.
//
// # Locks
//
// Server.mu guards exports, listeners and the set of connections; writer.mu guards one connection's
// queue and accounts. Neither is held across a call of a device or of the network, nor under the other.
//
// # Absences
//
// No oldstyle negotiation, no RESIZE, no metadata context but base:allocation, no per-export TLS.
// NBD_CMD_CACHE succeeds and does nothing. NBD_CMD_FLAG_FAST_ZERO succeeds unless NO_HOLE is asked for
// too: a device is taken to record zeroes faster than it writes them.
package nbdsrv

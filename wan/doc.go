// Package wan emulates the line between two sites.
//
// A Link carries connections to one target, as a long line would: each byte
// arrives after the profile's one-way delay, no direction carries more than
// the profile's rate, and no byte overtakes another of its connection. A link
// can be stalled (bytes stop, connections stay open), cut (connections reset,
// also at an exact byte) and healed, by hand or by the profile's script, and
// it counts the bytes of each direction. One gets onto it by TCP or a unix
// socket (Listen), or from within the process (New, Dial); with a Memory
// as target nothing of it is a socket, and it runs in virtual time.
//
//	client --TCP-- Link ==[ take | delay line | deliver ]==> --TCP-- target
//	                    <=[ deliver | delay line | take ]==
//
// Each direction of each connection is a delay line with two goroutines:
// runTake reads from the sending endpoint, gives every segment the time at
// which the far end may see it, and queues it; runDeliver waits for that time
// and writes. Many segments are in flight at once, so a pipelined stream runs
// at the full rate whatever the delay. All connections of a link share the
// rate of a direction. Connecting takes a round trip before bytes flow.
//
// The queue is bounded: a direction of a connection holds at most what the
// line itself carries (rate x delay) plus Profile.Queue, by default one
// bandwidth-delay product. When it is full the relay stops reading and the
// sender's TCP feels it. A deeper queue would add delay of its own.
//
// # Packets
//
// A relay knows streams, not packets: it has no loss, no reordering and no
// congestion control of the emulated line. What loss costs a real TCP is shown
// by a Net, as root: two network namespaces joined by a veth pair with netem,
// or where the kernel has none by two TUN devices and a forwarder here
// (tun.go). A Link made by ListenIn or NewIn with such a Mode leads each
// connection through the kernel's TCP in there; cuts, stalls and counters are
// the link's as before, delay, rate and loss those of the packets.
//
//	client --TCP-- Link --[near namespace]==wan0 .... wan0==[far namespace]-- target
//
// The TCP congestion control decides everything on a lossy line. It is set
// from the profile, else the system's, and Congestion says which.
//
// All methods of Link and Net may be called from any goroutine. A namespace
// has no name: nothing stays behind when the process dies.
//
// # What it does not do
//
// The kernel's own socket buffers on both sides come on top of the relay's
// queue; the relay keeps its own small. In a relay jitter never reorders. The
// simulation (bench/sim/network) has a network of its own: there a connection may
// be half open, arrive late or be replayed, which a line cannot do.
package wan

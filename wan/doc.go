// Package wan emulates a WAN between two TCP endpoints.
//
// A Link listens on one address and carries every connection made to it to
// one target, as a long line would: each byte arrives after the profile's
// one-way delay, no direction carries more than the profile's rate, and no
// byte overtakes another of its connection. A link can be stalled (bytes stop,
// connections stay open), cut (connections reset, also at an exact byte) and
// healed, and it counts the bytes of each direction.
//
//	client --TCP-- Link ==[ take | delay line | deliver ]==> --TCP-- target
//	                    <=[ deliver | delay line | take ]==
//
// Each direction of each connection is a delay line with two goroutines:
// runTake reads from the sending endpoint, gives every segment the time at
// which the far end may see it, and queues it; runDeliver waits for that time
// and writes. Many segments are in flight at once, so a pipelined stream runs
// at the full rate whatever the delay. All connections of a link share the
// rate of a direction.
//
// The queue is bounded: a direction of a connection holds at most what the
// line itself carries (rate x delay) plus Profile.Queue, by default one
// bandwidth-delay product. When it is full the relay stops reading and the
// sender's TCP feels it. A deeper queue would add delay of its own.
//
// All methods of Link may be called from any goroutine.
//
// What it does not do: it relays byte streams, so it knows no packets. There
// is no loss, no reordering and no congestion control of the emulated line
// (what loss costs a real TCP must be measured with netem), and connecting
// takes no round trip: only bytes are delayed. The kernel's own socket buffers
// on both sides come on top of the queue; the relay keeps its own small.
package wan

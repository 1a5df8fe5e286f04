// Package nbdclient is a small raw NBD client for tests and demonstrations.
//
// It is written from the protocol document alone and shares no code with the
// server, so that the two cannot agree on a mistake. It speaks the fixed
// newstyle handshake with NBD_OPT_GO and simple replies, keeps any number of
// requests outstanding on one connection, and hands each reply to whoever
// asked: what a crash test needs to know exactly which writes were answered.
//
//	caller -- Start --> socket            requests, in the order of Start
//	caller <-- Done --- runReplies <-- socket    replies, in any order
//
// A Client is safe for use from many goroutines. Once the connection fails,
// every outstanding and every later request fails with the same error.
//
// It has no TLS, no structured replies, no block status and no reconnect.
package nbdclient

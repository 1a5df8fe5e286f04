// Package oracle knows what a volume may hold after its daemon was killed.
//
// A Load writes stamped blocks: each names its own address and the number of
// the request that wrote it, and carries a checksum over all of it. An Oracle
// records when each request was sent and when it was answered, on one counter
// of events. After a crash the whole volume is read back, and each block tells
// which version of it survived. What must hold:
//
//	O1  Every block holds a version that was written to it, whole, or zeroes
//	    where it was trimmed, zeroed or never written.
//	O2  No flushed write is lost: a block holds at least the newest version
//	    that was answered before an answered flush was sent, or that was
//	    written with FUA and answered, or that an earlier reading showed.
//	O3  A prefix survives: if a request is there, then every request that was
//	    answered before it was sent is there too.
//
// O3 is as strong as a client can ask: of requests outstanding together the
// server chooses the order, and the client does not learn it.
//
// A mirror's image is held to the same rules against the same record, with its
// own lower bound: it equals a cut of the source (O1, O3) and never goes back.
// And it never holds what the source could lose:
//
//	O4  What a mirror has shown, the source still has after any crash.
//
// Zeroes have several possible versions, so the check takes the oldest that
// satisfies the rules: it accepts exactly the images that some history allows.
//
// Requests to one block never overlap in time (Begin picks blocks without any),
// so the versions of a block are in a known order.
package oracle

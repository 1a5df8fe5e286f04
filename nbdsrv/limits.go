package nbdsrv

// All that clients can make a server hold, in bytes and in numbers. MemoryBound adds it up; what is not
// bounded here is bounded by the device.
const (
	// maxRequests is how many requests of one connection may be with its workers or on their way back,
	// maxPayloads how much their buffers may hold: one payload of the largest kind always fits.
	maxRequests = 256
	maxPayloads = LargestMaxPayload + requestOverhead
	// pieceSize is the payload that a connection may have beyond Config.MaxInflight, so that what others
	// hold never stops it.
	pieceSize = 256 << 10
	// requestOverhead is what a payload buffer costs beside its data: headroom, alignment, the task.
	requestOverhead = 12 << 10
	// handshakeBuffer is each of the two buffers of a connection whose handshake goes on; an option with
	// more data, up to maxOptionData, gets a larger one to be read into.
	handshakeBuffer = 16 << 10

	// handshakeMemory and connMemory are what a connection takes before and after its handshake, without
	// payloads: buffers, replies queued behind a slow client, stacks of goroutines.
	handshakeMemory = 2*(handshakeBuffer+requestOverhead) + 2*maxOptionData + tlsMemory
	connMemory      = (2+maxBlocks+1)*(ioBuffer+requestOverhead) + smallMemory + tlsMemory
	smallMemory     = maxRequests * smallReply / (4 << 10) * (4<<10 + requestOverhead)
	tlsMemory       = 64 << 10 // records of 16 KiB both ways, and keys
	workerMemory    = 8 << 10  // a stack
)

// MemoryBound is what a server with this configuration holds at most, in bytes, whatever its clients do:
// the shared budget of payloads; for each connection its own buffers, its workers, and one piece of a
// payload; and the handshakes. The collector may let garbage of the same size lie about for a while;
// GOMEMLIMIT keeps that short.
func (cfg Config) MemoryBound() int64 {
	cfg.setDefaults()
	each := connMemory + int64(cfg.Workers)*workerMemory + charge(pieceSize)
	return cfg.MaxInflight + int64(cfg.MaxConns)*each + int64(cfg.MaxHandshakes)*handshakeMemory
}

package nbdsrv

import "sync/atomic"

// Stats counts what a server has done since New. Requests are counted when they arrive, bytes when
// the device has taken or given them.
type Stats struct {
	Connections int    // open now
	Accepted    uint64 // connections let in
	Refused     uint64 // connections closed because of MaxConns
	Dropped     uint64 // connections closed because of MaxHandshakes
	Stalled     uint64 // connections closed because of StallTimeout

	Reads, Writes, Flushes, Trims, Zeroes, Others uint64 // requests
	ReadBytes, WrittenBytes                       uint64
	Errors                                        uint64 // requests answered with an error
	InflightBytes                                 int64  // payload buffers held now
}

// Plus adds two servers up.
func (s Stats) Plus(o Stats) Stats {
	s.Connections += o.Connections
	s.Accepted += o.Accepted
	s.Refused += o.Refused
	s.Dropped += o.Dropped
	s.Stalled += o.Stalled
	s.Reads += o.Reads
	s.Writes += o.Writes
	s.Flushes += o.Flushes
	s.Trims += o.Trims
	s.Zeroes += o.Zeroes
	s.Others += o.Others
	s.ReadBytes += o.ReadBytes
	s.WrittenBytes += o.WrittenBytes
	s.Errors += o.Errors
	s.InflightBytes += o.InflightBytes
	return s
}

// counts are the figures of one connection.
type counts struct {
	reads, writes, flushes, trims, zeroes, others atomic.Uint64
	readBytes, writtenBytes, errors               atomic.Uint64
}

func (s *Stats) add(c *counts) {
	s.Reads += c.reads.Load()
	s.Writes += c.writes.Load()
	s.Flushes += c.flushes.Load()
	s.Trims += c.trims.Load()
	s.Zeroes += c.zeroes.Load()
	s.Others += c.others.Load()
	s.ReadBytes += c.readBytes.Load()
	s.WrittenBytes += c.writtenBytes.Load()
	s.Errors += c.errors.Load()
}

// Stats is a snapshot of the server's figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.total
	for c := range s.conns {
		t.add(&c.counts)
	}
	t.Connections = len(s.conns)
	t.InflightBytes = s.memory.used.Load()
	return t
}

package nbdclient

import "hash"

// Do sends the request and waits for its result. It sets r.Done.
func (c *Client) Do(r *Request) error {
	done := make(chan *Request, 1)
	r.Done = done
	c.Start(r)
	<-done
	return r.Err
}

// Read fills buf from offset.
func (c *Client) Read(offset int64, buf []byte) error {
	return c.Do(&Request{Command: Read, Offset: offset, Data: buf})
}

// Write writes data at offset.
func (c *Client) Write(offset int64, data []byte, f Flags) error {
	return c.Do(&Request{Command: Write, Flags: f, Offset: offset, Data: data})
}

// Flush makes every write that was answered before durable.
func (c *Client) Flush() error { return c.Do(&Request{Command: Flush}) }

// Trim discards a range.
func (c *Client) Trim(offset int64, length uint32, f Flags) error {
	return c.Do(&Request{Command: Trim, Flags: f, Offset: offset, Length: length})
}

// WriteZeroes makes a range read as zeroes.
func (c *Client) WriteZeroes(offset int64, length uint32, f Flags) error {
	return c.Do(&Request{Command: WriteZeroes, Flags: f, Offset: offset, Length: length})
}

const (
	sweepPiece = 1 << 20
	sweepDepth = 4
)

// Sweep reads the export from start to end in pieces of 1 MiB, several
// requests ahead, and calls f with each in order. It stops at f's first error.
// The piece belongs to f only until it returns.
func (c *Client) Sweep(f func(offset int64, piece []byte) error) error {
	var ahead []*sweepRead
	next := int64(0)
	for {
		for len(ahead) < sweepDepth && next < c.size {
			r := newSweepRead(next, min(sweepPiece, c.size-next))
			c.Start(&r.Request)
			ahead = append(ahead, r)
			next += int64(len(r.Data))
		}
		if len(ahead) == 0 {
			return nil
		}
		r := ahead[0]
		ahead = ahead[1:]
		<-r.done
		if r.Err != nil {
			return r.Err
		}
		if err := f(r.Offset, r.Data); err != nil {
			return err
		}
	}
}

type sweepRead struct {
	Request
	done chan *Request
}

func newSweepRead(offset, length int64) *sweepRead {
	r := &sweepRead{done: make(chan *Request, 1)}
	r.Request = Request{Command: Read, Offset: offset, Data: make([]byte, length), Done: r.done}
	return r
}

// Sum feeds the whole export to h.
func (c *Client) Sum(h hash.Hash) error {
	return c.Sweep(func(_ int64, piece []byte) error {
		h.Write(piece)
		return nil
	})
}

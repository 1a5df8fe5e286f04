package main

import (
	"context"
	"math/rand/v2"
	"time"

	"cawrm/bench/internal/nbdclient"
)

// fill writes the whole image in order, in pieces of 1 MiB that do not
// compress, flushes, and reads it all once.
func (s *server) fill(ctx context.Context) error {
	c, err := nbdclient.Dial(ctx, s.addr, s.export)
	if err != nil {
		return err
	}
	defer c.Close()
	const piece, depth = 1 << 20, 4
	rng := rand.NewChaCha8([32]byte{1})
	done := make(chan *nbdclient.Request, depth)
	for range depth {
		data := make([]byte, piece)
		rng.Read(data)
		done <- &nbdclient.Request{Command: nbdclient.Write, Data: data, Done: done}
	}
	for at := int64(0); at+piece <= c.Size(); at += piece {
		r := <-done
		if r.Err != nil {
			return r.Err
		}
		rng.Read(r.Data[:4096]) // no two pieces alike
		r.Offset = at
		c.Start(r)
	}
	for range depth {
		if r := <-done; r.Err != nil {
			return r.Err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	// The reads that follow are to be reads from memory for every server: one writes past the page cache, another
	// through it.
	return c.Sweep(func(int64, []byte) error { return nil })
}

// settle makes the server durable, and its mirror equal, after a turn.
func (s *server) settle(ctx context.Context) error {
	c, err := nbdclient.Dial(ctx, s.addr, s.export)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Flush(); err != nil {
		return err
	}
	if s.mirror == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return s.source.WaitSynced(ctx)
}

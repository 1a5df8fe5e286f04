package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
)

// put writes n bytes that do not compress in pieces of 64 KiB, flushes, and
// says how long that took. Later data goes behind earlier data.
func (s *stage) put(ctx context.Context, n int64) error {
	c, err := s.amsterdam.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	start := time.Now()
	const piece = 64 << 10
	done := make(chan *nbdclient.Request, n/piece)
	rng := rand.NewChaCha8([32]byte{byte(s.written >> 20)})
	for range n / piece {
		data := make([]byte, piece)
		rng.Read(data)
		c.Start(&nbdclient.Request{Command: nbdclient.Write, Offset: s.written, Data: data, Done: done})
		s.written += piece
	}
	for range n / piece {
		if r := <-done; r.Err != nil {
			return fmt.Errorf("write at %d: %w", r.Offset, r.Err)
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	s.screen.line("%d MiB written and flushed in %s", n>>20, time.Since(start).Round(time.Millisecond))
	return nil
}

// show shows the pointers for d.
func (s *stage) show(ctx context.Context, d time.Duration) error {
	_, err := s.watch(ctx, d, func(site.Volume) bool { return false })
	return err
}

// await shows the pointers until the mirror holds everything, two minutes at
// the most.
func (s *stage) await(ctx context.Context) error {
	v, err := s.watch(ctx, 2*time.Minute, site.Volume.Synced)
	if err == nil && !v.Synced() {
		err = fmt.Errorf("after two minutes the mirror is %s: %s", v.Mirrors[0].State, v.Mirrors[0].LastError)
	}
	return err
}

// watch shows the pointers until ok says so or the limit is over, and returns
// the last status.
func (s *stage) watch(ctx context.Context, limit time.Duration, ok func(site.Volume) bool) (site.Volume, error) {
	defer s.screen.settle()
	for deadline := time.Now().Add(limit); ; {
		v, err := s.amsterdam.Status(ctx)
		if err != nil {
			return v, err
		}
		if len(v.Mirrors) != 1 {
			return v, fmt.Errorf("the status shows %d mirrors, want 1", len(v.Mirrors))
		}
		s.screen.live(describe(v))
		if ok(v) || time.Now().After(deadline) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// describe is one line of what status --json says.
func describe(v site.Volume) string {
	m := v.Mirrors[0]
	line := fmt.Sprintf("%-10s  end_ptr %-7d durable_ptr %-7d sync_ptr %-7d lag %8d records %7.1f MiB %5.1f s",
		m.State, v.EndPtr, v.DurablePtr, m.SyncPtr, m.LagRecords, mib(m.LagBytes), m.LagSeconds)
	if m.EpochProgress > 0 {
		line += fmt.Sprintf("   %3.0f%% sent", 100*m.EpochProgress)
	}
	return line
}

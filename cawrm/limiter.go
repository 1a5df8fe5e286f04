package cawrm

import (
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// limiter holds a mirror's traffic below its limit. runSend's, but for Status, which asks for the limit in force.
//
// What is sent goes in pieces of a tenth of a second, and each asks for the settings and the time of day: so a change is
// obeyed within that time, and a peer hears bytes in good time however slow the link is made.
type limiter struct {
	bucket *rate.Limiter
	limit  int64 // bytes a second that bucket has; 0: none
	burst  int64
}

// set takes a limit over, and says whether there is one.
func (c *limiter) set(limit, burst int64) bool {
	if limit == 0 {
		c.limit = 0
		return false
	}
	if burst == 0 {
		burst = limit / 4
	}
	burst = max(burst, limit/10)
	if c.limit == 0 {
		c.bucket = rate.NewLimiter(rate.Limit(limit), int(burst))
	} else if c.limit != limit || c.burst != burst {
		c.bucket.SetLimit(rate.Limit(limit))
		c.bucket.SetBurst(int(burst))
	}
	c.limit, c.burst = limit, burst
	return true
}

// piece is how much is asked for at a time: with minLimit no silence that a peer could take for a dead link.
func (c *limiter) piece() int { return int(c.limit / 10) }

// writev sends bufs, below the mirror's limit if it has one.
func (m *Mirror) writev(ctx context.Context, l *link, bufs net.Buffers) error {
	for len(bufs) > 0 {
		s := m.Settings()
		if !m.limiter.set(s.limitAt(time.Now()), s.Burst) {
			return l.writev(&bufs)
		}
		piece := bufs[0][:min(len(bufs[0]), m.limiter.piece())]
		if err := m.limiter.bucket.WaitN(ctx, len(piece)); err != nil {
			return err
		}
		if bufs[0] = bufs[0][len(piece):]; len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
		if err := l.writev(&net.Buffers{piece}); err != nil {
			return err
		}
	}
	return nil
}

package nbdsrv

import (
	"sync/atomic"
	"time"
)

const (
	// sendStep is how much one system call that sends may take: what it was given must leave within
	// Config.StallTimeout.
	sendStep = ioBuffer
	// stallStep is how many bytes of a request must arrive within Config.StallTimeout, if not all of it.
	stallStep = 64 << 10
	// stallLooks is how often the watch looks in that time.
	stallLooks = 4
)

// pace is one direction of a connection: whether the server waits for the client there, and how far it has
// got. The goroutine that reads, or writes, sets it around its system calls; the watch looks at it.
type pace struct {
	waiting atomic.Bool
	moved   atomic.Uint64 // bytes, and stallStep for each thing done
	seen    uint64        // the watch's: moved, when the client had last got on
	since   time.Time     // the watch's: when that was
}

func (p *pace) wait() { p.waiting.Store(true) }

// stop is the end of a wait in which n bytes came.
func (p *pace) stop(n int) {
	p.moved.Add(uint64(n))
	p.waiting.Store(false)
}

// done is the end of a wait for all that was due.
func (p *pace) done() { p.stop(stallStep) }

// stalled says whether the client has been waited for so long without getting on.
func (p *pace) stalled(now time.Time, limit time.Duration) bool {
	if moved := p.moved.Load(); !p.waiting.Load() || moved-p.seen >= stallStep {
		p.seen, p.since = moved, now
		return false
	}
	return now.Sub(p.since) >= limit
}

// runWatch cuts the connection off when its client stalls: what it holds is held for others to miss. It never
// does so while the server waits for nothing that was begun, or for the device.
func (c *conn) runWatch() {
	limit := c.server.cfg.StallTimeout
	c.pace.since = time.Now()
	c.writer.pace.since = c.pace.since
	look := time.NewTicker(max(limit/stallLooks, time.Millisecond))
	defer look.Stop()
	for {
		select {
		case <-c.ended:
			return
		case now := <-look.C:
			if c.pace.stalled(now, limit) || c.writer.pace.stalled(now, limit) {
				c.cutOff(errStalled)
				return
			}
		}
	}
}

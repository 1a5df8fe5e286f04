package wan

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clock is the time of a link. It stands still while the link is stalled, so
// that what was under way when the stall began keeps its distance in time
// when it ends, and the rate holds across a stall.
type clock struct {
	mu       sync.Mutex
	start    time.Time
	stopped  time.Duration // link time at which it stopped, valid while standing
	standing bool
	changed  chan struct{} // closed at each stop and start
}

func newClock() *clock {
	return &clock{start: time.Now(), changed: make(chan struct{})}
}

// now is the link time since the link was made.
func (c *clock) now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *clock) nowLocked() time.Duration {
	if c.standing {
		return c.stopped
	}
	return time.Since(c.start)
}

// stop makes the clock stand still, or run again from where it stood.
func (c *clock) stop(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on == c.standing {
		return
	}
	if on {
		c.stopped = c.nowLocked()
	} else {
		c.start = time.Now().Add(-c.stopped)
	}
	c.standing = on
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait returns true once the clock runs and shows due or more, false when
// done is closed first.
func (c *clock) wait(due time.Duration, done <-chan struct{}) bool {
	for {
		c.mu.Lock()
		left, stopped, changed := due-c.nowLocked(), c.standing, c.changed
		c.mu.Unlock()
		if !stopped && left <= 0 {
			return true
		}
		if stopped {
			left = forever
		}
		sleep := left - coarse
		if sleep <= 0 {
			if doze(left) {
				continue
			}
			sleep = left
		}
		timer := time.NewTimer(sleep)
		select {
		case <-timer.C:
		case <-changed:
		case <-done:
		}
		timer.Stop()
		select {
		case <-done:
			return false
		default:
		}
	}
}

const (
	// coarse is by how much a timer of the runtime may be late: its poller
	// sleeps whole milliseconds.
	coarse  = 1200 * time.Microsecond
	forever = time.Hour
)

// doze sleeps d, shorter than coarse, with the kernel's finer clock. It
// returns false, without sleeping, when time is virtual (testing/synctest):
// it does not go on by itself, and there timers are exact.
func doze(d time.Duration) bool {
	if now := time.Now(); time.Since(now) == 0 && time.Since(now) == 0 {
		return false
	}
	t := unix.NsecToTimespec(int64(d))
	unix.Nanosleep(&t, nil)
	return true
}

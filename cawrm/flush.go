package cawrm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi"
)

// Flush mode: a client's FLUSH and FUA return when the mirrors have committed what they cover.
//
//	F1  a flush returns without error only when need mirrors in flush mode have committed every record that was accepted
//	    before it, where need is the greatest quorum that one of them sets, or their number, and at most
//	    the number of those that are waited for
//	F2  a mirror is not waited for while it is paused, and, with on-timeout=degrade, from the flush on that it has not committed
//	    in time until it keeps up again; both are told by its status
//
// The log and the loop know nothing of it: a flush that is durable here waits until sync_ptr has passed it. That is why it
// takes one round trip and the mirror's sync more, and holds up nothing but itself.

// waiters are the flushes that wait for mirrors.
type waiters struct {
	mu      sync.Mutex
	list    map[*waiting]struct{}
	changed chan struct{} // closed and replaced when a mirror has moved, or its settings have
	ended   chan struct{}
	once    sync.Once
	any     atomic.Int64 // flushes in the list
}

// waiting is one flush.
type waiting struct {
	end   aodi.Position
	since time.Time
}

func newWaiters() *waiters {
	return &waiters{list: map[*waiting]struct{}{}, changed: make(chan struct{}), ended: make(chan struct{})}
}

// wake lets all flushes look again.
func (w *waiters) wake() {
	if w.any.Load() == 0 {
		return // one that comes now looks by itself
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *waiters) enter(x *waiting) {
	w.any.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list[x] = struct{}{}
}

func (w *waiters) leave(x *waiting) {
	w.mu.Lock()
	delete(w.list, x)
	w.mu.Unlock()
	w.any.Add(-1)
}

func (w *waiters) watch() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// beyond counts the flushes that wait for more than p, and says since when the oldest of them does.
func (w *waiters) beyond(p aodi.Position) (n int, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.list {
		if x.end > p {
			if n++; since.IsZero() || x.since.Before(since) {
				since = x.since
			}
		}
	}
	return n, since
}

// Flush is the volume's Flush, which returns when the mirrors in flush mode have committed it too. Errors: the volume's;
// ESHUTDOWN after EndFlushes.
func (s *Source) Flush() error {
	end, _ := s.v.Pointers()
	if err := s.v.Flush(); err != nil {
		return err
	}
	return s.await(end)
}

// Flushed is for what came with FUA, and is durable here: it returns when the mirrors in flush mode have committed it.
func (s *Source) Flushed() error {
	if !s.FlushesWait() {
		return nil
	}
	_, durable := s.v.Pointers()
	return s.await(durable)
}

// EndFlushes lets go all flushes that wait for mirrors, and those to come, with an error: nobody may take them for done.
func (s *Source) EndFlushes() { s.waiters.once.Do(func() { close(s.waiters.ended) }) }

// FlushesWait tells whether a mirror is in flush mode. Any goroutine.
func (s *Source) FlushesWait() bool {
	for _, m := range s.Mirrors() {
		if m.flushMode() {
			return true
		}
	}
	return false
}

// await waits for F1.
func (s *Source) await(end aodi.Position) error {
	if !s.FlushesWait() {
		return nil
	}
	x := &waiting{end: end, since: time.Now()}
	s.waiters.enter(x)
	defer s.waiters.leave(x)
	for {
		changed := s.waiters.watch()
		done, next := s.judgeFlush(x, time.Now())
		if done {
			return nil
		}
		timer := time.NewTimer(next)
		select {
		case <-changed:
		case <-timer.C:
		case <-s.waiters.ended:
			timer.Stop()
			return fmt.Errorf("the volume is being closed, and the mirrors have not committed the flush: %w", syscall.ESHUTDOWN)
		}
		timer.Stop()
	}
}

// judgeFlush tells whether a flush may return, and when to ask again though nothing has moved.
func (s *Source) judgeFlush(x *waiting, now time.Time) (done bool, next time.Duration) {
	all, quorum, have, out := 0, 0, 0, 0
	next = time.Hour
	for _, m := range s.Mirrors() {
		st := m.flushState(x.end, now.Sub(x.since))
		if !st.on {
			continue
		}
		all, quorum = all+1, max(quorum, st.quorum)
		switch {
		case st.committed:
			have++
		case st.out:
			out++
		case st.left > 0:
			next = min(next, st.left)
		}
	}
	need := all
	if quorum > 0 {
		need = min(quorum, all)
	}
	return have >= min(need, all-out), next
}

// flushState is how a mirror stands to one flush.
type flushState struct {
	on, committed, out bool
	quorum             int
	left               time.Duration // until it is not waited for any more; 0: it is for ever
}

func (m *Mirror) flushMode() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settings.Mode == ModeFlush
}

// flushState also decides, when a flush has waited for too long, that the mirror is degraded.
func (m *Mirror) flushState(end aodi.Position, waited time.Duration) flushState {
	m.mu.Lock()
	s := &m.settings
	st := flushState{on: s.Mode == ModeFlush, quorum: s.Quorum,
		committed: m.contacted && m.syncPtr >= end} // before the first contact sync_ptr is a hint
	news := false
	if st.on && !st.committed && s.OnTimeout == TimeoutDegrade && !m.degraded {
		if st.left = s.timeout() - waited; st.left <= 0 {
			m.degraded, m.degradedAt, m.rejoin, st.left, news = true, time.Now(), rejoin{}, 0, true
		}
	}
	st.out = s.Paused || m.degraded
	m.mu.Unlock()
	if news {
		m.tell(EventDegraded, "a flush has waited for %v: none waits for this mirror until it keeps up again", waited.Round(time.Millisecond))
	}
	return st
}

func (s *Settings) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return DefaultFlushTimeout
}

// rejoin is how a degraded mirror shows that it keeps up: it has everything, or gets from one end of the log to what was the end
// then in half of the time that a flush may take.
type rejoin struct {
	at    aodi.Position // durable_ptr at since; 0: not begun
	since time.Time
}

// moved is told after sync_ptr has moved, and after the settings have.
func (m *Mirror) moved() {
	m.mu.Lock()
	degraded := m.degraded
	m.mu.Unlock()
	if degraded {
		m.rejoinFlushes()
	}
	m.cfg.moved()
}

// rejoinFlushes lets flushes wait for a degraded mirror again when it keeps up.
func (m *Mirror) rejoinFlushes() {
	_, durable := m.v.Pointers()
	m.mu.Lock()
	back := m.connected && m.keepsUpLocked(durable, time.Now())
	if back || m.settings.Mode != ModeFlush {
		m.degraded = false
	}
	m.mu.Unlock()
	if back {
		m.tell(EventRestored, "the mirror keeps up again: flushes wait for it")
	}
}

func (m *Mirror) keepsUpLocked(durable aodi.Position, now time.Time) bool {
	r := &m.rejoin
	switch {
	case m.syncPtr >= durable:
		return true
	case r.at > 0 && m.syncPtr < r.at:
		return false
	case r.at > 0 && now.Sub(r.since) <= m.settings.timeout()/2:
		return true
	}
	*r = rejoin{durable, now}
	return false
}

// States of a mirror in flush mode.
const (
	FlushOK       = "ok"       // flushes wait for it, none of them longer than its timeout
	FlushBlocked  = "blocked"  // flushes wait for it longer than that
	FlushDegraded = "degraded" // none waits for it
)

// flushStatus completes a status.
func (s *Source) flushStatus(m *Mirror, st *Status) {
	if st.Settings.Mode != ModeFlush {
		return
	}
	m.mu.Lock()
	st.Flush = FlushOK
	if m.degraded || m.settings.Paused {
		st.Flush, st.FlushSince = FlushDegraded, m.degradedAt
	}
	m.mu.Unlock()
	n, since := s.waiters.beyond(st.SyncPtr)
	if st.FlushWaiting = n; st.Flush == FlushOK && n > 0 && time.Since(since) >= st.Settings.timeout() {
		st.Flush, st.FlushSince = FlushBlocked, since
	}
}

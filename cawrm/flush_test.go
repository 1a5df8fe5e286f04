package cawrm_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/cawrm"
)

// TestFlushWaitsForTheMirror: in flush mode nothing that a flush or FUA covers is missing at the mirror when it returns, however
// slow the line is; in async mode it does not wait.
func TestFlushWaitsForTheMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		b := all.site(t, "b")
		v := newSource(t, 256)
		s := all.source(t, v)
		check(t, s.Add("b", "cawrm://b/vm", "mode=flush"))
		m := mirrorOf(t, s, "b")
		check(t, s.Flush())
		all["b"].set(func(n *network) { n.rate = 10 << 20 })
		for i := range int64(100) {
			write(t, v, i, uint64(i)+1)
			flush := s.Flush
			if i%3 == 0 {
				check(t, v.WriteAt(stamped(uint64(i)+1000), i*chunk, true))
				flush = s.Flushed
			}
			check(t, flush())
			end, _ := v.Pointers()
			if p, _ := b.v.Pointers(); p != end {
				t.Fatalf("flush %d has returned, and the mirror stands at %d of %d", i, p, end)
			}
		}
		sameContent(t, v, b.v)
		if st := s.Status()[0]; st.Flush != cawrm.FlushOK || st.FlushWaiting != 0 {
			t.Errorf("%+v", st)
		}
		check(t, s.Set("b", "mode=async"))
		all["b"].set(func(n *network) { n.stalled = true })
		write(t, v, 1, 99)
		check(t, s.Flush())
		if m.Status().LagRecords == 0 {
			t.Error("the mirror has what a stalled line cannot have carried")
		}
	})
}

// TestFlushBlocks: with on-timeout=block a flush waits as long as the link is down, status says so, and it returns when the mirror
// has it; reads and writes go on.
func TestFlushBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		b := all.site(t, "b")
		v := newSource(t, 64)
		s := all.source(t, v)
		check(t, s.Add("b", "cawrm://b/vm", "mode=flush", "timeout=5s"))
		check(t, s.Flush())
		all["b"].set(func(n *network) { n.refused = true })
		all["b"].cut()
		write(t, v, 1, 1)
		var returned atomic.Bool
		done := make(chan error, 1)
		go func() { err := s.Flush(); returned.Store(true); done <- err }()
		time.Sleep(4 * time.Second)
		if st := s.Status()[0]; st.Flush != cawrm.FlushOK || st.FlushWaiting != 1 {
			t.Errorf("within the timeout: %+v", st)
		}
		time.Sleep(time.Hour)
		if st := s.Status()[0]; returned.Load() || st.Flush != cawrm.FlushBlocked || time.Since(st.FlushSince) < time.Hour {
			t.Errorf("the link is down: returned %v, %+v", returned.Load(), st)
		}
		write(t, v, 2, 2)
		all["b"].set(func(n *network) { n.refused = false })
		check(t, <-done)
		check(t, s.Flush())
		sameContent(t, v, b.v)
		if st := s.Status()[0]; st.Flush != cawrm.FlushOK {
			t.Errorf("the link is up again: %+v", st)
		}
	})
}

// TestFlushDegrades: with on-timeout=degrade the flush that has waited for so long returns, none waits after it, and all wait
// again once the mirror has caught up; both are events.
func TestFlushDegrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		b := all.site(t, "b")
		v := newSource(t, 64)
		var heard events
		s, err := cawrm.NewSource(v, cawrm.MirrorConfig{Dial: all.dial, OnEvent: heard.add}, 0)
		check(t, err)
		defer s.Close()
		check(t, s.Add("b", "cawrm://b/vm", "mode=flush", "timeout=5s", "on-timeout=degrade"))
		check(t, s.Flush())
		all["b"].set(func(n *network) { n.refused = true })
		all["b"].cut()
		for i, want := range []time.Duration{5 * time.Second, 0, 0} {
			write(t, v, 1, uint64(i)+1)
			began := time.Now()
			check(t, s.Flush())
			if took := time.Since(began).Round(time.Second); took != want {
				t.Errorf("flush %d took %v, want %v", i, took, want)
			}
		}
		if st := s.Status()[0]; st.Flush != cawrm.FlushDegraded {
			t.Errorf("degraded: %+v", st)
		}
		all["b"].set(func(n *network) { n.refused = false })
		eventually(t, "restored", func() bool { return s.Status()[0].Flush == cawrm.FlushOK }, func() any { return s.Status() })
		write(t, v, 2, 7)
		check(t, s.Flush())
		sameContent(t, v, b.v)
		want := []cawrm.EventKind{cawrm.EventUp, cawrm.EventDown, cawrm.EventDegraded, cawrm.EventUp, cawrm.EventRestored}
		if got := heard.kinds(); !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

// events collects what was told.
type events struct {
	mu  sync.Mutex
	all []cawrm.Event
}

func (e *events) add(x cawrm.Event) { e.mu.Lock(); defer e.mu.Unlock(); e.all = append(e.all, x) }

func (e *events) kinds() (all []cawrm.EventKind) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		all = append(all, x.Kind)
	}
	return all
}

// TestFlushQuorum enumerates which of three mirrors are there, and whether a flush may return.
func TestFlushQuorum(t *testing.T) {
	for _, tt := range []struct {
		name           string
		quorum         string
		up             int // of three
		degrade, pause bool
		returns        bool
	}{
		{"all of three are there", "0", 3, false, false, true},
		{"all, one is missing", "0", 2, false, false, false},
		{"all, one is missing and paused", "0", 2, false, true, true},
		{"all, one is missing and degrades", "0", 2, true, false, true},
		{"two of three, one is missing", "2", 2, false, false, true},
		{"two of three, two are missing", "2", 1, false, false, false},
		{"two of three, two are missing and paused", "2", 1, false, true, true},
		{"one of three", "1", 1, false, false, true},
		{"one of three, none is there", "1", 0, false, false, false},
		{"more than there are", "9", 3, false, false, true},
		{"none is there, all degrade", "0", 0, true, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := members{}
				v := newSource(t, 64)
				for _, name := range []string{"a", "b", "c"} {
					all.site(t, name)
				}
				s := all.source(t, v)
				for i, name := range []string{"a", "b", "c"} {
					policy := map[bool]string{true: "on-timeout=degrade", false: "on-timeout=block"}[tt.degrade]
					check(t, s.Add(name, "cawrm://"+name+"/vm", "mode=flush", "quorum="+tt.quorum, policy))
					if i >= tt.up {
						all[name].set(func(n *network) { n.refused = true })
						all[name].cut()
						if tt.pause {
							check(t, s.Set(name, "paused=true"))
						}
					}
				}
				write(t, v, 1, 1)
				done := make(chan error, 1)
				go func() { done <- s.Flush() }()
				time.Sleep(time.Minute)
				select {
				case err := <-done:
					if check(t, err); !tt.returns {
						t.Error("it returned")
					}
				default:
					if tt.returns {
						t.Errorf("it waits: %+v", s.Status())
					}
					s.EndFlushes()
					if err := <-done; !errors.Is(err, syscall.ESHUTDOWN) {
						t.Errorf("ended with %v", err)
					}
				}
			})
		})
	}
}

// TestFlushSurvivesTheSource: a stamped workload of several writers in flush mode; the source dies at a random moment, and of
// what was acknowledged nothing is missing at the mirror.
func TestFlushSurvivesTheSource(t *testing.T) {
	seed := seedOf(t)
	for round := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			rng := newRand(seed + round)
			all := members{}
			b := all.site(t, "b")
			v := newSource(t, 64)
			s := all.source(t, v)
			check(t, s.Add("b", "cawrm://b/vm", "mode=flush"))
			all["b"].set(func(n *network) { n.rate = 1 << (16 + rng.IntN(10)) })
			const writers = 4
			var acked [writers]atomic.Uint64
			var stop atomic.Bool
			var wg sync.WaitGroup
			for w := range writers {
				fua := w%2 == 0
				wg.Go(func() {
					for stamp := uint64(1); !stop.Load(); stamp++ {
						err := v.WriteAt(stamped(stamp), int64(w)*chunk, fua)
						if err == nil && fua {
							err = s.Flushed()
						} else if err == nil {
							err = s.Flush()
						}
						if err != nil {
							return
						}
						acked[w].Store(stamp)
						time.Sleep(time.Millisecond)
					}
				})
			}
			time.Sleep(time.Duration(rng.IntN(int(2 * time.Second))))
			all["b"].set(func(n *network) { n.refused = true }) // the source is gone: what is on the wire is lost
			all["b"].cut()
			var want [writers]uint64
			for w := range writers {
				want[w] = acked[w].Load()
			}
			stop.Store(true)
			s.EndFlushes()
			wg.Wait()
			p := make([]byte, writers*chunk)
			if b.v.Info().HasIdentity {
				check(t, b.v.ReadAt(p, 0))
			}
			for w := range writers {
				if got := binary.LittleEndian.Uint64(p[w*chunk:]); got < want[w] {
					t.Errorf("writer %d was told that %d is flushed, the mirror has %d", w, want[w], got)
				}
			}
		})
	}
}

// TestObjective: a mirror that is behind for longer than the objective is an event, once, and so is the end of that.
func TestObjective(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		all.site(t, "b")
		v := newSource(t, 64)
		var heard events
		s, err := cawrm.NewSource(v, cawrm.MirrorConfig{Dial: all.dial, OnEvent: heard.add}, 30*time.Second)
		check(t, err)
		defer s.Close()
		check(t, s.Add("b", "cawrm://b/vm"))
		synced(t, v, mirrorOf(t, s, "b"))
		all["b"].set(func(n *network) { n.refused = true })
		all["b"].cut()
		write(t, v, 1, 1)
		time.Sleep(29 * time.Second)
		if got := heard.kinds(); slices.Contains(got, cawrm.EventLag) {
			t.Errorf("too early: %v", got)
		}
		time.Sleep(10 * time.Minute)
		all["b"].set(func(n *network) { n.refused = false })
		synced(t, v, mirrorOf(t, s, "b"))
		time.Sleep(2 * time.Second)
		want := []cawrm.EventKind{cawrm.EventUp, cawrm.EventDown, cawrm.EventLag, cawrm.EventUp, cawrm.EventLagOver}
		if got := heard.kinds(); !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
	})
}

package cawrm_test

import (
	"testing"
	"testing/synctest"
	"time"

	"cawrm/cawrm"
)

// TestLimit ensures that a link is not used beyond its limit and nearly up to it, that a burst goes at once after a pause, and that a
// change is obeyed at once, also in the middle of a frame. The clock is the bubble's, so the figures are exact.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 8192)
		newSite(t, n, newMirror(t))
		cfg := mirrorConfig(n)
		cfg.URL += "?compress=off&limit=100K&burst=64K"
		m := startMirror(t, v, cfg)
		time.Sleep(time.Minute)
		next := int64(0)
		writeSome := func(chunks int64) {
			t.Helper()
			for range chunks {
				next++
				write(t, v, next, uint64(next))
			}
			check(t, v.Flush())
		}
		within := func(what string, d time.Duration, least, most, chunks int64) {
			t.Helper()
			before := n.carried() // and not behind the writes, which can be on the wire when they return
			writeSome(chunks)
			time.Sleep(d)
			if got := n.carried() - before; got < least || got > most {
				t.Errorf("%s: %d bytes in %v, want %d to %d", what, got, d, least, most)
			}
		}
		within("a burst after a pause", 200*time.Millisecond, 64<<10, 90<<10, 16)
		time.Sleep(time.Minute)

		within("the burst and the limit", 10*time.Second, 10*95<<10, 10*100<<10+70<<10, 4000) // 16 MB, one frame after the other
		within("the limit", 20*time.Second, 20*95<<10, 20*102<<10, 0)
		s := m.Settings()
		check(t, s.Set("limit", "1M"))
		m.Change(s)
		time.Sleep(time.Second)
		within("a higher limit", 2*time.Second, 2*950<<10, 2*1030<<10+64<<10, 0)
		check(t, s.Set("limit", "10K"))
		m.Change(s)
		time.Sleep(time.Second)
		within("a lower limit", 10*time.Second, 10*9<<10, 10*11<<10, 0)
		if st := m.Status(); st.Limit != 10<<10 || st.State != cawrm.StateSyncing || n.dialled() != 1 {
			t.Errorf("%d connections, status %+v", n.dialled(), st)
		}
		check(t, s.Set("limit", "off"))
		m.Change(s)
		synced(t, v, m)
	})
}

// TestLimitByTimeOfDay ensures that a window of the schedule begins and ends while a link is busy.
func TestLimitByTimeOfDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 8192)
		newSite(t, n, newMirror(t))
		now := time.Now() // midnight, in some zone
		at := func(d time.Duration) string { return now.Add(d).Format("15:04") }
		cfg := mirrorConfig(n)
		cfg.URL += "?compress=off&limit=20K&schedule=" + at(2*time.Minute) + "-" + at(3*time.Minute) + "=100K"
		m := startMirror(t, v, cfg)
		for i := range int64(8000) {
			write(t, v, i, uint64(i))
		}
		check(t, v.Flush())
		for minute, perSecond := range []int64{20 << 10, 20 << 10, 100 << 10, 20 << 10} {
			before := n.carried()
			time.Sleep(time.Until(now.Add(time.Duration(minute+1) * time.Minute)))
			if got := n.carried() - before; got < 57*perSecond || got > 64*perSecond+5<<10 {
				t.Errorf("minute %d: %d bytes, want %d a second", minute, got, perSecond)
			}
		}
		if st := m.Status(); st.State != cawrm.StateSyncing || n.dialled() != 1 {
			t.Errorf("%d connections, status %+v", n.dialled(), st)
		}
	})
}

package cawrm_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// TestFollowerSettings ensures that the mirror which an old primary has become by itself can be capped and paused where it is fed, at
// once; that what needs an address is refused; and that the settings are there when it comes again after a restart of the source.
func TestFollowerSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 500, "a", "b")
		a, b := f.members["a"].open("b"), f.members["b"].open()
		for i := range int64(50) {
			write(t, a.v, i, 1+uint64(i))
		}
		b.reaches(a)
		a.close()
		check(t, b.site.peer.Promote("vm", false))
		write(t, b.v, 60, 7)
		a.open("b")
		a.becomes(aodi.RoleMirror)
		a.reaches(b)
		follower := func() cawrm.Status {
			t.Helper()
			all := b.site.peer.Followers("vm")
			if len(all) != 1 {
				t.Fatalf("%d followers", len(all))
			}
			return all[0].Status()
		}
		id := follower().ID

		for _, wrong := range [][]string{{"mode=flush"}, {"quorum=1"}, {"url=cawrm://a/vm"}, {"limit=fast"}, {"limit=1M", "colour=red"}} {
			if err := b.site.peer.SetFollower("vm", id, wrong...); err == nil || follower().Settings.Limit != 0 {
				t.Errorf("%v: %v, and then %v", wrong, err, follower().Settings)
			}
		}
		if err := b.site.peer.SetFollower("vm", "b", "limit=1M"); err == nil || !strings.Contains(err.Error(), "b") {
			t.Errorf("no such follower: %v", err)
		}

		check(t, b.site.peer.SetFollower("vm", id, "paused=true"))
		eventually(t, "it is paused", func() bool { return follower().State == cawrm.StatePaused }, func() any { return follower() })
		write(t, b.v, 61, 8)
		check(t, b.v.Flush())
		time.Sleep(time.Minute)
		if st := follower(); st.State != cawrm.StatePaused || st.LagRecords != 1 {
			t.Errorf("a minute later: %+v", st)
		}
		check(t, b.site.peer.SetFollower("vm", id, "paused=false", "compress=off", "limit=20K"))
		a.reaches(b)
		for i := range int64(50) { // 200 KiB
			write(t, b.v, 100+i, 900+uint64(i))
		}
		began := time.Now()
		a.reaches(b)
		if took := time.Since(began); took < 9*time.Second { // in the bubble's time
			t.Errorf("200 KiB at 20 KiB a second came in %v", took)
		}

		b.close()
		b.open()
		write(t, b.v, 62, 9)
		a.reaches(b)
		if st := follower(); st.ID != id || st.Settings.Limit != 20<<10 || st.Settings.Compress != cawrm.CompressOff {
			t.Errorf("after a restart %s has %v", st.ID, st.Settings)
		}
		a.close()
		b.close()
	})
}

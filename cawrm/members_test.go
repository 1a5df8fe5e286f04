package cawrm_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// members are sites, each behind a network of its own, for sources that feed several of them.
type members map[string]*network

func (m members) dial(ctx context.Context, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n := m[host]
	if n == nil {
		return nil, fmt.Errorf("no such host: %s", host)
	}
	return n.dial(ctx, addr)
}

// site adds a member with a mirror.
func (m members) site(t testing.TB, name string) *site {
	t.Helper()
	m[name] = newNetwork()
	return newSite(t, m[name], newMirror(t))
}

func (m members) source(t testing.TB, v *aodi.Volume) *cawrm.Source {
	t.Helper()
	s, err := cawrm.NewSource(v, cawrm.MirrorConfig{Dial: m.dial, Logger: (&logs{}).logger()}, 0)
	check(t, err)
	t.Cleanup(s.Close)
	return s
}

func mirrorOf(t testing.TB, s *cawrm.Source, id string) *cawrm.Mirror {
	t.Helper()
	m, err := s.Mirror(id)
	check(t, err)
	return m
}

// TestMirrorsComeAndGo: mirrors are added, paused, resumed and removed while the volume is written; what a paused one lacks
// comes when it is resumed, once; a paused one has no connection.
func TestMirrorsComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		a, b := all.site(t, "a"), all.site(t, "b")
		v := newSource(t, 256)
		for i := range int64(100) {
			write(t, v, i, uint64(i)+1)
		}
		s := all.source(t, v)
		check(t, s.Add("a", "cawrm://a/vm", "compress=off")) // its bytes are counted
		synced(t, v, mirrorOf(t, s, "a"))
		check(t, s.Add("b", "cawrm://b/vm", "paused=true"))
		time.Sleep(time.Minute)
		if st := mirrorOf(t, s, "b").Status(); st.State != cawrm.StatePaused || all["b"].dialled() > 0 || !st.Kept {
			t.Errorf("added paused: %+v, dialled %d times", st, all["b"].dialled())
		}
		check(t, s.Set("b", "paused=false"))
		synced(t, v, mirrorOf(t, s, "b"))
		sameContent(t, v, b.v)

		check(t, s.Set("a", "paused=true"))
		stateIs(t, mirrorOf(t, s, "a"), cawrm.StatePaused, "paused")
		before, dials := all["a"].carried(), all["a"].dialled()
		for i := range int64(50) {
			write(t, v, 100+i, uint64(i)+1000)
		}
		synced(t, v, mirrorOf(t, s, "b"))
		time.Sleep(time.Hour)
		if st := mirrorOf(t, s, "a").Status(); st.State != cawrm.StatePaused || st.LagRecords != 50 || st.LagSeconds < 3600 || all["a"].dialled() != dials {
			t.Errorf("paused: %+v", st)
		}
		check(t, s.Set("a", "paused=false"))
		synced(t, v, mirrorOf(t, s, "a"))
		sameContent(t, v, a.v)
		if n := all["a"].carried() - before; n < 50*chunk || n > 60*chunk {
			t.Errorf("%d bytes crossed the line for 50 chunks", n)
		}

		check(t, s.Remove("a"))
		write(t, v, 7, 7777)
		synced(t, v, mirrorOf(t, s, "b"))
		for _, m := range v.Mirrors() {
			if m.ID == "a" {
				t.Error("the volume remembers a mirror that was removed")
			}
		}
		if err := s.Set("a", "paused=true"); err == nil || !strings.Contains(err.Error(), "there are: b") {
			t.Errorf("a mirror that is not there is set: %v", err)
		}
	})
}

// TestMirrorsRefused: what cannot be is said, and changes nothing.
func TestMirrorsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		all.site(t, "a")
		v := newSource(t, 64)
		s := all.source(t, v)
		check(t, s.Add("a", "cawrm://a/vm", "mode=flush"))
		for what, err := range map[string]error{
			"there is a mirror a already":   s.Add("a", "cawrm://b/vm"),
			"is mirror a already":           s.Add("b", "cawrm://a:10810/vm"),
			"want cawrm://":                 s.Add("b", "http://a/vm"),
			"has no setting \"colour\"":     s.Add("b", "cawrm://b/vm", "colour=red"),
			"none of async flush":           s.Set("a", "timeout=3s", "mode=sometimes"),
			"want KEY=VALUE":                s.Set("a", "mode"),
			"want cawrm://host:port/NAME":   s.Set("a", "url=b"),
			"there is no mirror c; there a": s.Remove("c"),
		} {
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("want %q: %v", what, err)
			}
		}
		if st := s.Status(); len(st) != 1 || st[0].Settings.String() != "mode=flush" {
			t.Errorf("what was refused has changed something: %+v", st)
		}
	})
}

// TestMirrorsAreKept: what was added and set is there after a restart; what was only given is not, but its settings are when it
// is given again; a URL that is given takes the place of one that is kept.
func TestMirrorsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		for _, name := range []string{"a", "b", "c"} {
			all.site(t, name)
		}
		d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
		v := openVolume(t, d, aodi.Options{})
		s := all.source(t, v)
		check(t, s.Add("a", "cawrm://a/vm", "mode=flush", "quorum=2"))
		check(t, s.Set("a", "timeout=3s", "on-timeout=degrade"))
		check(t, s.AddGiven("b", "cawrm://b/vm"))
		check(t, s.Set("b", "paused=true"))
		synced(t, v, mirrorOf(t, s, "a"))

		// The machine dies: what was answered is durable.
		copied := d.Crash(newRand(seedOf(t)))
		t.Cleanup(copied.Free)
		v = openVolume(t, copied, aodi.Options{})
		s = all.source(t, v)
		if st := s.Status(); len(st) != 1 || st[0].ID != "a" || !st[0].Kept || st[0].Settings.String() != "mode=flush quorum=2 timeout=3s on-timeout=degrade" {
			t.Fatalf("after a restart: %+v", st)
		}
		check(t, s.AddGiven("b", "cawrm://b/vm"))
		if st := mirrorOf(t, s, "b").Status(); st.State != cawrm.StatePaused || st.Kept {
			t.Errorf("given again: %+v", st)
		}
		check(t, s.AddGiven("a", "cawrm://c/vm"))
		if st := mirrorOf(t, s, "a").Status(); st.URL != "cawrm://c:10810/vm" || st.Settings.Quorum != 2 || !st.Kept {
			t.Errorf("given with another address: %+v", st)
		}
		check(t, s.Set("a", "url=cawrm://a/vm?mode=async"))
		if st := mirrorOf(t, s, "a").Status(); st.URL != "cawrm://a:10810/vm" || st.Settings.Quorum != 0 {
			t.Errorf("moved: %+v", st)
		}
	})
}

// TestReattached: in a tree of source, a and b, and of c and d below a, each member moves below another one, and gets only
// what it lacks: positions are the same along a lineage, and the mirror says where it stands.
func TestReattached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		sites, sources := map[string]*site{}, map[string]*cawrm.Source{}
		for _, name := range []string{"a", "b", "c", "d"} {
			sites[name] = all.site(t, name)
			sources[name] = all.source(t, sites[name].v)
		}
		v := newSource(t, 1024)
		sources["s"] = all.source(t, v)
		attach := func(from, to string) {
			t.Helper()
			check(t, sources[from].Add(to, "cawrm://"+to+"/vm", "compress=off"))
		}
		drained := func() {
			t.Helper()
			check(t, v.Flush())
			end, _ := v.Pointers()
			for name, s := range sites {
				eventually(t, name+" has all", func() bool { p, _ := s.v.Pointers(); return p == end }, func() any { return s.logs.String() })
			}
		}
		attach("s", "a")
		attach("s", "b")
		attach("a", "c")
		attach("a", "d")
		for i := range int64(900) {
			write(t, v, i, uint64(i)+1)
		}
		drained()
		for step, move := range []struct{ child, from, to string }{{"c", "a", "b"}, {"d", "a", "c"}, {"c", "b", "s"}, {"d", "c", "a"}, {"b", "s", "d"}} {
			check(t, sources[move.from].Remove(move.child))
			for i := range int64(20) { // while it belongs to nobody
				write(t, v, i*7, uint64(step)<<32|uint64(i))
			}
			check(t, v.Flush())
			before := all[move.child].carried()
			attach(move.to, move.child)
			drained()
			if n := all[move.child].carried() - before; n < 19*chunk || n > 30*chunk {
				t.Errorf("%s moves from %s to %s: %d bytes for 20 chunks that it lacks, one of them zeroes", move.child, move.from, move.to, n)
			}
			sameContent(t, v, sites[move.child].v)
		}
	})
}

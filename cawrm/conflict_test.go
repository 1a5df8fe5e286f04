package cawrm_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// TestConflictLasts ensures that a primary which has met another writable head goes on saying so while its own mirrors come and
// go, and refuses a plain demote all that time; and stops when that head has become its mirror.
func TestConflictLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 100, "a", "b", "c")
		b, c := f.members["b"].open(), f.members["c"].open()
		a := f.members["a"].open("b", "c")
		write(t, a.v, 1, 1)
		b.reaches(a)
		c.reaches(a)
		check(t, b.site.peer.Promote("vm", true))
		write(t, a.v, 2, 2)
		write(t, b.v, 2, 3)
		eventually(t, "the other head is met", func() bool { return a.site.peer.Conflict("vm") != "" }, func() any { return a.site.logs.String() })
		c.net.cut()
		write(t, a.v, 3, 3)
		c.reaches(a)
		if a.site.peer.Conflict("vm") == "" {
			t.Error("forgotten, since another mirror has connected")
		}
		if err := a.site.peer.Demote("vm", false); !errors.Is(err, cawrm.ErrTwoHeads) {
			t.Errorf("plain demote: %v", err)
		}
		check(t, b.site.peer.Demote("vm", true))
		b.reaches(a)
		for _, m := range []*member{a, b} {
			eventually(t, m.name+" has forgotten the other head", func() bool { return m.site.peer.Conflict("vm") == "" }, func() any { return m.site.peer.Conflict("vm") })
		}
		c.close()
		a.close()
		b.close()
	})
}

// TestNewTermWaitsForSwitchover ensures that a mirror which leaves its branch, and for which the primary has to enter a new term, does
// not disturb a switchover that is under way: writes stay held, and the role is what the switchover makes of it.
func TestNewTermWaitsForSwitchover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 100, "a", "b", "c")
		b, c := f.members["b"].open(), f.members["c"].open()
		a := f.members["a"].open("b", "c")
		write(t, a.v, 1, 1)
		b.reaches(a)
		c.reaches(a)
		b.net.set(func(n *network) { n.refused = true })
		b.net.cut()
		check(t, b.site.peer.Promote("vm", true))
		write(t, b.v, 2, 2)
		check(t, b.site.peer.Demote("vm", true)) // its positions are beyond those of a
		c.net.set(func(n *network) { n.stalled = true })
		write(t, a.v, 3, 3)
		handed, written := make(chan error, 1), make(chan error, 1)
		go func() { handed <- a.site.peer.Switchover(t.Context(), "vm", a.links[1], 5*time.Second) }()
		time.Sleep(100 * time.Millisecond)
		go func() { written <- a.v.WriteAt(stamped(4), 4*chunk, false) }()
		end := a.end()
		b.net.set(func(n *network) { n.refused = false })
		time.Sleep(4 * time.Second)
		if a.end() != end {
			t.Errorf("a has gone on from %d to %d while it hands over", end, a.end())
		}
		if err := <-handed; err == nil || a.v.Role() != aodi.RolePrimary {
			t.Errorf("switchover to a mirror that does not answer: %v, and it is a %s", err, a.v.Role())
		}
		check(t, <-written)
		c.net.set(func(n *network) { n.stalled = false })
		b.reaches(a)
		c.reaches(a)
		a.close()
		b.close()
		c.close()
	})
}

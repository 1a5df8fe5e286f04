package cawrm_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// TestFamilyOfThree ensures that three members which take turns as the primary, by switchovers and by failovers after power
// losses under load, and come back in any order, all end with what the last primary holds; that a member which cannot
// follow by itself does so when it is told to by hand; and that every container passes the checker.
func TestFamilyOfThree(t *testing.T) {
	seed := seedOf(t)
	runs := 4
	if testing.Short() {
		runs = 2
	}
	for i := range runs {
		synctest.Test(t, func(t *testing.T) { familyRun(t, newRand(seed+uint64(i))) })
	}
}

type turns struct {
	*family
	t       *testing.T
	rng     *rand.Rand
	names   []string
	primary *member
	stamp   uint64
	up      map[string]bool
}

func familyRun(t *testing.T, rng *rand.Rand) {
	r := &turns{family: newFamily(t, 400, "a", "b", "c"), t: t, rng: rng, names: []string{"a", "b", "c"}, up: map[string]bool{}}
	for _, name := range []string{"b", "c", "a"} {
		r.start(name)
	}
	r.primary = r.members["a"]
	r.write(200)
	r.settle()
	for range 8 {
		r.write(rng.IntN(60))
		switch rng.IntN(3) {
		case 0:
			r.switchover()
		case 1:
			r.failover()
			r.write(rng.IntN(60))
			r.settle()
		default: // a mirror is away for a while
			m := r.other()
			m.crash(rng.Uint64())
			r.up[m.name] = false
			r.write(rng.IntN(60))
			r.settle()
		}
	}
	r.settle()
	for _, name := range r.names {
		r.members[name].close()
	}
}

// start opens a member, which dials all others.
func (r *turns) start(name string) {
	var to []string
	for _, other := range r.names {
		if other != name {
			to = append(to, other)
		}
	}
	r.members[name].open(to...)
	r.up[name] = true
}

func (r *turns) other() *member {
	for {
		if m := r.members[r.names[r.rng.IntN(3)]]; m != r.primary {
			return m
		}
	}
}

func (r *turns) write(n int) {
	for range n {
		r.stamp++
		lba := r.rng.Int64N(400)
		if r.rng.IntN(10) == 0 {
			check(r.t, r.primary.v.Trim(lba*chunk, min(5, 400-lba)*chunk, r.rng.IntN(2) == 0))
			continue
		}
		write(r.t, r.primary.v, lba, r.stamp)
		if r.rng.IntN(8) == 0 {
			time.Sleep(time.Duration(r.rng.IntN(20)) * time.Millisecond)
		}
	}
}

// failover loses the primary, and promotes one of the others, not always the one that is ahead.
func (r *turns) failover() {
	old := r.primary
	old.crash(r.rng.Uint64())
	r.up[old.name] = false
	next := r.other()
	for next == old {
		next = r.other()
	}
	check(r.t, next.site.peer.Promote("vm", true))
	r.primary = next
}

func (r *turns) switchover() {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for _, m := range append(r.primary.links, r.primary.site.peer.Followers("vm")...) {
		if s := m.Status(); s.State != cawrm.StateSynced {
			continue
		}
		check(r.t, r.primary.site.peer.Switchover(ctx, "vm", m, 10*time.Second))
		for _, name := range r.names {
			if x := r.members[name]; x.v.Role() == aodi.RolePrimary {
				if r.primary = x; x == nil {
					r.t.Fatal("nobody is the primary")
				}
			}
		}
		r.settle()
		return
	}
}

// settle brings everybody back, and waits until all have what the primary has. Who cannot follow by itself is told to.
func (r *turns) settle() {
	r.t.Helper()
	for _, name := range r.names {
		if !r.up[name] {
			r.start(name)
		}
	}
	check(r.t, r.primary.v.Flush())
	same := func() bool {
		for _, name := range r.names {
			if r.members[name].end() != r.primary.end() {
				return false
			}
		}
		return true
	}
	for wait := time.Duration(0); !same(); wait += 100 * time.Millisecond {
		if wait == 40*time.Second {
			for _, name := range r.names {
				if m := r.members[name]; m != r.primary && m.end() != r.primary.end() {
					check(r.t, m.site.peer.Demote("vm", true))
				}
			}
		}
		if wait > 3*time.Minute {
			for _, name := range r.names {
				r.t.Logf("%s: %s at %d\n%s", name, r.members[name].v.Role(), r.members[name].end(), r.members[name].site.logs)
			}
			r.t.Fatal("not all have what the primary has")
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, name := range r.names {
		if m := r.members[name]; m != r.primary {
			sameContent(r.t, r.primary.v, m.v)
			if m.v.Role() != aodi.RoleMirror {
				r.t.Fatalf("%s is a primary too", name)
			}
		}
	}
}

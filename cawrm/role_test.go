package cawrm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm"
	recovery "cawrm/recover"
)

// family is a volume's members, each of which can be its primary, and dials those that it was told.
type family struct {
	t       testing.TB
	members map[string]*member
}

type member struct {
	f     *family
	name  string
	d     *disk.Memory
	net   *network // where it is dialled
	to    []string
	v     *aodi.Volume
	site  *site
	links []*cawrm.Mirror
	cut   atomic.Bool // what it dials is not there
}

func newFamily(t testing.TB, chunks int64, names ...string) *family {
	f := &family{t: t, members: map[string]*member{}}
	for i, name := range names {
		opt := aodi.CreateOptions{Mirror: i > 0}
		if i == 0 {
			opt.Size = chunks * chunk
		}
		f.members[name] = &member{f: f, name: name, d: newDisk(t, opt), net: newNetwork()}
	}
	return f
}

// open starts a member's process, which dials those that are named.
func (m *member) open(to ...string) *member {
	t := m.f.t
	t.Helper()
	v, err := aodi.OpenOn(m.d, aodi.Options{})
	check(t, err)
	m.v, m.to = v, to
	m.site = newSite(t, m.net, v)
	t.Cleanup(func() { // of a test that failed
		for _, l := range m.links {
			l.Close()
		}
		_ = v.Close()
	})
	for _, name := range to {
		other := m.f.members[name]
		link, err := cawrm.Start(v, cawrm.MirrorConfig{ID: name, URL: "cawrm://" + name + "/vm", Peer: m.site.peer, Name: "vm", Logger: m.site.logs.logger(),
			Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				if m.cut.Load() {
					return nil, errors.New("cut")
				}
				return other.net.dial(ctx, addr)
			}})
		check(t, err)
		m.links = append(m.links, link)
	}
	return m
}

// close ends it in order, crash as a power loss does.
func (m *member) close() {
	for _, l := range m.links {
		l.Close()
	}
	m.links = nil
	m.site.close(m.f.t)
	check(m.f.t, m.v.Close())
	m.checked()
}

func (m *member) crash(seed uint64) {
	image := m.d.Crash(newRand(seed))
	for _, l := range m.links {
		l.Close()
	}
	m.links = nil
	m.site.close(m.f.t)
	_ = m.v.Close()
	m.d = image
	m.f.t.Cleanup(image.Free)
	m.checked()
}

func (m *member) checked() {
	m.f.t.Helper()
	r, err := recovery.Check(m.d, recovery.CheckOptions{})
	check(m.f.t, err)
	if !r.OK() {
		m.f.t.Fatalf("%s: %v", m.name, r.Violations)
	}
}

func (m *member) end() aodi.Position { p, _ := m.v.Pointers(); return p }

// reaches waits until a member shows what another has.
func (m *member) reaches(of *member) {
	t := m.f.t
	t.Helper()
	check(t, of.v.Flush())
	eventually(t, m.name+" has what "+of.name+" has", func() bool { return m.end() == of.end() }, func() any {
		return []any{m.name, m.end(), m.site.peer.Status(), of.name, of.end(), of.site.peer.Status(), of.site.logs.String(), m.site.logs.String()}
	})
	sameContent(t, of.v, m.v)
}

func (m *member) becomes(role aodi.Role) {
	m.f.t.Helper()
	eventually(m.f.t, m.name+" becomes a "+string(role), func() bool { return m.v.Role() == role },
		func() any { return m.site.logs.String() })
}

// TestOldPrimaryComesBack ensures that a primary which was away while its mirror was promoted becomes the mirror of that one,
// over the connection that it makes itself; that what it had not sent is kept as a snapshot; and that of the content only
// what differs goes over the wire.
func TestOldPrimaryComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 2000, "a", "b")
		a, b := f.members["a"].open("b"), f.members["b"].open()
		for i := range int64(1500) {
			write(t, a.v, i, 1+uint64(i))
		}
		check(t, a.v.Trim(100*chunk, 10*chunk, false))
		b.reaches(a)
		a.cut.Store(true)
		b.net.set(func(n *network) { n.refused = true })
		b.net.cut()
		for i := range int64(40) { // the tail: over old content, over holes, and discards
			write(t, a.v, 90+2*i, 10000+uint64(i))
		}
		check(t, a.v.Trim(700*chunk, 30*chunk, true))
		before := content(t, a.v)
		a.close()
		check(t, b.site.peer.Promote("vm", false))
		for i := range int64(50) {
			write(t, b.v, 1000+i, 20000+uint64(i))
		}
		check(t, b.v.Trim(200*chunk, 5*chunk, false))
		b.net.set(func(n *network) { n.refused = false })
		passed := b.net.delivered()
		a.cut.Store(false)
		a.open("b")
		a.becomes(aodi.RoleMirror)
		a.reaches(b)
		// 40 chunks of which some are holes at b, 30 that a has discarded, 50 that b has written
		if got := b.net.delivered() - passed; got > (40+30+50)*chunk*11/10 {
			t.Errorf("%d bytes went over the wire for 120 chunks", got)
		}
		snaps := a.v.Snapshots()
		if len(snaps) != 1 || !strings.HasPrefix(snaps[0].Name, "unsent-") {
			t.Fatalf("the tail is kept as %v", snaps)
		}
		view, err := a.v.OpenView(snaps[0].Name)
		check(t, err)
		kept := make([]byte, len(before))
		check(t, view.ReadAt(kept, 0))
		view.Close()
		if !bytes.Equal(kept, before) {
			t.Error("the snapshot is not what the old primary held")
		}
		if st := a.site.peer.Status()[0]; st.Tail != snaps[0].Name {
			t.Errorf("the status does not name the snapshot: %+v", st)
		}
		write(t, b.v, 3, 77)
		a.reaches(b)
		if st := b.site.peer.Followers("vm"); len(st) != 1 || st[0].Status().State != cawrm.StateSynced || st[0].Status().LagRecords != 0 {
			t.Errorf("the new primary says of its mirror: %+v", st)
		}
		a.crash(1)
		write(t, b.v, 4, 78)
		a.open("b")
		a.reaches(b)
		if n := len(a.v.Snapshots()); n != 1 {
			t.Errorf("%d snapshots after it came back again", n)
		}
		a.close()
		b.close()
	})
}

// TestTwoHeads ensures that two primaries of one volume refuse each other on both sides, naming both heads and where they
// part; that neither gives in by itself or by a plain demote; and that whichever is chosen by hand, the other becomes its
// mirror and keeps its branch.
func TestTwoHeads(t *testing.T) {
	for _, loser := range []string{"a", "b"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFamily(t, 300, "a", "b")
			a, b := f.members["a"].open("b"), f.members["b"].open("a")
			for i := range int64(100) {
				write(t, a.v, i, 1+uint64(i))
			}
			b.reaches(a)
			fork := a.end()
			a.cut.Store(true)
			b.cut.Store(true)
			b.net.cut()
			check(t, b.site.peer.Promote("vm", false))
			for i := range int64(20) {
				write(t, a.v, 3*i, 1000+uint64(i))
				write(t, b.v, 5*i, 2000+uint64(i))
			}
			check(t, errors.Join(a.v.Flush(), b.v.Flush()))
			heads := map[string][]byte{"a": content(t, a.v), "b": content(t, b.v)}
			a.cut.Store(false)
			b.cut.Store(false)
			for _, m := range []*member{a, b} {
				eventually(t, "the other head is met", func() bool { return m.site.peer.Conflict("vm") != "" }, func() any { return m.site.logs.String() })
				text := m.site.peer.Conflict("vm")
				for _, l := range append(a.v.Info().Lineage, b.v.Info().Lineage...) {
					if !strings.Contains(text, l.ID.String()) {
						t.Errorf("%s: lineage %v is not named: %s", m.name, l.ID, text)
					}
				}
				if want := "agree up to position " + itoa(fork); !strings.Contains(text, want) {
					t.Errorf("%s: not %q: %s", m.name, want, text)
				}
				if err := m.site.peer.Demote("vm", false); !errors.Is(err, cawrm.ErrTwoHeads) || m.v.Role() != aodi.RolePrimary {
					t.Errorf("%s: plain demote: %v, and it is a %s", m.name, err, m.v.Role())
				}
			}
			lost, kept := f.members[loser], a
			if loser == "a" {
				kept = b
			}
			check(t, lost.site.peer.Demote("vm", true))
			lost.reaches(kept)
			if got := content(t, kept.v); !bytes.Equal(got, heads[kept.name]) {
				t.Error("the head that was chosen has changed")
			}
			snaps := lost.v.Snapshots()
			if len(snaps) != 1 {
				t.Fatalf("snapshots of the loser: %v", snaps)
			}
			view, err := lost.v.OpenView(snaps[0].Name)
			check(t, err)
			branch := make([]byte, lost.v.Size())
			check(t, view.ReadAt(branch, 0))
			view.Close()
			if !bytes.Equal(branch, heads[loser]) {
				t.Error("the loser's branch is not what its snapshot holds")
			}
			for _, m := range []*member{a, b} {
				eventually(t, m.name+" has forgotten the other head", func() bool { return m.site.peer.Conflict("vm") == "" }, func() any { return m.site.peer.Conflict("vm") })
			}
			write(t, kept.v, 7, 3000)
			lost.reaches(kept)
			a.close()
			b.close()
		})
	}
}

// TestPromoteAsksForTheSource ensures that a mirror is not promoted while its source is heard, unless that is forced, and is
// as soon as the source has missed a beat, though the connection still stands.
func TestPromoteAsksForTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 100, "a", "b")
		a, b := f.members["a"].open("b"), f.members["b"].open()
		if err := b.site.peer.Promote("vm", true); !errors.Is(err, aodi.ErrNothingYet) {
			t.Errorf("an empty mirror: %v", err)
		}
		write(t, a.v, 1, 1)
		b.reaches(a)
		if err := b.site.peer.Promote("vm", false); !errors.Is(err, cawrm.ErrSourceAlive) || b.v.Role() != aodi.RoleMirror {
			t.Errorf("with a source that is alive: %v, and it is a %s", err, b.v.Role())
		}
		write(t, a.v, 2, 2)
		b.reaches(a)
		b.net.set(func(n *network) { n.stalled = true })
		check(t, b.site.peer.Promote("vm", false))
		write(t, b.v, 2, 3)
		check(t, b.site.peer.Promote("vm", false)) // again
		b.net.set(func(n *network) { n.stalled = false })
		a.close()
		b.close()
	})
}

// TestSwitchover ensures that a planned change of roles, to and fro under load, loses no write, that clients are held and not
// refused until the role has changed, and that the old primary follows the new one.
func TestSwitchover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 200, "a", "b")
		a, b := f.members["a"].open("b"), f.members["b"].open("a")
		primary, mirror := a, b
		write(t, a.v, 0, 1)
		b.reaches(a)
		stamp := uint64(10)
		for round := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			accepted := make(chan uint64, 1)
			go func(v *aodi.Volume, stamp uint64) { // a client, until it is refused
				for ; ; stamp++ {
					if err := v.WriteAt(stamped(stamp), int64(stamp%200)*chunk, false); err != nil {
						accepted <- stamp
						return
					}
					time.Sleep(time.Millisecond)
				}
			}(primary.v, stamp)
			time.Sleep(50 * time.Millisecond)
			var to *cawrm.Mirror
			for _, m := range append(primary.links, primary.site.peer.Followers("vm")...) {
				if s := m.Status().State; s == cawrm.StateSynced || s == cawrm.StateSyncing {
					to = m
				}
			}
			if to == nil {
				t.Fatalf("round %d: no mirror is connected: %s", round, primary.site.logs)
			}
			check(t, primary.site.peer.Switchover(ctx, "vm", to, 10*time.Second))
			cancel()
			end := <-accepted
			if primary.v.Role() != aodi.RoleMirror || mirror.v.Role() != aodi.RolePrimary {
				t.Fatalf("round %d: %s is a %s, %s a %s", round, primary.name, primary.v.Role(), mirror.name, mirror.v.Role())
			}
			for s := max(stamp, end-min(end, 150)); s < end; s++ {
				got := make([]byte, chunk)
				check(t, mirror.v.ReadAt(got, int64(s%200)*chunk))
				if !bytes.Equal(got, stamped(s)) {
					t.Fatalf("round %d: write %d of %d is lost", round, s, end)
				}
			}
			stamp = end + 1
			primary, mirror = mirror, primary
			write(t, primary.v, int64(round), 1)
			mirror.reaches(primary)
			if n := len(mirror.v.Snapshots()); n > 0 {
				t.Errorf("round %d: a tail was kept, though nothing was unsent", round)
			}
		}
		a.close()
		b.close()
	})
}

// TestSwitchoverOfEmptyVolume ensures that a volume to which nothing was ever written is handed over too, to and fro.
func TestSwitchoverOfEmptyVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 100, "a", "b")
		a, b := f.members["a"].open("b"), f.members["b"].open()
		eventually(t, "b knows its source", func() bool { return a.links[0].Status().State == cawrm.StateSynced }, func() any { return a.site.logs.String() })
		check(t, a.site.peer.Switchover(t.Context(), "vm", a.links[0], 10*time.Second))
		if a.v.Role() != aodi.RoleMirror || b.v.Role() != aodi.RolePrimary {
			t.Fatalf("a is a %s, b a %s", a.v.Role(), b.v.Role())
		}
		write(t, b.v, 1, 1)
		a.reaches(b)
		check(t, b.site.peer.Demote("vm", false))
		check(t, a.site.peer.Promote("vm", true))
		write(t, a.v, 1, 2)
		b.reaches(a)
		a.close()
		b.close()
	})
}

func itoa(p aodi.Position) string { return fmt.Sprintf("%d", uint64(p)) }

// delivered counts the bytes that went over the network, both ways.
func (n *network) delivered() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.passed[0] + n.passed[1]
}

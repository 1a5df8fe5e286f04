package cawrm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// TestSiblingsPromotedApart ensures that two mirrors of one source which were promoted apart, and have used the same positions for what
// differs, are found to part where the first of them was promoted; that the one which gives way keeps its branch as a snapshot and has
// what the other has; and that a mirror which it feeds then gets the history of the one that was chosen, and nothing of the branch.
func TestSiblingsPromotedApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFamily(t, 200, "s", "a", "b", "d")
		a, b, d := f.members["a"].open("b"), f.members["b"].open("d"), f.members["d"].open()
		s := f.members["s"].open("a", "b")
		for i := range int64(50) {
			write(t, s.v, i, 1+uint64(i))
		}
		for _, m := range []*member{a, b, d} {
			m.reaches(s)
		}
		s.net.cut()
		a.net.cut()
		b.net.set(func(n *network) { n.refused = true })
		b.net.cut()
		d.net.set(func(n *network) { n.refused = true })
		d.net.cut()
		fork := b.end()
		for i := range int64(5) { // only a has these of s
			write(t, s.v, i, 500+uint64(i))
		}
		a.reaches(s)
		s.close()
		check(t, errors.Join(a.site.peer.Promote("vm", true), b.site.peer.Promote("vm", true)))
		for i := range int64(30) {
			write(t, a.v, 3*i, 1000+uint64(i))
			write(t, b.v, 5*i, 2000+uint64(i))
		}
		check(t, errors.Join(a.v.Flush(), b.v.Flush(), a.v.Trim(20*chunk, 5*chunk, true)))
		if a.end()>>48 != b.end()>>48 {
			t.Fatalf("a is at %d, b at %d: not the same term", a.end(), b.end())
		}
		branch := content(t, b.v)
		b.net.set(func(n *network) { n.refused = false })
		for _, m := range []*member{a, b} {
			eventually(t, m.name+" meets the other head", func() bool { return m.site.peer.Conflict("vm") != "" }, func() any { return m.site.logs.String() })
			if text, want := m.site.peer.Conflict("vm"), "agree up to position "+itoa(fork); !strings.Contains(text, want) {
				t.Errorf("%s: not %q: %s", m.name, want, text)
			}
		}
		check(t, b.site.peer.Demote("vm", true))
		b.reaches(a)
		snaps := b.v.Snapshots()
		if len(snaps) != 1 {
			t.Fatalf("snapshots of b: %v", snaps)
		}
		if a.end() <= snaps[0].Position {
			t.Errorf("a is at %d, b has used positions up to %d", a.end(), snaps[0].Position)
		}
		view, err := b.v.OpenView(snaps[0].Name)
		check(t, err)
		kept := make([]byte, b.v.Size())
		check(t, view.ReadAt(kept, 0))
		view.Close()
		if !bytes.Equal(kept, branch) {
			t.Error("the snapshot is not what b held")
		}
		d.net.set(func(n *network) { n.refused = false })
		d.reaches(a)
		if n := len(d.v.Snapshots()); n > 0 {
			t.Errorf("d has %v", d.v.Snapshots())
		}
		write(t, a.v, 7, 3000)
		d.reaches(a)
		for _, m := range []*member{a, b, d} {
			m.close()
		}
	})
}

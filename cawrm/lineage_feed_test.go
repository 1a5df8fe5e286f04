package cawrm_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"cawrm/aodi"
	"cawrm/aodi/format"
)

// feed brings a mirror up to its source by hand.
func feed(t *testing.T, from, to *aodi.Volume) {
	t.Helper()
	at, _ := to.Pointers()
	_, durable := from.Pointers()
	r, err := from.ReadLog(at)
	check(t, err)
	defer r.Close()
	var b aodi.LogBatch
	for b.End < durable {
		check(t, r.Next(durable, 1<<20, &b))
		check(t, to.Stage(&b, true))
	}
	_, err = to.Commit()
	check(t, err)
}

// TestLineageThatIsGivenUp ensures that a mirror which had taken over the lineage of a source, of whose branch it had nothing yet, and then
// gets records of another one, tells the mirrors that it feeds before these get any: else they would hold them for records of the
// branch, and would never give them up.
func TestLineageThatIsGivenUp(t *testing.T) {
	synctest.Test(t, lineageGivenUp)
}

func lineageGivenUp(t *testing.T) {
	src, mid, leaf := newSource(t, 64), newMirror(t), newMirror(t)
	for i := range int64(10) {
		write(t, src, i, uint64(i+1))
	}
	check(t, src.Flush())
	id := src.Info()
	check(t, mid.Adopt(id.Volume, id.Size, id.Lineage))
	feed(t, src, mid)
	branch := append(slices.Clone(id.Lineage), format.Lineage{ID: uuid(9), Start: 12}) // of one that was promoted at 12
	_, err := mid.Follow(branch, false, false, "")
	check(t, err)

	n := newNetwork()
	newSite(t, n, leaf)
	m := startMirror(t, mid, mirrorConfig(n))
	synced(t, mid, m)
	eventually(t, "the leaf takes over the lineage", func() bool { return slices.Equal(leaf.Info().Lineage, branch) }, func() any { return leaf.Info() })

	_, err = mid.Follow(id.Lineage, false, false, "") // the source that it had before, which goes on
	check(t, err)
	for i := range int64(10) {
		write(t, src, 20+i, uint64(i+100))
	}
	check(t, src.Flush())
	feed(t, src, mid)
	synced(t, mid, m)
	if l := leaf.Info().Lineage; !slices.Equal(l, id.Lineage) {
		t.Errorf("the leaf has records of %v and says that they are of %v", id.Lineage, l)
	}
	sameContent(t, src, leaf)
}

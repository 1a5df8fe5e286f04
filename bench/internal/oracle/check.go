package oracle

import "fmt"

// CheckSource holds the image of the source, read after a crash and before
// anything is written again, to O1 to O4. Requests of which nothing is left
// count as never sent from here on, and what the image shows must stay.
func (o *Oracle) CheckSource(image []uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	least := make([]int, len(o.versions))
	for b, v := range o.versions {
		least[b] = max(o.source[b], o.mirror[b]) // O2 of earlier readings, O4
		for i := len(v) - 1; i > least[b]; i-- {
			if v[i].answered <= o.flushed || v[i].fua && v[i].answered != unanswered {
				least[b] = i // O2
				break
			}
		}
	}
	pick, err := o.cutLocked(image, least)
	if err != nil {
		return err
	}
	o.event++
	for b, v := range o.versions {
		o.busy[b] = false
		o.versions[b] = o.survivorsLocked(v, image[b])
		o.source[b] = pick[b]
	}
	o.pruneLocked()
	return nil
}

// survivorsLocked drops what came after the newest version that the block can
// be, and counts as answered now what was not answered before.
func (o *Oracle) survivorsLocked(v []*Op, content uint64) []*Op {
	for v[len(v)-1].content() != content {
		v = v[:len(v)-1]
	}
	for _, op := range v {
		op.answered = min(op.answered, o.event)
	}
	return v
}

// CheckMirror holds the image of a mirror, read while nothing is applied to
// it, to the rules for a mirror. What it shows, the mirror must go on showing
// or go beyond, and the source must never lose.
func (o *Oracle) CheckMirror(image []uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	pick, err := o.cutLocked(image, o.mirror)
	if err != nil {
		return err
	}
	copy(o.mirror, pick)
	o.pruneLocked()
	return nil
}

// cutLocked finds, for each block, the version that the image shows, such that
// O1 and O3 hold and no block is older than least. Zeroes may be any of
// several versions: the oldest possible is taken first, and only what the
// choice of others demands makes it younger, so an image is refused only if no
// choice is right.
func (o *Oracle) cutLocked(image []uint64, least []int) ([]int, error) {
	if len(image) != len(o.versions) {
		return nil, fmt.Errorf("the image has %d blocks, the volume has %d", len(image), len(o.versions))
	}
	pick := append([]int(nil), least...)
	newest := &Op{} // the request sent last among those that are there
	for {
		before := newest
		for b, v := range o.versions {
			for i := pick[b] + 1; i < len(v) && v[i].answered < newest.sent; i++ {
				pick[b] = i // O3
			}
			need := pick[b]
			for pick[b] < len(v) && v[pick[b]].content() != image[b] {
				pick[b]++
			}
			if pick[b] == len(v) {
				return nil, o.violation(int64(b), image[b], need, newest)
			}
		}
		for b, v := range o.versions {
			if op := v[pick[b]]; op.sent > newest.sent {
				newest = op
			}
		}
		if newest == before {
			return pick, nil
		}
	}
}

// violation says what is wrong with a block that shows content but needs the
// version at index need or a later one.
func (o *Oracle) violation(b int64, content uint64, need int, newest *Op) error {
	v := o.versions[b]
	for i := range need {
		if v[i].content() == content {
			why := "which was flushed, written with FUA, or seen before"
			if v[need].answered < newest.sent {
				why = fmt.Sprintf("which was answered before request %d was sent, and that one is there", newest.Seq)
			}
			return fmt.Errorf("block %d shows request %d, but it lacks request %d, %s", b, content, v[need].Seq, why)
		}
	}
	return fmt.Errorf("block %d shows request %d, which never wrote it or was lost in an earlier crash; it may show %s",
		b, content, describe(v[need:]))
}

func describe(v []*Op) string {
	s := ""
	for i, op := range v {
		if i == 8 {
			return s + ", ..."
		}
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(op.content())
	}
	return s
}

// pruneLocked forgets versions that neither side can show again.
func (o *Oracle) pruneLocked() {
	for b := range o.versions {
		n := min(o.source[b], o.mirror[b])
		o.versions[b] = o.versions[b][n:]
		o.source[b] -= n
		o.mirror[b] -= n
	}
}

package aodi_test

import (
	"bytes"
	"encoding/binary"
	"errors"

	"cawrm/aodi"
)

// A round of cleaning for TestEveryIO: everything that lies in a sealed segment is moved, under a snapshot as well, and what is dead
// then is freed and used again.

// startGarbage makes segments of which a part is live, and a snapshot that holds some of that.
func (x *trial) startGarbage() {
	x.startOpen()
	x.must(x.steps(100))
	_, err := x.v.CreateSnapshot("kept")
	x.must(err)
	x.kept = len(x.h.ops)
	x.must(x.steps(60))
	x.must(x.checkpoint())
}

// clean is a round of it.
func (x *trial) clean() error {
	var all []uint32
	if err := x.v.Sealed(func(s aodi.SealedSegment) bool { all = append(all, s.Segment); return true }); err != nil {
		return err
	}
	if len(all) == 0 {
		x.fatalf("there is nothing to clean")
	}
	for _, seg := range all {
		if _, err := x.v.Relocate(seg, nil); err != nil && !errors.Is(err, aodi.ErrNotCleanable) {
			return err
		}
	}
	for range 3 {
		if _, err := x.v.FreeDead(); err != nil {
			return err
		}
		if err := x.steps(20); err != nil {
			return err
		}
	}
	return x.flushAll()
}

// rightOrRefused: a sync that fails can lose the copy of a chunk that was moved. It is still where it was, and found there when the
// volume is opened again; until then it is refused. A chunk of the operation that met the failure may be either, as in seen.
func (x *trial) rightOrRefused() {
	b := make([]byte, chunk)
	with := x.state(len(x.h.ops))
	for _, op := range x.tried {
		with[op.chunk] = op.stamp
	}
	for c, stamp := range x.state(len(x.h.ops)) {
		if err := x.v.ReadAt(b, int64(c)*chunk); err == nil && !bytes.Equal(b, stamped(stamp)) && !bytes.Equal(b, stamped(with[c])) {
			x.fatalf("chunk %d of a volume that has failed holds %d, not %d", c, binary.LittleEndian.Uint64(b), stamp)
		}
	}
}

// state is what the first n records make.
func (x *trial) state(n int) shadow {
	s := make(shadow, x.h.chunks)
	for _, op := range x.h.ops[:n] {
		s[op.chunk] = op.stamp
	}
	return s
}

// judgeClean: as after anything else, and the snapshot is what it was.
func (x *trial) judgeClean(err error) {
	x.judge(err)
	x.must(x.open())
	view, err := x.v.OpenView("kept")
	x.must(err)
	defer view.Close()
	x.state(x.kept).check(x.t, x.what+": the snapshot", view)
}

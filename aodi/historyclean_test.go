package aodi_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"cawrm/aodi"
)

// TestHistoryGivesWay ensures that in a bounded container the history gives way to writes, which never fail for it, and that a
// moment that is open is neither moved nor freed by cleaning.
func TestHistoryGivesWay(t *testing.T) {
	d := newDisk(t, 1<<27)
	if err := aodi.CreateOn(d, aodi.CreateOptions{Size: 4 << 20, Capacity: 24 << 20, SegmentChunks: 32}); err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64
	clock.Store(time.Unix(1000, 0).UnixNano())
	opt := aodi.Options{CheckpointBytes: 256 << 10, History: aodi.HistoryWindow{Age: time.Hour}, Now: func() time.Time { return time.Unix(0, clock.Load()) }}
	v := open(t, d, opt)
	rng := newRand(seedOf(t))
	now := make(shadow, 1024)
	for stamp := uint64(1); stamp < 30000; stamp++ {
		c := rng.IntN(len(now))
		if err := v.WriteAt(stamped(stamp), int64(c)*chunk, false); err != nil {
			t.Fatalf("write %d: %v", stamp, err)
		}
		now[c] = stamp
		if stamp%100 == 0 {
			clock.Add(int64(time.Second))
		}
	}
	for i := 0; v.HistoryFrom().IsZero() && i < 20; i++ { // all of it may have given way just now
		if err := v.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	from := v.HistoryFrom()
	if from.IsZero() || !from.After(time.Unix(1000, 0)) {
		t.Errorf("the history begins at %v", from)
	}
	w, err := v.OpenMoment(opt.Now())
	if err != nil {
		t.Fatal(err)
	}
	then := bytes64(now)
	for _, seg := range victims(t, v) {
		if _, err := v.Relocate(seg, nil); err != nil && !errors.Is(err, aodi.ErrNotCleanable) {
			t.Fatal(err)
		}
	}
	then.check(t, "the moment", w)
	w.Close()
	now.check(t, "the volume", v)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, d)
}

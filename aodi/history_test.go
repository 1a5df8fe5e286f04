package aodi_test

import (
	"errors"
	"maps"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cawrm/aodi"
)

// moment is what a volume held at a time.
type moment struct {
	at    time.Time
	state map[int64]uint64
}

// TestHistoryShowsEachMoment ensures that every moment of the window can be read as it was, over checkpoints, restarts and
// deletions of what fell out of the window, and that what is older is refused.
func TestHistoryShowsEachMoment(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	const chunks = 1500
	create(t, d, chunks*chunk, 64)
	var clock atomic.Int64
	clock.Store(time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC).UnixNano())
	opt := quiet
	opt.Now = func() time.Time { return time.Unix(0, clock.Load()) }
	opt.History = aodi.HistoryWindow{Age: time.Hour}
	k := newKept(t, rng, chunks)
	k.v = open(t, d, opt)
	k.must(k.v.Checkpoint())
	began := opt.Now()
	var all []moment
	sparse, last := time.Duration(0), began // the longest time without a checkpoint, so without a cut
	for range 6 {
		for range 100 {
			clock.Add(int64(5 * time.Second))
			switch rng.IntN(12) {
			case 0:
				k.trim()
			case 1:
				k.must(k.v.Checkpoint())
				sparse, last = max(sparse, opt.Now().Sub(last)), opt.Now()
			case 2:
				k.must(k.v.WriteZeroes(0, 3*chunk, true, false))
				for c := range int64(3) {
					delete(k.now, c)
				}
			default:
				k.write()
			}
			k.must(k.v.Flush())
			all = append(all, moment{opt.Now(), maps.Clone(k.now)})
			clock.Add(int64(5 * time.Second))
		}
		for range 20 {
			m := all[rng.IntN(len(all))]
			w, err := k.v.OpenMoment(m.at.Add(time.Second))
			if opt.Now().Sub(m.at) < time.Hour {
				k.must(err)
			} else if err != nil && !errors.Is(err, aodi.ErrNoHistory) {
				t.Fatal(err)
			}
			if err == nil {
				k.holds(m.at.String(), w, m.state)
				w.Close()
			}
		}
		m := all[len(all)-1-rng.IntN(30)]
		path := filepath.Join(t.TempDir(), "clone")
		k.must(k.v.CreateCloneAt(m.at.Add(time.Second), "c", path))
		clone, err := k.v.OpenClone("c", quiet)
		k.must(err)
		k.holds("a clone of "+m.at.String(), clone, m.state)
		k.must(clone.WriteAt(stamped(77), 0, true))
		k.must(clone.Close())
		k.must(k.v.ForgetClone("c"))
		k.must(k.v.Close())
		check(t, d)
		k.v = open(t, d, opt)
	}
	if from := k.v.HistoryFrom(); from.Before(opt.Now().Add(-time.Hour-2*sparse)) || !from.After(began) {
		t.Errorf("the history goes back to %v, now is %v", from, opt.Now())
	}
	if _, err := k.v.OpenMoment(began.Add(time.Second)); !errors.Is(err, aodi.ErrNoHistory) {
		t.Errorf("a moment before the window: %v", err)
	}
	if n := len(k.v.Snapshots()); n > 0 {
		t.Errorf("%d cuts are shown as snapshots", n)
	}
	k.must(k.v.Close())
	opt.History = aodi.HistoryWindow{}
	k.v = open(t, d, opt)
	waitReaped(t, k.v)
	if from := k.v.HistoryFrom(); !from.IsZero() {
		t.Errorf("without a window the history goes back to %v", from)
	}
	k.compare()
	k.must(k.v.Close())
	check(t, d)
}

// TestHistoryHoldsAMoment ensures that what a moment's map leads to stays as long as somebody reads it.
func TestHistoryHoldsAMoment(t *testing.T) {
	rng := newRand(seedOf(t))
	d := newDisk(t, 1<<30)
	const chunks = 1000
	create(t, d, chunks*chunk, 64)
	opt := quiet
	opt.History = aodi.HistoryWindow{Bytes: 1 << 20}
	k := newKept(t, rng, chunks)
	k.v = open(t, d, opt)
	defer k.v.Close()
	for range 50 {
		k.write()
	}
	k.must(k.v.Flush())
	then := maps.Clone(k.now)
	w, err := k.v.OpenMoment(time.Now())
	k.must(err)
	for range 3000 { // many times the window
		k.write()
		if rng.IntN(100) == 0 {
			k.must(k.v.Checkpoint())
		}
	}
	k.must(k.v.Checkpoint())
	k.holds("the moment", w, then)
	w.Close()
}

package cawrm_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm"
)

// history drives a source and its mirror through writes, cuts, stalls and crashes of either side, against a model: the
// list of all records. Whatever happens, the mirror is the model at the mirror's position, and that position is
// between what the source was told and what the source has durable.
type history struct {
	t       *testing.T
	rng     *rand.Rand
	n       *network
	records []record // position = index
	flushed aodi.Position

	sourceDisk, mirrorDisk *disk.Memory
	v                      *aodi.Volume
	m                      *cawrm.Mirror
	s                      *site
	did                    []string
}

type record struct {
	lba, count int64
	stamp      uint64 // 0: reads as zeroes
}

const historyChunks = 96

func (h *history) openSource() {
	opt := aodi.Options{}
	if h.rng.IntN(2) == 0 { // tails that stay undurable for long
		opt.DurableInterval = time.Hour
	}
	h.v = openVolume(h.t, h.sourceDisk, opt)
	end, _ := h.v.Pointers()
	if end < h.flushed {
		h.t.Fatalf("the source lost flushed records: end_ptr %d, flushed %d", end, h.flushed)
	}
	h.records = h.records[:end]
	cfg := mirrorConfig(h.n)
	cfg.Window = 1 << (10 + h.rng.IntN(12))
	h.m = startMirror(h.t, h.v, cfg)
}

func (h *history) openMirror() {
	h.s = newSite(h.t, h.n, openVolume(h.t, h.mirrorDisk, aodi.Options{CheckpointBytes: 64 << 10}))
	if p, acked := h.mirrorAt(), h.m.Status().SyncPtr; p < acked {
		h.t.Fatalf("I3: the mirror stands at %d after its crash, sync_ptr is %d", p, acked)
	}
}

func (h *history) mirrorAt() aodi.Position { p, _ := h.s.v.Pointers(); return p }

// verify compares the mirror with the model at its position, if it holds still for so long.
func (h *history) verify() {
	if !h.s.v.Info().HasIdentity {
		return
	}
	for range 10 {
		p := h.mirrorAt()
		got := content(h.t, h.s.v)
		if h.mirrorAt() != p {
			continue
		}
		if _, durable := h.v.Pointers(); p > durable {
			h.t.Fatalf("I1: the mirror stands at %d, durable_ptr is %d", p, durable)
		}
		var want [historyChunks]uint64
		for _, r := range h.records[:p] {
			for c := r.lba; c < r.lba+r.count; c++ {
				want[c] = r.stamp
			}
		}
		for c, stamp := range want {
			if g := got[c*chunk : (c+1)*chunk]; !bytes.Equal(g, stamped(stamp)) {
				h.t.Fatalf("I2: at position %d the mirror's chunk %d is %s, the source had %#x there", p, c, stampOf(g), stamp)
			}
		}
		return
	}
}

func (h *history) append(records ...record) {
	h.records = append(h.records, records...)
	if end, _ := h.v.Pointers(); end != aodi.Position(len(h.records)) {
		h.t.Fatalf("end_ptr is %d, the model has %d records", end, len(h.records))
	}
}

func (h *history) step(i int) {
	lba := h.rng.Int64N(historyChunks)
	count := 1 + h.rng.Int64N(min(16, historyChunks-lba))
	n := h.n
	what := "write"
	switch k := h.rng.IntN(100); {
	case k < 55:
		var data []byte
		var all []record
		for c := range count {
			stamp := uint64(i)<<16 | uint64(c) | 1<<60
			data = append(data, stamped(stamp)...)
			all = append(all, record{lba + c, 1, stamp})
		}
		check(h.t, h.v.WriteAt(data, lba*chunk, false))
		h.append(all...)
	case k < 65:
		what = "trim"
		check(h.t, h.v.Trim(lba*chunk, count*chunk, false))
		if end, _ := h.v.Pointers(); end > aodi.Position(len(h.records)) { // a hole needs no record
			h.append(record{lba, count, 0})
		}
	case k < 75:
		what = "flush"
		check(h.t, h.v.Flush())
		h.flushed = aodi.Position(len(h.records))
	case k < 83:
		what = "time"
		time.Sleep(time.Duration(h.rng.Int64N(1 << (10 + h.rng.Int64N(25)))))
	case k < 88:
		what = "cut"
		n.cut()
	case k < 91:
		n.set(func(n *network) { n.stalled = !n.stalled; what = fmt.Sprint("stalled ", n.stalled) })
	case k < 93:
		n.set(func(n *network) { n.refused = !n.refused; what = fmt.Sprint("refused ", n.refused) })
	case k < 95:
		at := int64(h.rng.IntN(1 << (4 + h.rng.IntN(14))))
		what = fmt.Sprint("next connection cut at ", at)
		n.set(func(n *network) { n.forward = at })
		n.cut()
		time.Sleep(time.Second)
		n.set(func(n *network) { n.forward = -1 })
	case k < 97:
		what = "mirror crashes"
		h.crashMirror()
	case k < 99:
		what = "source crashes"
		h.crashSource()
	default:
		what = "both crash"
		h.crashMirror()
		h.crashSource()
	}
	h.did = append(h.did, what)
}

// crashMirror ends the mirror site at this moment: what its process and its page cache hold is gone, and of what it had
// not synced any part is.
func (h *history) crashMirror() {
	was := h.n.refused
	h.n.set(func(n *network) { n.refused = true }) // nobody hears what the dead process does after the snapshot
	h.n.cut()
	crashed := h.mirrorDisk.Crash(h.rng)
	h.t.Cleanup(crashed.Free)
	h.s.close(h.t)
	_ = h.s.v.Close() // of the old life, on the old disk
	h.mirrorDisk = crashed
	h.openMirror()
	h.n.set(func(n *network) { n.refused = was })
}

func (h *history) crashSource() {
	was := h.n.refused
	h.n.set(func(n *network) { n.refused = true })
	h.n.cut()
	crashed := h.sourceDisk.Crash(h.rng)
	h.t.Cleanup(crashed.Free)
	h.m.Close()
	_ = h.v.Close()
	h.sourceDisk = crashed
	h.openSource()
	h.n.set(func(n *network) { n.refused = was })
}

func runHistory(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{t: t, rng: newRand(seed), n: newNetwork()}
		defer func() {
			if t.Failed() {
				t.Logf("seed %d: %v", seed, h.did)
			}
		}()
		h.sourceDisk = newDisk(t, aodi.CreateOptions{Size: historyChunks * chunk})
		h.mirrorDisk = newDisk(t, aodi.CreateOptions{Mirror: true})
		h.openSource()
		h.openMirror()
		for i := range 150 {
			h.step(i)
			h.verify()
		}
		h.n.set(func(n *network) { n.refused, n.stalled = false, false })
		synced(t, h.v, h.m)
		h.verify()
		if p := h.mirrorAt(); p != aodi.Position(len(h.records)) {
			t.Fatalf("at the end the mirror stands at %d of %d", p, len(h.records))
		}
		sameContent(t, h.v, h.s.v)
	})
}

// TestHistories runs random histories from a seed.
func TestHistories(t *testing.T) {
	seed := seedOf(t)
	runs := uint64(30)
	if testing.Short() {
		runs = 10
	}
	if n, err := strconv.ParseUint(os.Getenv("RUNS"), 10, 64); err == nil {
		runs = n
	}
	for i := range runs {
		runHistory(t, seed+i)
		if t.Failed() {
			t.Logf("to replay this one first: SEED=%d", seed+i)
			return
		}
	}
}

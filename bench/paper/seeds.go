package paper

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"cawrm/bench/baseline"
	"cawrm/bench/report"
)

// SeedsTitle is that of the report.
const SeedsTitle = "CAWRM: the headline results of related systems, on the same kind of work"

// RunSeeds measures what ddsnap (Zumastor), distributed md and LIO's network RAID1 are known for.
func RunSeeds(ctx context.Context, c Config) ([]*report.Experiment, error) {
	b, done, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer done()
	return b.take(b.seeds())
}

func (b *bench) seeds() []step {
	return []step{{"untar", b.untar}, {"delta", b.delta}, {"reader", b.reader}, {"raid1", b.raid1}}
}

// seed begins an experiment.
func (b *bench) seed(name, title, x, unit, claim string) *report.Experiment {
	e := b.experiment(name, title, x, unit, claim)
	e.Name = "seeds/" + name
	return e
}

// Of an untar: so many files of a few chunks in order, each with changes of inodes and directories in a part that is
// written over and over.
const (
	untarFiles = 600
	metaChunks = 512
)

// untarTo writes a tree at off and returns where it ends.
func untarTo(v baseline.Volume, off int64, rng *rand.Rand) (end int64, err error) {
	data := rand.NewChaCha8([32]byte{byte(off >> 20)})
	p := make([]byte, 8*baseline.Chunk)
	for file := range untarFiles {
		n := int64(1+rng.IntN(8)) * baseline.Chunk
		data.Read(p[:n])
		if err := v.WriteAt(p[:n], off); err != nil {
			return off, err
		}
		off += n
		for range 2 {
			if err := v.WriteAt(p[:baseline.Chunk], rng.Int64N(metaChunks)*baseline.Chunk); err != nil {
				return off, err
			}
		}
		if file%100 == 99 {
			if err := v.Flush(); err != nil {
				return off, err
			}
		}
	}
	return off, v.Flush()
}

const trees = 8

// untar is ddsnap's Figure 1: trees are unpacked, one behind the other, with a snapshot after each.
func (b *bench) untar() error {
	e := b.seed("untar", "ddsnap: untar with 0 to n snapshots", "snapshots held", "time over in place",
		"without snapshots 1.43 times the native time, with snapshots 3.5 to 10 times, whatever their number (Zumastor, Figure 1)")
	e.Lower = true
	e.Note = fmt.Sprintf("a tree is %d files of 4 to 32 KiB in order, with changes of metadata between and a flush every 100 files; in place is the native time", untarFiles)
	return b.eachRound(e.Title, func(round int) error {
		all, err := b.rigs([]string{PlainPlace, PlainLog}, rigConfig{size: trees * untarFiles * 32 << 10})
		if err != nil {
			return err
		}
		defer closeAll(all)
		off := [2]int64{metaChunks * baseline.Chunk, metaChunks * baseline.Chunk}
		for held := range trees - 1 {
			var took [2]float64
			for i, r := range all {
				start := time.Now()
				if off[i], err = untarTo(r.Volume, off[i], rand.New(rand.NewPCG(uint64(round), uint64(held)))); err != nil {
					return err
				}
				took[i] = time.Since(start).Seconds()
			}
			e.Add("log", fmt.Sprint(held), float64(held), took[1]/took[0])
			if _, err := all[1].source.CreateSnapshot(fmt.Sprintf("tree-%d", held)); err != nil {
				return err
			}
		}
		return nil
	})
}

// delta is ddsnap's Figure 3: what goes over the line for a change, over what has changed.
func (b *bench) delta() error {
	e := b.seed("delta", "ddsnap: size of what is sent for a change", "change and compression", "bytes on the line over bytes changed",
		"compressed deltas are 5 to 13 times smaller than the data (Zumastor, Figure 3, of kernel sources)")
	e.Lower = true
	e.Note = "text is of words from a small vocabulary; small edits change 16 bytes of each chunk"
	changes := []struct {
		name string
		make func(p []byte, rng *rand.Rand)
	}{
		{"new random data", func(p []byte, rng *rand.Rand) { fillRandom(p, rng) }},
		{"new text", fillText},
		{"small edits of random data", func(p []byte, rng *rand.Rand) {
			for at := 0; at < len(p); at += baseline.Chunk {
				fillRandom(p[at+rng.IntN(baseline.Chunk-16):][:16], rng)
			}
		}},
	}
	return b.eachRound(e.Title, func(round int) error {
		for _, compress := range []string{"off", "best"} {
			for _, change := range changes {
				v, err := b.deltaOf(e, compress, change.make, uint64(round))
				if err != nil {
					return err
				}
				e.Add("compression "+compress, change.name, 0, v)
			}
		}
		return nil
	})
}

func fillRandom(p []byte, rng *rand.Rand) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

func fillText(p []byte, rng *rand.Rand) {
	words := []string{"static ", "int ", "return ", "struct ", "device ", "if (", ") {\n\t", "}\n\n", "err = ", "NULL", ";\n", "unsigned long ", "->", "lock"}
	for i := 0; i < len(p); {
		i += copy(p[i:], words[rng.IntN(len(words))])
		if rng.IntN(4) == 0 && i < len(p) {
			p[i] = byte('a' + rng.IntN(26))
			i++
		}
	}
}

// deltaOf changes a tenth of a synchronised volume and returns what that costs.
func (b *bench) deltaOf(e *report.Experiment, compress string, change func([]byte, *rand.Rand), seed uint64) (float64, error) {
	return b.onRig(Tight, rigConfig{size: b.volume, fill: b.volume / 2, link: gigabit(), settings: "compress=" + compress}, func(r *Rig) (float64, error) {
		on(e, r.Link)
		if err := b.settle(r); err != nil {
			return 0, err
		}
		sent, n := r.onLine(), b.volume/10/piece*piece
		rng := rand.New(rand.NewPCG(seed, 1))
		p := make([]byte, piece)
		for off := int64(0); off < n; off += piece {
			if err := r.Volume.ReadAt(p, off); err != nil {
				return 0, err
			}
			change(p, rng)
			if err := r.Volume.WriteAt(p, off); err != nil {
				return 0, err
			}
		}
		err := b.settle(r)
		return float64(r.onLine()-sent) / float64(n), err
	})
}

// reader is distributed md's Figure 4: a reader of 4 KiB in order, 16 outstanding, while the mirror is synchronised.
func (b *bench) reader() error {
	rate := b.seed("reader-rate", "Distributed md: throughput of a reader during synchronisation", "when", "MB/s",
		"30 to 48 MB/s and more during synchronisation, by the number of disks (distributed md, Figure 4)")
	lat := b.seed("reader-latency", "Distributed md: average latency of a reader during synchronisation", "when", "microseconds",
		"around 1 ms during recovery (distributed md, Figure 6)")
	lat.Lower = true
	rate.Note = "4 KiB in order, 16 at a time; two clients read and write the same volume"
	return b.eachRound(rate.Title, func(int) error {
		for _, name := range []string{Traditional, Tight} {
			_, err := b.onRig(name, rigConfig{size: b.volume, fill: b.volume, link: gigabit(), later: true}, func(r *Rig) (float64, error) {
				on(rate, r.Link)
				on(lat, r.Link)
				if err := warm(r.Volume, workload{}); err != nil {
					return 0, err
				}
				for _, when := range []string{"alone", "in synchronisation", "in synchronisation, with a second client"} {
					if when == "in synchronisation" {
						if err := r.begin(); err != nil {
							return 0, err
						}
					}
					v, h, err := readers(r.Volume, b.turn, when == "in synchronisation, with a second client")
					if err != nil {
						return 0, err
					}
					rate.Add(name, when, 0, v/1e6)
					lat.Add(name, when, 0, h.Mean()/1e3)
				}
				return 0, b.wait(r)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// readers reads with 16 workers; with other, four more write.
func readers(v baseline.Volume, d time.Duration, other bool) (rate float64, h *hdrhistogram.Histogram, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	h = newHistogram()
	start := time.Now()
	total := int64(0)
	for i := range 16 {
		wg.Go(func() {
			own, n := newHistogram(), int64(0)
			p := make([]byte, baseline.Chunk)
			for off := int64(i) * baseline.Chunk; time.Since(start) < d; off = (off + 16*baseline.Chunk) % v.Size() {
				began := time.Now()
				if failed := v.ReadAt(p, off); failed != nil {
					mu.Lock()
					err = failed
					mu.Unlock()
					return
				}
				_ = own.RecordValue(int64(min(max(time.Since(began), time.Microsecond), time.Minute)))
				n += baseline.Chunk
			}
			mu.Lock()
			defer mu.Unlock()
			h.Merge(own)
			total += n
		})
	}
	if other {
		wg.Go(func() {
			if _, failed := (workload{"second", true, true, 4}).run(v, d, 1); failed != nil {
				mu.Lock()
				defer mu.Unlock()
				err = failed
			}
		})
	}
	wg.Wait()
	return float64(total) / time.Since(start).Seconds(), h, err
}

// raid1 is what LIO's network RAID1 has its write intent bitmap for: a secondary that was away, and one that is new.
func (b *bench) raid1() error {
	e := b.seed("raid1", "LIO's network RAID1: time until the secondary has everything", "secondary", "seconds",
		"an internal bitmap of changed blocks lets failed nodes recover quickly (LIO network RAID1)")
	e.Lower = true
	e.Note = "the volume is full; a twentieth of it is written while the secondary is away"
	return b.eachRound(e.Title, func(int) error {
		for _, name := range []string{Traditional, Tight} {
			took, err := b.initial(e, name, rigConfig{size: b.volume, fill: b.volume, link: gigabit()})
			if err != nil {
				return err
			}
			e.Add(name, "new", 0, took)
			took, err = b.onRig(name, rigConfig{size: b.volume, fill: b.volume, link: gigabit(), equal: true}, func(r *Rig) (float64, error) {
				if err := b.settle(r); err != nil {
					return 0, err
				}
				r.Link.Cut()
				if err := fill(r.Volume, b.volume/20/baseline.Chunk*baseline.Chunk); err != nil {
					return 0, err
				}
				start := time.Now()
				r.Link.Heal()
				err := b.wait(r)
				return time.Since(start).Seconds(), err
			})
			if err != nil {
				return err
			}
			e.Add(name, "away for a while", 0, took)
		}
		return nil
	})
}

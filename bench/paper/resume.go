package paper

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"cawrm/bench/baseline"
	"cawrm/bench/report"
	"cawrm/wan"
)

// resume is what an outage costs: the writer's latency before, during and after, the time and the bytes until the mirror
// has everything again, and whether it could be used meanwhile.
func (b *bench) resume() error {
	const claim = "after a network failure CAWRM just goes on copying, without a bitmap or coordination of writes and resynchronisation (III.C, IV.C)"
	lat := b.experiment("resume-latency", "Resumption: latency of a writer before, in and after an outage", "time and percentile", "microseconds", claim)
	lat.Lower = true
	lat.Note = fmt.Sprintf("random writes of 4 KiB at %.0f a second, without flushes; corrected for coordinated omission", b.rate)
	cost := b.experiment("resume", "Resumption: what it costs", "what", "see rows", claim)
	cost.Lower, cost.Mixed = true, true
	cost.Note = fmt.Sprintf("%s were written twice in the outage, while the paced writer went on over other %s; bytes over unique dirty bytes are without compression",
		size(b.dirty), size(b.dirty))
	p, _ := wan.Lookup("wan")
	for round := range b.resumeIn {
		for _, name := range []string{Traditional, Loose, Tight} {
			b.Progress(fmt.Sprintf("resumption, %s, round %d of %d", name, round+1, b.resumeIn))
			if err := b.outageOf(name, p, lat, cost, uint64(round)); err != nil {
				return err
			}
		}
	}
	return nil
}

// outageOf puts one architecture through an outage.
func (b *bench) outageOf(name string, p wan.Profile, lat, cost *report.Experiment, seed uint64) error {
	all, err := b.rigs([]string{name}, rigConfig{size: b.volume, link: p, equal: true})
	if err != nil {
		return err
	}
	defer closeAll(all)
	r := all[0]
	if err := b.settle(r); err != nil {
		return err
	}
	on(lat, r.Link)
	on(cost, r.Link)
	client := paced{volume: r.Volume, from: b.dirty, to: 2 * b.dirty, rate: b.rate, seed: seed}
	if err := b.phase(client, b.before, func(h *hdrhistogram.Histogram) { addLatency(lat, name, "before", h) }); err != nil {
		return err
	}
	if err := b.settle(r); err != nil {
		return err
	}
	r.Link.Cut()
	seen := newMarked(r.Volume)
	inOutage := client
	inOutage.volume = seen
	if err := b.phase(inOutage, b.outage, func(h *hdrhistogram.Histogram) { addLatency(lat, name, "outage", h) }); err != nil {
		return err
	}
	for range 2 {
		if err := fill(seen, b.dirty); err != nil {
			return err
		}
	}
	dirty := seen.bytes()
	sent := r.onLine()
	start := time.Now()
	r.Link.Heal()
	samples, usable := 0, 0
	watched := make(chan struct{})
	ctx, cancel := context.WithCancel(b.ctx)
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			samples++
			if r.Usable() {
				usable++
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	err = b.wait(r)
	took := time.Since(start)
	cancel()
	<-watched
	if err != nil {
		return err
	}
	cost.Add(name, "seconds until synced", 0, took.Seconds())
	cost.Add(name, "bytes on the line over unique dirty bytes", 0, float64(r.onLine()-sent)/float64(dirty))
	cost.Add(name, "share of the line's rate used", 0, float64(r.onLine()-sent)/took.Seconds()/float64(p.Rate))
	cost.Add(name, "mirror not usable, share of the time", 0, 1-float64(usable)/float64(max(1, samples)))
	return b.phase(client, b.before, func(h *hdrhistogram.Histogram) { addLatency(lat, name, "after", h) })
}

// phase runs the paced client for d.
func (b *bench) phase(c paced, d time.Duration, add func(*hdrhistogram.Histogram)) error {
	ctx, cancel := context.WithTimeout(b.ctx, d)
	defer cancel()
	h, err := c.run(ctx)
	if err != nil {
		return err
	}
	add(h)
	return b.ctx.Err()
}

func addLatency(e *report.Experiment, name, when string, h *hdrhistogram.Histogram) {
	for _, q := range []float64{50, 99, 99.9} {
		e.Add(name, fmt.Sprintf("%s p%g", when, q), 0, float64(h.ValueAtQuantile(q))/1e3)
	}
}

// marked is a volume of which it is noted which chunks are written.
type marked struct {
	baseline.Volume
	mu     sync.Mutex
	chunks map[int64]struct{}
}

func newMarked(v baseline.Volume) *marked { return &marked{Volume: v, chunks: map[int64]struct{}{}} }

func (m *marked) WriteAt(p []byte, off int64) error {
	m.mu.Lock()
	for c := off / baseline.Chunk; c < (off+int64(len(p)))/baseline.Chunk; c++ {
		m.chunks[c] = struct{}{}
	}
	m.mu.Unlock()
	return m.Volume.WriteAt(p, off)
}

// bytes are those of the chunks that were written, each counted once.
func (m *marked) bytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.chunks)) * baseline.Chunk
}

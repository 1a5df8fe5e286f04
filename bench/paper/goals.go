package paper

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"cawrm/aodi"
	"cawrm/bench/baseline"
	"cawrm/bench/report"
	"cawrm/wan"
)

// GoalsTitle is that of the report.
const GoalsTitle = "CAWRM: the figures to reach"

// RunGoals measures the ratios that are to be reached and need no other program, and the machine's own limits beside them.
func RunGoals(ctx context.Context, c Config) ([]*report.Experiment, error) {
	b, done, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer done()
	return b.take(b.goals())
}

func (b *bench) goals() []step {
	return []step{
		{"limits", b.limits}, {"slow-link", b.slowLink}, {"outage", b.stallFree}, {"catch-up", b.catchUp},
		{"initial-sync", b.firstSync}, {"random-write", b.localWrites}, {"recovery", b.recovery},
	}
}

// goal begins an experiment whose point "ratio" is to be reached; the others are what it is of.
func (b *bench) goal(name, title, want string) *report.Experiment {
	e := b.experiment(name, title, "what", "ratio, and as said", want)
	e.Name, e.Mixed = "goal/"+name, true
	return e
}

// slowLink is the writer's rate with a mirror on a link that carries a tenth of it, over the rate without a mirror. The mirror that
// counts does not compress: the writers' data are so alike that a link carries far more than its rate of them otherwise, and is
// not too slow any more. One that does is measured beside it.
func (b *bench) slowLink() error {
	e := b.goal("slow-link", "Writer's rate with a mirror on a link 10 times too slow, over without a mirror", "at least 0.95")
	e.Note = "16 writers of 4 KiB, one flush at the end, compress=off where nothing else is said; both sites share the processors, so a part of what " +
		"the mirror costs is the other site's work"
	w, c := workloads[1], rigConfig{size: b.volume, link: wan.Profile{Delay: 25 * time.Millisecond}}
	var all []*Rig
	defer func() { closeAll(all) }()
	for _, x := range [][2]string{{PlainLog, ""}, {Tight, "compress=off"}, {Tight, "compress=auto"}} {
		c.settings = x[1]
		r, err := b.rigs([]string{x[0]}, c)
		if err != nil {
			return err
		}
		all = append(all, r...)
	}
	var rate float64
	for i, r := range all { // each volume has been written to once before it counts
		v, err := w.run(r.Volume, b.turn, 1000)
		if err != nil {
			return err
		}
		if i == 0 {
			rate = v
			continue
		}
		if err := b.wait(r); err != nil {
			return err
		}
		if err := r.Link.SetProfile(wan.Profile{Name: "ten times too slow", Delay: 25 * time.Millisecond, Rate: int64(rate / 10)}); err != nil {
			return err
		}
	}
	on(e, all[1].Link)
	return b.eachRound(e.Title, func(round int) error {
		var v [3]float64
		for i, r := range all {
			var err error
			if v[i], err = w.run(r.Volume, b.turn, uint64(round)); err != nil {
				return err
			}
			if err := b.settle(r); err != nil {
				return err
			}
		}
		e.Add("tight", "without a mirror, MB/s", 0, v[0]/1e6)
		e.Add("tight", "with a mirror, MB/s", 0, v[1]/1e6)
		e.Add("tight", "ratio", 0, v[1]/v[0])
		e.Add("tight", "with a mirror that compresses, MB/s", 0, v[2]/1e6)
		e.Add("tight", "ratio with a mirror that compresses", 0, v[2]/v[0])
		return nil
	})
}

// onRig builds a rig, measures on it, and takes it down.
func (b *bench) onRig(name string, c rigConfig, f func(*Rig) (float64, error)) (float64, error) {
	all, err := b.rigs([]string{name}, c)
	if err != nil {
		return 0, err
	}
	defer closeAll(all)
	return f(all[0])
}

// stallFree is the writer's 99th percentile in an outage and after it, over before.
func (b *bench) stallFree() error {
	e := b.goal("outage-latency", "Writer's p99 during an outage, and in the minute after it, over before", "at most 1.1")
	e.Lower = true
	e.Note = fmt.Sprintf("random writes of 4 KiB at %.0f a second, corrected for coordinated omission; warming up, before and outage take %s each, after %s", b.rate, b.before, b.after)
	p, _ := wan.Lookup("wan")
	return b.eachRound(e.Title, func(round int) error {
		_, err := b.onRig(Tight, rigConfig{size: b.volume, link: p}, func(r *Rig) (float64, error) {
			on(e, r.Link)
			if err := b.settle(r); err != nil {
				return 0, err
			}
			client := paced{volume: r.Volume, to: b.volume, rate: b.rate, seed: uint64(round)}
			p99 := map[string]float64{}
			for _, when := range []string{"warm", "before", "outage", "after"} {
				long := b.before
				switch when {
				case "outage":
					r.Link.Cut()
				case "after":
					r.Link.Heal()
					long = b.after
				}
				err := b.phase(client, long, func(h *hdrhistogram.Histogram) { p99[when] = float64(h.ValueAtQuantile(99)) / 1e3 })
				if err != nil {
					return 0, err
				}
			}
			for _, when := range []string{"before", "outage", "after"} {
				e.Add("tight", when+" p99, us", 0, p99[when])
			}
			e.Add("tight", "ratio, outage", 0, p99["outage"]/p99["before"])
			e.Add("tight", "ratio, after", 0, p99["after"]/p99["before"])
			return 0, nil
		})
		return err
	})
}

// catchUp is the use of the link and the bytes of a resume, on wan and on bad without its loss.
func (b *bench) catchUp() error {
	use := b.goal("link-use", "Use of the link during catch-up", "at least 0.95 of its rate")
	bytes := b.goal("resume-bytes", "Bytes of a resume over unique dirty bytes, uncompressed", "at most 1.02")
	bytes.Lower = true
	use.Note = "from the first byte after the outage until the mirror has everything"
	for _, name := range []string{"wan", "bad"} {
		p, _ := wan.Lookup(name)
		p.Loss, p.Jitter = 0, 0
		err := b.eachRound(use.Title+", "+name, func(round int) error {
			_, err := b.onRig(Tight, rigConfig{size: b.volume, link: p, settings: "compress=off"}, func(r *Rig) (float64, error) {
				on(use, r.Link)
				on(bytes, r.Link)
				return 0, b.catchUpOn(r, name, p, use, bytes)
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	use.Link, bytes.Link = "wan, and bad without loss", "wan, and bad without loss"
	return nil
}

func (b *bench) catchUpOn(r *Rig, name string, p wan.Profile, use, bytes *report.Experiment) error {
	if err := fill(r.Volume, b.dirty); err != nil {
		return err
	}
	if err := b.settle(r); err != nil {
		return err
	}
	r.Link.Cut()
	seen := newMarked(r.Volume)
	for range 2 {
		if err := fill(seen, b.dirty); err != nil {
			return err
		}
	}
	sent := r.onLine()
	r.Link.Heal()
	for r.onLine() == sent && b.ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := b.wait(r); err != nil {
		return err
	}
	n := r.onLine() - sent
	use.Add("tight", "ratio, "+name, 0, float64(n)/time.Since(start).Seconds()/float64(p.Rate))
	bytes.Add("tight", "ratio, "+name, 0, float64(n)/float64(seen.bytes()))
	return nil
}

// firstSync is the time of initial synchronisation of a volume with a tenth stored, traditional over tight.
func (b *bench) firstSync() error {
	e := b.goal("initial-sync", "Initial synchronisation of a volume with 10 % stored: traditional over tight", "at least 9 times faster")
	return b.eachRound(e.Title, func(int) error {
		took := map[string]float64{}
		for _, name := range []string{Traditional, Tight} {
			var err error
			if took[name], err = b.initial(e, name, rigConfig{size: b.stored, fill: b.stored / 10 / baseline.Chunk * baseline.Chunk, link: gigabit()}); err != nil {
				return err
			}
			e.Add("both", name+", s", 0, took[name])
		}
		e.Add("both", "ratio", 0, took[Traditional]/took[Tight])
		return nil
	})
}

// localWrites is random write throughput, tight over traditional without their mirrors, and tight over loose with one on loopback.
func (b *bench) localWrites() error {
	local := b.goal("random-write-local", "Random write throughput, tight over traditional (local)", "at least 5")
	local.Note = "bytes a second until durable: 16 writers of 4 KiB, one flush at the end"
	mirrored := b.goal("random-write-mirrored", "Random write with a mirror on loopback, tight over loose", "at least 1.0")
	all, err := b.rigs([]string{PlainPlace, PlainLog, Loose, Tight}, rigConfig{size: b.volume, link: wan.Profile{Name: "lan"}, equal: true})
	if err != nil {
		return err
	}
	defer closeAll(all)
	on(mirrored, all[3].Link)
	return b.eachRound(local.Title, func(round int) error {
		v := map[string]float64{}
		for _, r := range all {
			if v[r.Name], err = workloads[1].run(r.Volume, b.turn, uint64(round)); err != nil {
				return err
			}
			if err := b.settle(r); err != nil {
				return err
			}
		}
		local.Add("both", "traditional (in place), MB/s", 0, v[PlainPlace]/1e6)
		local.Add("both", "tight (log), MB/s", 0, v[PlainLog]/1e6)
		local.Add("both", "ratio", 0, v[PlainLog]/v[PlainPlace])
		mirrored.Add("both", "loose, MB/s", 0, v[Loose]/1e6)
		mirrored.Add("both", "tight, MB/s", 0, v[Tight]/1e6)
		mirrored.Add("both", "ratio", 0, v[Tight]/v[Loose])
		return nil
	})
}

// Crash writes n bytes to the volume in path and ends this process by SIGKILL: what Config.Crasher runs.
func Crash(path string, n int64) error {
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		return err
	}
	for ; n > 0; n -= v.Size() {
		if err := fill(baseline.Log{Volume: v}, min(n, v.Size())); err != nil {
			return err
		}
	}
	if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
		return err
	}
	select {} // the signal is on its way
}

// recovery is the time to open a volume after SIGKILL, with much written over with little.
func (b *bench) recovery() error {
	e := b.goal("recovery", "Time to open after SIGKILL, much written over little", "at most 1.2 in time")
	e.Lower = true
	little, much := b.written[0], b.written[1]
	e.Note = fmt.Sprintf("%s against %s written, in order, to a volume of %s, by a process that then gets SIGKILL", size(much), size(little), size(b.volume))
	return b.eachRound(e.Title, func(int) error {
		took := map[int64]float64{}
		for _, n := range []int64{little, much} {
			path := filepath.Join(b.Dir, "crash")
			if err := aodi.Create(path, aodi.CreateOptions{Size: b.volume}); err != nil {
				return err
			}
			if out, err := b.Crasher(b.ctx, path, n).CombinedOutput(); err == nil || len(out) > 0 {
				return fmt.Errorf("the process that was to die: %v: %s", err, out)
			}
			start := time.Now()
			v, err := aodi.Open(path, aodi.Options{})
			if err != nil {
				return err
			}
			took[n] = time.Since(start).Seconds()
			if err := v.Close(); err != nil {
				return err
			}
			os.Remove(path)
			e.Add("tight", size(n)+" written, s", 0, took[n])
		}
		e.Add("tight", "ratio", 0, took[much]/took[little])
		return nil
	})
}

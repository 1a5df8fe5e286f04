package paper

import (
	"fmt"
	"time"

	"cawrm/bench/baseline"
	"cawrm/bench/report"
	"cawrm/wan"
)

// gigabit is the paper's network: Gigabit Ethernet with a WAN emulator between.
func gigabit() wan.Profile { p, _ := wan.Lookup("metro"); return p }

const initialClaim = "time grows linearly with the volume's size in the traditional system; CAWRM copies only what is stored (Figure 7)"

// initialSize is Figure 7: the time of initial synchronisation against the volume's size, a tenth of which is stored.
func (b *bench) initialSize() error {
	e := b.experiment("7-size", "Figure 7: initial synchronisation against the size of the volume, 10 % of it stored", "volume", "seconds", initialClaim)
	e.Lower, e.Lines = true, true
	return b.eachRound(e.Title, func(int) error {
		for _, n := range b.sizes {
			for _, name := range []string{Traditional, Loose, Tight} {
				took, err := b.initial(e, name, rigConfig{size: n, fill: n / 10 / baseline.Chunk * baseline.Chunk, link: gigabit()})
				if err != nil {
					return err
				}
				e.Add(name, size(n), float64(n)/mib, took)
			}
		}
		return nil
	})
}

// initialStored is the same against what is stored in a volume of one size.
func (b *bench) initialStored() error {
	e := b.experiment("7-stored", fmt.Sprintf("Figure 7: initial synchronisation of a volume of %s against what is stored in it", size(b.stored)),
		"stored", "seconds", "CAWRM's time follows the data stored; it copies nothing if the volume is empty")
	e.Lower, e.Lines = true, true
	return b.eachRound(e.Title, func(int) error {
		for _, share := range []int64{0, 10, 50, 100} {
			for _, name := range []string{Traditional, Tight} {
				took, err := b.initial(e, name, rigConfig{size: b.stored, fill: b.stored * share / 100 / baseline.Chunk * baseline.Chunk, link: gigabit()})
				if err != nil {
					return err
				}
				e.Add(name, fmt.Sprintf("%d %%", share), float64(share), took)
			}
		}
		return nil
	})
}

// initial measures one initial synchronisation: from the start of mirroring until the mirror has everything.
func (b *bench) initial(e *report.Experiment, name string, c rigConfig) (seconds float64, err error) {
	c.later = true
	all, err := b.rigs([]string{name}, c)
	if err != nil {
		return 0, err
	}
	defer closeAll(all)
	r := all[0]
	start := time.Now()
	if err := r.begin(); err != nil {
		return 0, err
	}
	if err := b.wait(r); err != nil {
		return 0, err
	}
	seconds = time.Since(start).Seconds()
	on(e, r.Link)
	return seconds, nil
}

package paper

import (
	"time"

	"cawrm/wan"
)

// throughput is Figures 8 and 9: what a client at the primary site gets, with and without a mirror, while the line
// carries what it can.
func (b *bench) throughput() error {
	e := b.experiment("8-9", "Figures 8 and 9: throughput at the primary site", "workload", "MB/s",
		"loose improves random writes over traditional and is comparable elsewhere (Figure 8); tight is almost the same as loose under all workloads (Figure 9)")
	e.Note = "reads are from the page cache: each volume was read once before its turn"
	all, err := b.rigs([]string{PlainPlace, PlainLog, Traditional, Loose, Tight},
		rigConfig{size: b.volume, fill: b.volume, link: wan.Profile{Name: "lan"}, equal: true})
	if err != nil {
		return err
	}
	defer closeAll(all)
	for _, r := range all {
		b.Progress("waiting for the mirror of " + r.Name)
		if err := b.settle(r); err != nil {
			return err
		}
	}
	on(e, all[len(all)-1].Link)
	return b.eachRound(e.Title, func(round int) error {
		for _, w := range workloads {
			for _, r := range all {
				if err := warm(r.Volume, w); err != nil {
					return err
				}
				v, err := w.run(r.Volume, b.turn, uint64(round))
				if err != nil {
					return err
				}
				e.Add(r.Name, w.name, 0, v/1e6)
				if err := b.settle(r); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// settle lets a rig come to rest, untimed, so that the next turn does not pay for this one.
func (b *bench) settle(r *Rig) error {
	if err := r.Volume.Flush(); err != nil {
		return err
	}
	return b.wait(r)
}

// backup is Figure 10: how fast what a client writes gets to the backup, from the first write until the backup has it all.
func (b *bench) backup() error {
	e := b.experiment("10", "Figure 10: throughput of the backup", "workload", "MB/s",
		"as Figure 9: tight is almost the same as loose, both are better than traditional where writes are random")
	e.Note = "bytes that the client wrote, over the time until the backup had them; tight ships a chunk that was written again " +
		"meanwhile only once, when it is 32 MiB behind"
	all, err := b.rigs([]string{Traditional, Loose, Tight}, rigConfig{size: b.volume, link: gigabit(), equal: true})
	if err != nil {
		return err
	}
	defer closeAll(all)
	on(e, all[0].Link)
	return b.eachRound(e.Title, func(round int) error {
		for _, w := range workloads[:2] {
			for _, r := range all {
				start := time.Now()
				v, err := w.run(r.Volume, b.turn, uint64(round))
				if err != nil {
					return err
				}
				written := v * time.Since(start).Seconds()
				if err := b.wait(r); err != nil {
					return err
				}
				e.Add(r.Name, w.name, 0, written/1e6/time.Since(start).Seconds())
			}
		}
		return nil
	})
}

package sim

import (
	"io"

	recovery "cawrm/recover"
)

// rot flips a bit in a copy of a container that was closed in order. Whatever it hits, the volume opens with all that it
// had or refuses to, and each chunk reads as it was written or not at all; nobody panics.
func (w *world) rot(n *node) {
	rng := w.split()
	d := n.mem.Crash(rng)
	defer d.Free()
	at := d.Flip(rng)
	_, _ = recovery.Check(d, recovery.CheckOptions{}) // what it says is tried by its own tests
	v, err := w.alone(d)
	if err != nil {
		w.count("rotten containers refused", 1)
		return
	}
	defer v.Close()
	end, _ := v.Pointers()
	if end != w.model.end {
		w.fatal("rot", "%s: a bit flipped at byte %d: it opens at %d, not at %d", n.name, at, end, w.model.end)
	}
	if bad := w.wrongSize(n, v.Size(), end); bad != "" {
		w.fatal("rot", "%s: a bit flipped at byte %d: %s", n.name, at, bad)
	}
	b := w.buffer(chunkSize)
	for _, win := range w.inside(v.Size()) {
		for lba := win.first; lba < win.first+win.count; lba++ {
			if err := v.ReadAt(b, lba*chunkSize); err != nil {
				w.count("rotten chunks refused", 1)
				continue
			}
			if bad := w.unlike(b, lba, end); bad != "" {
				w.fatal("rot", "%s: a bit flipped at byte %d: %s", n.name, at, bad)
			}
		}
	}
}

// mend flips some bits in a copy of a container and has it repaired. What opens then holds, chunk by chunk, something that
// was written there once, or refuses to be read; and somebody who wants to see what there is sees it.
func (w *world) mend(n *node) {
	rng := w.split()
	d := n.mem.Crash(rng)
	defer d.Free()
	for range 1 + rng.IntN(3) {
		d.Flip(rng)
	}
	win := w.cfg.windows[0]
	_ = recovery.Dump(d, recovery.DumpOptions{Segment: rng.IntN(4), LBA: win.first, Verbose: true}, recovery.Text(io.Discard)) // it only must not panic
	r, err := recovery.Repair(d, recovery.CheckOptions{})
	if err != nil {
		w.count("rotten containers beyond repair", 1)
		return
	}
	_ = r.Print(io.Discard)
	v, err := w.alone(d)
	if err != nil {
		w.count("repaired containers refused", 1)
		return
	}
	defer v.Close()
	w.count("repaired containers opened", 1)
	b := w.buffer(chunkSize)
	for _, win := range w.inside(v.Size()) {
		for lba := win.first; lba < win.first+win.count; lba++ {
			if err := v.ReadAt(b, lba*chunkSize); err != nil {
				continue
			}
			got, err := read(b)
			if err != nil || !w.ever(lba, got) {
				w.fatal("rot", "%s, repaired: chunk %d holds writes %v, which it never held (%v)", n.name, lba, got, err)
			}
		}
	}
}

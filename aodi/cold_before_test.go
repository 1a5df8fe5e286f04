package aodi_test

import (
	"testing"

	"cawrm/aodi/disk"
	recovery "cawrm/recover"
)

// TestCleaningSparesTheCheckpointBefore ensures that a volume which is cleaned and has lost its newest meta chunk has all that was
// flushed: what cleaning has moved is still where the checkpoint before says.
func TestCleaningSparesTheCheckpointBefore(t *testing.T) {
	rng := newRand(seedOf(t))
	for run := range 8 {
		d := disk.NewMemory(1 << 28)
		const chunks = 300
		create(t, d, chunks*chunk, 32)
		v := open(t, d, quiet)
		now, stamp := make(shadow, chunks), uint64(0)
		write := func(n int) {
			for range n {
				stamp++
				c := rng.IntN(chunks)
				if err := v.WriteAt(stamped(stamp), int64(c)*chunk, false); err != nil {
					t.Fatal(err)
				}
				now[c] = stamp
			}
		}
		for range 6 {
			write(600)
			if err := v.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			cleanAll(t, v)
			if err := v.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		write(rng.IntN(900))
		if err := v.Flush(); err != nil {
			t.Fatal(err)
		}
		crashed := d.Crash(rng)
		_ = v.Close()
		free(t, d)
		c, err := recovery.Newest(crashed)
		if err != nil {
			t.Fatal(err)
		}
		if err := crashed.WriteCached(make([]byte, chunk), int64(1+c.Meta.Seq%2)*chunk); err != nil {
			t.Fatal(err)
		}
		v = open(t, crashed, quiet)
		now.check(t, "from the checkpoint before", v)
		if err := v.Close(); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		check(t, crashed)
		free(t, crashed)
	}
}

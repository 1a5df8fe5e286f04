package cawrm_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/cawrm"
)

func verify(t testing.TB, m *cawrm.Mirror, repair bool) *cawrm.Verification {
	t.Helper()
	v, err := m.Verify(context.Background(), repair, func(int64, int64) {})
	check(t, err)
	return v
}

// damage flips a bit of each place of the disk that holds this chunk. The volume must not be open: it would read its own memory.
func damage(t testing.TB, d *disk.Memory, stamp uint64) {
	t.Helper()
	damageChunk(t, d, stamped(stamp))
}

func damageChunk(t testing.TB, d *disk.Memory, content []byte) {
	t.Helper()
	p, found := make([]byte, chunk), 0
	for off := int64(0); off+chunk <= d.Size(); off += chunk {
		check(t, d.ReadAt(p, off))
		if bytes.Equal(p, content) {
			p[99] ^= 1
			check(t, d.WriteCached(p, off))
			check(t, d.Sync())
			found++
		}
	}
	if found == 0 {
		t.Fatalf("chunk %s is nowhere on the disk", stampOf(content))
	}
}

// TestVerifyIsOnline: a volume that is written while it is compared, over a line that is slow, never differs; little goes over the
// line; and the volume is written on meanwhile.
func TestVerifyIsOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		b := all.site(t, "b")
		const chunks = 5000
		v := newSource(t, chunks)
		for i := range int64(2000) {
			write(t, v, i, uint64(i)+1)
		}
		s := all.source(t, v)
		check(t, s.Add("b", "cawrm://b/vm"))
		m := mirrorOf(t, s, "b")
		synced(t, v, m)
		before := all["b"].carried()
		if r := verify(t, m, false); len(r.Different) > 0 || r.DataBytes != 2000*chunk || r.Size != chunks*chunk || r.Position != 2000 {
			t.Errorf("%+v", r)
		}
		if n := all["b"].carried() - before; n > 1<<10 {
			t.Errorf("%d bytes went over the line", n)
		}
		all["b"].set(func(n *network) { n.rate = 4 << 20 })
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			rng := newRand(1)
			for i := 0; !stop.Load(); i++ {
				check(t, v.WriteAt(stamped(uint64(i)), rng.Int64N(chunks)*chunk, i%10 == 0))
				if i%7 == 0 {
					check(t, v.Trim(rng.Int64N(chunks-3)*chunk, 3*chunk, false))
				}
				time.Sleep(3 * time.Millisecond)
			}
		}()
		for range 5 {
			end, _ := v.Pointers()
			r := verify(t, m, false)
			if len(r.Different) > 0 || r.Position < end {
				t.Errorf("after %d: %+v", end, r)
			}
			time.Sleep(time.Second)
		}
		stop.Store(true)
		<-done
		synced(t, v, m)
		sameContent(t, v, b.v)
	})
}

// TestVerifyMends: a chunk that one site cannot read is mended from the other, in its place; one that both can read and is
// not the same is sent again; one that no site can read stays, and is said to.
func TestVerifyMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{"b": newNetwork()}
		first := newDisk(t, aodi.CreateOptions{Size: 3000 * chunk})
		other := first.Crash(newRand(1)) // the same volume, which will go another way at the same positions
		t.Cleanup(other.Free)
		mirrorDisk := newDisk(t, aodi.CreateOptions{Mirror: true})
		run := func(d *disk.Memory, do func(v *aodi.Volume, m *cawrm.Mirror, b *site, heard *events)) {
			v, mv := openVolume(t, d, aodi.Options{}), openVolume(t, mirrorDisk, aodi.Options{})
			b := newSite(t, all["b"], mv)
			var heard events
			s, err := cawrm.NewSource(v, cawrm.MirrorConfig{Dial: all.dial, OnEvent: heard.add}, 0)
			check(t, err)
			check(t, s.AddGiven("b", "cawrm://b/vm"))
			synced(t, v, mirrorOf(t, s, "b"))
			do(v, mirrorOf(t, s, "b"), b, &heard)
			s.Close()
			b.close(t)
			check(t, v.Close())
			check(t, mv.Close())
		}
		fill := func(v *aodi.Volume, wrong uint64) {
			for i := range int64(2000) {
				stamp := uint64(i) + 1<<20
				if i == 1500 || i == 1501 {
					stamp += wrong
				}
				write(t, v, i, stamp)
			}
		}
		run(other, func(v *aodi.Volume, m *cawrm.Mirror, _ *site, _ *events) { fill(v, 1<<40); synced(t, v, m) })
		v := openVolume(t, first, aodi.Options{})
		fill(v, 0)
		check(t, v.Close())
		damage(t, mirrorDisk, 1<<20+7)
		damage(t, first, 1<<20+1100)
		for _, d := range []*disk.Memory{first, mirrorDisk} {
			damage(t, d, 1<<20+1200)
		}
		want := []cawrm.ChunkRange{{First: 7, Count: 1, Why: cawrm.BadAtMirror}, {First: 1100, Count: 1, Why: cawrm.BadAtSource},
			{First: 1200, Count: 1, Why: cawrm.BadEverywhere}, {First: 1500, Count: 2, Why: cawrm.Differs}}
		run(first, func(v *aodi.Volume, m *cawrm.Mirror, b *site, heard *events) {
			if r := verify(t, m, false); !slices.Equal(r.Different, want) || r.OK() {
				t.Errorf("found %+v\nwant  %+v", r.Different, want)
			}
			r := verify(t, m, true)
			for i := range want {
				want[i].Mended = want[i].Why != cawrm.BadEverywhere
			}
			for i := range r.Different {
				if bad := r.Different[i].Why == cawrm.BadEverywhere; bad != strings.Contains(r.Different[i].Error, "no site has it") {
					t.Errorf("%+v", r.Different[i])
				}
				r.Different[i].Error = ""
			}
			if !slices.Equal(r.Different, want) {
				t.Errorf("mended %+v\nwant   %+v", r.Different, want)
			}
			if a, b := v.Status().Mended, b.v.Status().Mended; a != 1 || b != 1 {
				t.Errorf("%d chunks are counted as mended at the source, %d at the mirror", a, b)
			}
			if k := heard.kinds(); !slices.Contains(k, cawrm.EventDiffers) || !slices.Contains(k, cawrm.EventRepaired) {
				t.Errorf("events %v", k)
			}
			synced(t, v, m)
			write(t, v, 1200, 5) // what is lost can be written again
			synced(t, v, m)
			if r := verify(t, m, false); len(r.Different) > 0 {
				t.Errorf("after the repair: %+v", r.Different)
			}
			sameContent(t, v, b.v)
		})
		run(first, func(v *aodi.Volume, m *cawrm.Mirror, b *site, _ *events) { // and it was mended on the disks
			if r := verify(t, m, false); len(r.Different) > 0 {
				t.Errorf("after a restart: %+v", r.Different)
			}
			sameContent(t, v, b.v)
		})
	})
}

// TestVerifyWithoutLink: a comparison that cannot be, or that the link's end interrupts, says so, and the next one is not hindered.
func TestVerifyWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{}
		all.site(t, "b")
		v := newSource(t, 64)
		write(t, v, 1, 1)
		s := all.source(t, v)
		check(t, s.Add("b", "cawrm://b/vm", "paused=true"))
		m := mirrorOf(t, s, "b")
		if _, err := m.Verify(context.Background(), false, nil); err == nil || !strings.Contains(err.Error(), "is not connected") {
			t.Errorf("paused: %v", err)
		}
		check(t, s.Set("b", "paused=false"))
		synced(t, v, m)
		all["b"].set(func(n *network) { n.stalled = true })
		failed := make(chan error, 1)
		go func() { _, err := m.Verify(context.Background(), false, func(int64, int64) {}); failed <- err }()
		time.Sleep(time.Second)
		if _, err := m.Verify(context.Background(), false, nil); err == nil || !strings.Contains(err.Error(), "is being compared already") {
			t.Errorf("beside another: %v", err)
		}
		all["b"].cut()
		if err := <-failed; err == nil || !strings.Contains(err.Error(), "the link was lost") {
			t.Errorf("the link was cut: %v", err)
		}
		all["b"].set(func(n *network) { n.stalled = false })
		synced(t, v, m)
		if r := verify(t, m, false); len(r.Different) > 0 {
			t.Errorf("%+v", r.Different)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := m.Verify(ctx, false, nil); err != context.Canceled {
			t.Errorf("given up: %v", err)
		}
		time.Sleep(time.Second)
		verify(t, m, false)
	})
}

// TestReadIsMended: a client's read of a chunk that does not match its checksum gets what the mirror has, once; without a mirror that has
// it, it fails.
func TestReadIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := members{"b": newNetwork()}
		d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
		mv := newMirror(t)
		newSite(t, all["b"], mv)
		v := openVolume(t, d, aodi.Options{})
		for i := range int64(30) {
			write(t, v, i, uint64(i)+1<<20)
		}
		s := all.source(t, v)
		check(t, s.AddGiven("b", "cawrm://b/vm"))
		synced(t, v, mirrorOf(t, s, "b"))
		s.Close()
		check(t, v.Close())
		damage(t, d, 1<<20+7)
		damage(t, d, 1<<20+9)

		v = openVolume(t, d, aodi.Options{})
		all["b"].set(func(n *network) { n.refused = true })
		s = all.source(t, v)
		check(t, s.AddGiven("b", "cawrm://b/vm"))
		p := make([]byte, 20*chunk)
		var bad *aodi.CorruptError
		if err := s.ReadAt(p, 0); !errors.As(err, &bad) || bad.LBA != 7 {
			t.Errorf("without the mirror: %v", err)
		}
		all["b"].set(func(n *network) { n.refused = false })
		synced(t, v, mirrorOf(t, s, "b"))
		check(t, s.ReadAt(p, 0))
		for i := range 20 {
			if !bytes.Equal(p[i*chunk:][:chunk], stamped(uint64(i)+1<<20)) {
				t.Errorf("chunk %d reads as %s", i, stampOf(p[i*chunk:]))
			}
		}
		if n := v.Status().Mended; n != 2 {
			t.Errorf("%d chunks are counted as mended", n)
		}
		check(t, v.ReadAt(p, 0)) // it is sound on the disk
	})
}

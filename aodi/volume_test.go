package aodi_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"cawrm/aodi"
)

// model is a volume as a byte slice, and which chunks are holes.
type model struct {
	data []byte
	hole []bool
}

func newModel(size int64) *model {
	m := &model{data: make([]byte, size), hole: make([]bool, size/chunk)}
	for i := range m.hole {
		m.hole[i] = true
	}
	return m
}

func (m *model) write(p []byte, off int64) {
	copy(m.data[off:], p)
	for c := off / chunk; c*chunk < off+int64(len(p)); c++ {
		m.hole[c] = false
	}
}

func (m *model) zero(off, n int64, hole bool) {
	first, last := (off+chunk-1)/chunk, (off+n)/chunk
	clear(m.data[off : off+n])
	for c := off / chunk; c*chunk < off+n; c++ {
		if c < first || c >= last {
			m.hole[c] = false
		} else {
			m.hole[c] = hole
		}
	}
}

func (m *model) trim(off, n int64) {
	first, last := (off+chunk-1)/chunk*chunk, (off+n)/chunk*chunk
	if first < last {
		m.zero(first, last-first, true)
	}
}

// check compares all of the volume with the model: content, through random requests, and holes.
func (m *model) check(t *testing.T, v *aodi.Volume, rng *rand.Rand) {
	t.Helper()
	got := make([]byte, len(m.data))
	for off := 0; off < len(got); {
		n := min(len(got)-off, 1+rng.IntN(300000))
		if err := v.ReadAt(got[off:off+n], int64(off)); err != nil {
			t.Fatalf("read %d bytes at %d: %v", n, off, err)
		}
		off += n
	}
	for c := range m.hole {
		if !bytes.Equal(got[c*chunk:(c+1)*chunk], m.data[c*chunk:(c+1)*chunk]) {
			t.Fatalf("chunk %d differs from the model", c)
		}
	}
	at := int64(0)
	err := v.Extents(0, int64(len(got)), func(n int64, flags uint32) bool {
		for ; n > 0; n -= chunk {
			if hole := flags&aodi.ExtentHole != 0; hole != m.hole[at/chunk] {
				t.Fatalf("chunk %d: hole is %v, the model says %v", at/chunk, hole, m.hole[at/chunk])
			}
			at += chunk
		}
		return true
	})
	if err != nil || at != int64(len(got)) {
		t.Fatalf("extents end at %d of %d: %v", at, len(got), err)
	}
	used := int64(0)
	for _, h := range m.hole {
		if !h {
			used += chunk
		}
	}
	if s := v.Status(); s.UsedBytes != used {
		t.Fatalf("used_bytes is %d, the model says %d", s.UsedBytes, used)
	}
}

// step does one random operation to both.
func (m *model) step(t *testing.T, v *aodi.Volume, rng *rand.Rand) {
	t.Helper()
	size := int64(len(m.data))
	off := rng.Int64N(size)
	n := min(1+rng.Int64N([]int64{512, 3 * chunk, 40 * chunk, 400 * chunk}[rng.IntN(4)]), size-off)
	if rng.IntN(2) == 0 {
		off -= off % chunk
		n = min((n+chunk-1)/chunk*chunk, size-off)
	}
	var err error
	switch op := rng.IntN(20); {
	case op < 12:
		p := fill(make([]byte, n), rng)
		err = v.WriteAt(p, off, op == 0)
		m.write(p, off)
	case op < 14:
		err = v.Trim(off, n, op == 12)
		m.trim(off, n)
	case op < 15:
		err = v.WriteZeroes(off, n, false, false)
		m.zero(off, n, true)
	case op < 16:
		err = v.WriteZeroes(off, n, true, false)
		m.zero(off, n, false)
	case op < 18:
		err = v.Flush()
	case op < 19:
		err = v.Checkpoint()
	default:
		p := make([]byte, n)
		if err = v.ReadAt(p, off); err == nil && !bytes.Equal(p, m.data[off:off+n]) {
			t.Fatalf("read of %d bytes at %d differs from the model", n, off)
		}
	}
	if err != nil {
		t.Fatalf("at %d, %d bytes: %v", off, n, err)
	}
}

// TestVolumeEqualsModel ensures that any sequence of requests, checkpoints and reopenings gives what a plain array would.
func TestVolumeEqualsModel(t *testing.T) {
	for _, segment := range []uint32{32, 256} {
		t.Run(fmt.Sprint(segment), func(t *testing.T) {
			seed := seedOf(t)
			rng := newRand(seed)
			const size = 8 << 20
			d := newDisk(t, 4<<30)
			create(t, d, size, segment)
			m := newModel(size)
			for range 6 {
				v := open(t, d, aodi.Options{})
				m.check(t, v, rng)
				for range 120 {
					m.step(t, v, rng)
				}
				m.check(t, v, rng)
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
				check(t, d)
			}
		})
	}
}

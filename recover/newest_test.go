package recovery_test

import (
	"errors"
	"strings"
	"testing"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

// TestNewest ensures which checkpoint is taken, for every pair of states that the two meta chunks can be in, and what is
// said when there is none. Checkpoint 8 belongs into chunk A, 9 into B.
func TestNewest(t *testing.T) {
	type state struct {
		name string
		put  func(b *builder, seq uint64)
		ok   bool
		err  error // what the state is, when it is not valid
	}
	put := func(b *builder, m format.Meta, at int64, change func(p []byte)) {
		p := make([]byte, chunk)
		m.Encode(p)
		if change != nil {
			change(p)
		}
		b.write(p, at*chunk)
	}
	place := func(seq uint64) int64 { return int64(1 + seq%2) }
	with := func(b *builder, seq uint64) format.Meta { m := b.meta; m.Seq = seq; return m }
	states := []state{
		{"valid", func(b *builder, seq uint64) { put(b, with(b, seq), place(seq), nil) }, true, nil},
		{"never written", func(b *builder, seq uint64) { b.write(make([]byte, chunk), place(seq)*chunk) }, false, format.ErrMagic},
		{"torn at its end", func(b *builder, seq uint64) {
			put(b, with(b, seq), place(seq), func(p []byte) { clear(p[3584:]) })
		}, false, format.ErrChecksum},
		{"torn at its start", func(b *builder, seq uint64) {
			put(b, with(b, seq), place(seq), func(p []byte) { clear(p[:512]) })
		}, false, format.ErrMagic},
		{"of another version", func(b *builder, seq uint64) {
			put(b, with(b, seq), place(seq), func(p []byte) { p[8] = 2 })
		}, false, format.ErrVersion},
		{"of another container", func(b *builder, seq uint64) {
			m := with(b, seq)
			m.Container[0]++
			put(b, m, place(seq), nil)
		}, false, format.ErrInvalid},
		{"out of range", func(b *builder, seq uint64) {
			m := with(b, seq)
			m.MapHeight = 9
			put(b, m, place(seq), nil)
		}, false, format.ErrInvalid},
	}
	for _, even := range states {
		for _, odd := range states {
			for _, newer := range []uint64{8, 9} {
				t.Run(even.name+" and "+odd.name, func(t *testing.T) {
					b := newBuilder(t)
					seqA, seqB := uint64(8), uint64(9)
					if newer == 8 {
						seqB = 7
					}
					even.put(b, seqA)
					odd.put(b, seqB)
					c, err := recovery.Newest(b.d)
					if !even.ok && !odd.ok {
						if err == nil || !errors.Is(err, even.err) || !errors.Is(err, odd.err) || !strings.Contains(err.Error(), "mirror") {
							t.Fatalf("%v", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					want, other := seqA, odd
					if !even.ok || odd.ok && seqB > seqA {
						want, other = seqB, even
					}
					if c.Meta.Seq != want {
						t.Errorf("checkpoint %d was taken, want %d", c.Meta.Seq, want)
					}
					silent := other.ok || other.err == format.ErrMagic
					if (c.Stale == nil) != silent || !silent && !errors.Is(c.Stale, other.err) {
						t.Errorf("of the other one is said: %v", c.Stale)
					}
				})
			}
		}
	}
}

// TestNewestRefuses ensures that what is no container, or not all of one, is told apart and said with what to do.
func TestNewestRefuses(t *testing.T) {
	super := func(change func(p []byte)) func(b *builder) disk.Disk {
		return func(b *builder) disk.Disk {
			p := make([]byte, chunk)
			b.super.Encode(p)
			change(p)
			b.write(p, 0)
			return b.d
		}
	}
	for _, row := range []struct {
		name  string
		build func(b *builder) disk.Disk
		want  error
		says  string
	}{
		{"empty", func(b *builder) disk.Disk { return newDisk(b.t) }, format.ErrMagic, "create"},
		{"short", func(b *builder) disk.Disk {
			d := newDisk(b.t)
			b.must(d.Grow(format.DataStart*chunk - 1))
			return d
		}, format.ErrMagic, "create"},
		{"zeroes", super(func(p []byte) { clear(p) }), format.ErrMagic, "create"},
		{"another program's", super(func(p []byte) { copy(p, "QFI\xfb") }), format.ErrMagic, "create"},
		{"another version", super(func(p []byte) { p[8] = 2 }), format.ErrVersion, "program that wrote it"},
		{"a damaged super chunk", super(func(p []byte) { p[100] = 1 }), format.ErrChecksum, "mirror"},
		{"truncated", func(b *builder) disk.Disk {
			b.meta.Segments = 17
			b.writeMeta(b.meta)
			return b.d
		}, nil, "truncated"},
		{"more segments than there can be", func(b *builder) disk.Disk {
			b.meta.Segments = format.PhysLimit
			b.writeMeta(b.meta)
			return b.d
		}, format.ErrInvalid, "mirror"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := row.build(newBuilder(t))
			_, err := recovery.Newest(d)
			if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), d.Name()) {
				t.Errorf("%v", err)
			}
		})
	}
	boom := errors.New("boom")
	b := newBuilder(t)
	for fail := 1; fail <= 3; fail++ {
		n := 0
		f := &disk.Faulty{Disk: b.d, Rule: func(disk.Op, int64, int) error {
			if n++; n == fail {
				return boom
			}
			return nil
		}}
		if _, err := recovery.Newest(f); !errors.Is(err, boom) {
			t.Errorf("read %d failed: %v", fail, err)
		}
	}
}

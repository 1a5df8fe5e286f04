package recovery_test

import (
	"errors"
	"strings"
	"testing"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	recovery "cawrm/recover"
)

const commit = format.FlagCommit

// TestRoll ensures what follows what: each row breaks one of R1 to R4, or uses the flags, on a log that begins
// at position 100. Rows that want nothing of stop end with what was never written.
func TestRoll(t *testing.T) {
	never := format.ErrMagic.Error()
	for _, row := range []struct {
		name  string
		build func(b *builder)
		// What is expected of the roll.
		batches, void int
		end           format.Position // of the last batch applied; 100: none
		stop          string
		err           error
	}{
		{"nothing after the checkpoint", func(b *builder) {}, 0, 0, 100, never, nil},
		{"some batches", func(b *builder) { b.add(1, commit); b.add(3, commit); b.add(2, commit) }, 3, 0, 106, never, nil},
		{"a checkpoint in the middle", func(b *builder) { b.add(1, commit); b.checkpoint(); b.add(3, commit) }, 1, 0, 104, never, nil},
		{"a batch without data", func(b *builder) {
			b.addChanged(0, commit, func(h *format.BatchHeader, _ []byte) {
				h.Entries = append(h.Entries, format.Entry{Birth: 100, LBA: 7, Kind: format.KindDiscard, Count: 9})
				h.End++
			})
			b.add(1, commit)
		}, 2, 0, 102, never, nil},

		{"R1 over the end of a segment", func(b *builder) { b.fill(); b.add(2, commit) }, 4, 0, 129, never, nil},
		{"R1 over two ends", func(b *builder) { b.fill(); b.add(2, commit); b.fill(); b.add(1, commit) }, 8, 0, 155, never, nil},
		{"R1 at the end of a segment, the next one not begun", func(b *builder) { b.fill() }, 3, 0, 127, never, nil},
		{"R1 one chunk is left, which holds no batch", func(b *builder) { b.add(15, commit); b.add(13, commit); b.add(1, commit) }, 3, 0, 129, never, nil},
		{"R1 two chunks are left, and are used", func(b *builder) { b.add(15, commit); b.add(12, commit); b.add(1, commit) }, 3, 0, 128, never, nil},
		{"R1 reaches into the summary", func(b *builder) {
			b.add(20, commit)
			h, data := b.header(12, commit)
			p := make([]byte, chunk)
			h.Encode(p)
			b.write(append(p, data...), b.off(recovery.Place{Segment: 0, Chunk: 21}))
		}, 1, 0, 120, "does not fit", nil},
		{"R1 goes on where the disk ends", func(b *builder) {
			b.log.Next, b.meta.Log.Next = 1<<15, 1<<15
			b.writeMeta(b.meta)
			b.fill()
		}, 3, 0, 127, "beyond the end", nil},

		{"R2 a gap in the sequence", func(b *builder) {
			b.add(1, commit)
			b.addChanged(1, commit, func(h *format.BatchHeader, _ []byte) { h.Seq++ })
		}, 1, 0, 101, "batch 12, not 11", nil},
		{"R2 another container", func(b *builder) {
			b.addChanged(1, commit, func(h *format.BatchHeader, _ []byte) { h.Tag++ })
		}, 0, 0, 100, "another container", nil},
		{"R2 an earlier incarnation's batch that follows in all else", func(b *builder) {
			b.add(1, commit)
			b.inc--
			b.add(1, commit)
		}, 1, 0, 101, "incarnation 2, not 3", nil},
		{"R2 a later incarnation's batch that does not follow", func(b *builder) {
			b.add(1, commit)
			b.inc++
			b.addChanged(1, commit, func(h *format.BatchHeader, _ []byte) { h.PrevCRC++ })
		}, 1, 0, 101, "incarnation 4, not 3", nil},
		{"R2 a later incarnation's batch that follows: a checkpoint was lost", func(b *builder) {
			b.add(1, commit)
			b.inc++
			b.add(1, commit)
		}, 1, 0, 101, "", recovery.ErrLostCheckpoint},
		{"R2 a batch of map pages", func(b *builder) {
			b.addChanged(1, commit, func(h *format.BatchHeader, _ []byte) { h.Kind = format.BatchMeta })
		}, 0, 0, 100, "not a batch of the log", nil},

		{"R3 another batch before it", func(b *builder) {
			b.add(1, commit)
			b.addChanged(1, commit, func(h *format.BatchHeader, _ []byte) { h.PrevCRC++ })
			b.add(1, commit)
		}, 1, 0, 101, "follows another batch", nil},
		{"R3 a stale chain: the batch before was written again", func(b *builder) {
			b.add(1, commit)
			log, end, logged := b.log, b.end, b.logged
			b.add(2, commit)
			b.add(3, commit) // what an earlier life left behind its crash
			b.log, b.end, b.logged = log, end, logged
			b.addChanged(2, commit, func(h *format.BatchHeader, _ []byte) { h.Time++ })
		}, 2, 0, 103, "follows another batch", nil},

		{"R4 data are torn", func(b *builder) {
			b.add(1, commit)
			at := b.add(4, commit)
			b.damage(at, 2, 512)
			b.add(1, commit)
		}, 1, 0, 101, format.ErrChecksum.Error(), nil},
		{"R4 the last sector of the data is not there", func(b *builder) {
			at := b.addChanged(1, commit, func(h *format.BatchHeader, data []byte) {
				data[chunk-1] = 1
				h.Entries[0].CRC = format.Sum(data)
			})
			b.damage(at, 1, chunk-1)
		}, 0, 0, 100, format.ErrChecksum.Error(), nil},
		{"a header is torn", func(b *builder) {
			b.add(1, commit)
			at := b.add(4, commit)
			b.damage(at, 0, 2000)
			b.add(1, commit)
		}, 1, 0, 101, format.ErrChecksum.Error(), nil},
		{"a batch in the middle is missing, later ones are there", func(b *builder) {
			b.add(1, commit)
			at := b.add(4, commit)
			b.add(1, commit)
			b.wipe(at, 5)
		}, 1, 0, 101, never, nil},
		{"a batch of another version", func(b *builder) {
			b.add(1, commit)
			at := b.add(1, commit)
			b.damage(at, 0, 4)
		}, 1, 0, 101, format.ErrVersion.Error(), nil},

		{"commit: an epoch of three batches", func(b *builder) { b.add(1, 0); b.add(2, 0); b.add(3, commit) }, 3, 0, 106, never, nil},
		{"commit: the tail of an epoch is void", func(b *builder) { b.add(1, commit); b.add(2, 0); b.add(3, 0) }, 1, 2, 101, never, nil},
		{"commit: nothing but a tail", func(b *builder) { b.add(1, 0) }, 0, 1, 100, never, nil},
		{"commit: the batch that commits is torn", func(b *builder) {
			b.add(1, commit)
			b.add(2, 0)
			b.damage(b.add(3, commit), 1, 0)
		}, 1, 1, 101, format.ErrChecksum.Error(), nil},
		{"commit: an epoch over the end of a segment", func(b *builder) { b.add(20, 0); b.add(9, 0); b.add(3, commit) }, 3, 0, 132, never, nil},
		{"commit: a batch without records ends an epoch", func(b *builder) { b.add(2, 0); b.add(0, commit) }, 2, 0, 102, never, nil},
		{"restart: what was not committed is void", func(b *builder) {
			b.add(1, commit)
			b.add(2, 0)
			b.end -= 2
			b.add(3, format.FlagRestart|commit)
		}, 2, 1, 104, never, nil},
		{"restart: twice, then a tail", func(b *builder) {
			b.add(1, commit)
			b.add(2, 0)
			b.end -= 2
			b.add(4, format.FlagRestart)
			b.end -= 4
			b.add(1, format.FlagRestart|commit)
			b.add(1, 0)
		}, 2, 3, 102, never, nil},
		{"restart: with nothing to void", func(b *builder) { b.add(1, format.FlagRestart|commit) }, 1, 0, 101, never, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBuilder(t)
			row.build(b)
			got, end, err := roll(t, b.d)
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if got.Batches != row.batches || got.Void != row.void || end != row.end {
				t.Errorf("%d batches applied, %d void, end %d; want %d, %d, %d", got.Batches, got.Void, end, row.batches, row.void, row.end)
			}
			if row.err == nil && !strings.Contains(got.Stop.Error(), row.stop) {
				t.Errorf("it stopped since %q, want %q", got.Stop, row.stop)
			}
		})
	}
}

// roll rolls a container forward and looks at what must hold of any roll: batches come in order, each from where the one
// before ended, and the log goes on behind the last.
func roll(t *testing.T, d disk.Disk) (recovery.Rolled, format.Position, error) {
	t.Helper()
	c, err := recovery.Newest(d)
	if err != nil {
		t.Fatal(err)
	}
	end, after := c.Meta.Position, c.Meta.Log
	records := uint64(0)
	got, err := recovery.Roll(d, c, func(h *format.BatchHeader, at recovery.Place) error {
		if h.First != end {
			t.Errorf("batch %d begins at %d, the log ended at %d", h.Seq, h.First, end)
		}
		if at != (recovery.Place{Segment: after.Segment, Chunk: after.Chunk}) && (at.Chunk != 0 || at.Segment != after.Next) &&
			h.Flags&format.FlagRestart == 0 {
			t.Errorf("batch %d stands at %v, the one before said %+v", h.Seq, at, after)
		}
		end, records = h.End, records+uint64(len(h.Entries))
		after = format.LogPlace{Segment: at.Segment, Chunk: at.Chunk + h.Chunks(), Next: h.Next, Seq: h.Seq + 1}
		return nil
	})
	after.PrevCRC = got.Log.PrevCRC
	if err == nil && (got.Log != after || got.Records != records) {
		t.Errorf("the log goes on at %+v with %d records, want %+v with %d", got.Log, got.Records, after, records)
	}
	return got, end, err
}

// TestRollTwice ensures that rolling what was not applied gives the same again.
func TestRollTwice(t *testing.T) {
	b := newBuilder(t)
	b.fill()
	b.add(2, commit)
	b.add(3, 0)
	first, end, _ := roll(t, b.d)
	second, again, _ := roll(t, b.d)
	if first.Log != second.Log || first.Batches != second.Batches || end != again {
		t.Errorf("%+v, then %+v", first, second)
	}
}

// TestRollErrors ensures that an error of the disk, or of who applies, is not taken for the end of the log.
func TestRollErrors(t *testing.T) {
	boom := errors.New("boom")
	b := newBuilder(t)
	b.add(1, 0)
	b.add(2, commit)
	b.add(2, commit)
	c, err := recovery.Newest(b.d)
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	for fail := 1; ; fail++ {
		reads = 0
		f := &disk.Faulty{Disk: b.d, Rule: func(op disk.Op, _ int64, _ int) error {
			if reads++; reads == fail {
				return boom
			}
			return nil
		}}
		got, err := recovery.Roll(f, c, func(*format.BatchHeader, recovery.Place) error { return nil })
		if reads < fail {
			if err != nil || got.Batches != 3 {
				t.Fatalf("without a failure: %+v, %v", got, err)
			}
			break
		}
		if !errors.Is(err, boom) {
			t.Errorf("read %d failed: %+v, %v", fail, got, err)
		}
	}
	if _, err := recovery.Roll(b.d, c, func(*format.BatchHeader, recovery.Place) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("apply failed: %v", err)
	}
}

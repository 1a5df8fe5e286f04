package wire

import (
	"fmt"
	"io"

	"cawrm/aodi/format"
)

// Records is a run of records in the order of the log: positions [First, End).
type Records struct {
	First, End format.Position
	Time       int64 // of the first record, unix nanoseconds
	Commit     bool  // an epoch ends at End
	Jump       bool  // of a jump epoch over [First, End)
	Entries    []format.Entry
	Data       []byte // one chunk for each data entry, in order
}

const (
	recordsFixed = 32
	entrySize    = 24
	maxLBA       = 1<<48 - 1
)

// AppendRecords appends a RECORDS frame up to its data, which the caller sends behind it. Errors: ErrInvalid when
// the peer's decoder would refuse the frame.
func AppendRecords(b []byte, rec *Records) ([]byte, error) {
	if err := rec.check(len(rec.Data)); err != nil {
		return b, err
	}
	at := len(b)
	var flags uint8
	if rec.Commit {
		flags = flagCommit
	}
	if rec.Jump {
		flags |= flagJump
	}
	b = beginFrame(b, TypeRecords, flags)
	b = le.AppendUint64(b, uint64(rec.First))
	b = le.AppendUint64(b, uint64(rec.End))
	b = le.AppendUint64(b, uint64(rec.Time))
	b = le.AppendUint32(b, uint32(len(rec.Entries)))
	b = le.AppendUint32(b, uint32(len(rec.Data)/format.ChunkSize))
	for i := range rec.Entries {
		e := &rec.Entries[i]
		b = le.AppendUint64(b, uint64(e.Birth))
		b = le.AppendUint64(b, e.LBA&maxLBA|uint64(e.Kind)<<48)
		b = le.AppendUint32(b, e.Count)
		b = le.AppendUint32(b, e.CRC)
	}
	return endFrame(b, at, len(rec.Data)), nil
}

// recordsControl reads the control part of a RECORDS frame of n bytes. The numbers in it must add up to n,
// which is bounded, before they are used.
func (r *Reader) recordsControl(n int) error {
	fixed := r.grow(recordsFixed)
	if _, err := io.ReadFull(r.r, fixed); err != nil {
		return err
	}
	entries, chunks := int64(le.Uint32(fixed[24:])), int64(le.Uint32(fixed[28:]))
	if entries > MaxEntries || recordsFixed+entries*entrySize+chunks*format.ChunkSize != int64(n) {
		return fmt.Errorf("%d entries and %d chunks in %d bytes: %w", entries, chunks, n, ErrInvalid)
	}
	r.data = int(chunks) * format.ChunkSize
	return r.control(int(entries) * entrySize)
}

// Records decodes the RECORDS that Next has read into rec, reusing its slices, and reads the data behind it.
// The data's checksums are not verified. Errors: ErrInvalid; what the reader below says.
func (r *Reader) Records(rec *Records) error {
	b := r.body
	entries := rec.Entries[:0]
	for e := b[recordsFixed:]; len(e) > 0; e = e[entrySize:] {
		w := le.Uint64(e[8:])
		if w>>56 != 0 {
			return fmt.Errorf("RECORDS: entry %d: %w", len(entries), ErrInvalid)
		}
		entries = append(entries, format.Entry{Birth: format.Position(le.Uint64(e)), LBA: w & maxLBA,
			Kind: format.Kind(w >> 48), Count: le.Uint32(e[16:]), CRC: le.Uint32(e[20:])})
	}
	data := rec.Data[:0]
	*rec = Records{First: format.Position(le.Uint64(b)), End: format.Position(le.Uint64(b[8:])),
		Time: int64(le.Uint64(b[16:])), Commit: r.head[5]&flagCommit != 0, Jump: r.head[5]&flagJump != 0, Entries: entries, Data: data}
	if err := rec.check(r.data); err != nil {
		return err
	}
	if cap(data) < r.data {
		data = make([]byte, r.data)
	}
	rec.Data = data[:r.data]
	r.data = 0
	if _, err := io.ReadFull(r.r, rec.Data); err != nil {
		return fmt.Errorf("RECORDS: %w", unexpectedEOF(err))
	}
	return nil
}

// check refuses what no volume could have logged, with data bytes of data.
func (rec *Records) check(data int) error {
	bad := func(what string, i int) error {
		return fmt.Errorf("RECORDS [%d, %d): entry %d: %s: %w", rec.First, rec.End, i, what, ErrInvalid)
	}
	size := recordsFixed + len(rec.Entries)*entrySize + data
	if rec.End <= rec.First || len(rec.Entries) > MaxEntries || size > MaxRecords {
		return fmt.Errorf("RECORDS [%d, %d) of %d entries, %d bytes: %w", rec.First, rec.End, len(rec.Entries), size, ErrInvalid)
	}
	chunks, next, lba := 0, rec.First, uint64(0)
	for i := range rec.Entries {
		e := &rec.Entries[i]
		if e.Birth < next || e.Birth >= rec.End {
			return bad("birth out of order", i)
		}
		if rec.Jump {
			if e.LBA < lba {
				return bad("chunk out of order", i)
			}
			lba = e.LBA + uint64(e.Count)
		} else {
			next = e.Birth + 1
		}
		switch e.Kind {
		case format.KindData:
			chunks++
			if e.Count != 1 {
				return bad("count", i)
			}
		case format.KindDiscard, format.KindZero:
			if e.Count == 0 {
				return bad("count", i)
			}
		default:
			return bad("kind", i)
		}
		if e.Level != 0 || e.LBA+uint64(e.Count) > format.MaxLogicalSize/format.ChunkSize {
			return bad("place", i)
		}
	}
	if chunks*format.ChunkSize != data {
		return fmt.Errorf("RECORDS [%d, %d): %d data entries with %d bytes of data: %w", rec.First, rec.End, chunks, data, ErrInvalid)
	}
	return nil
}

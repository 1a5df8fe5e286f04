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

// AppendRecords appends a RECORDS frame up to its data, which the caller sends behind it: rec.Data as it is. Errors: ErrInvalid
// when the peer's decoder would refuse the frame.
func AppendRecords(b []byte, rec *Records) ([]byte, error) {
	if err := rec.check(len(rec.Data)); err != nil {
		return b, err
	}
	at := len(b)
	b = beginRecords(b, rec)
	for i := range rec.Entries {
		b = appendEntry(b, &rec.Entries[i], FormPlain, rec.Entries[i].Count)
	}
	endRecords(b[at:], len(rec.Data), len(rec.Data), false)
	return b, nil
}

// beginRecords appends what stands before the entries. endRecords fills in what is known only behind them.
func beginRecords(b []byte, rec *Records) []byte {
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
	return le.AppendUint32(b, 0)
}

func appendEntry(b []byte, e *format.Entry, form Form, count uint32) []byte {
	b = le.AppendUint64(b, uint64(e.Birth))
	b = le.AppendUint64(b, e.LBA&maxLBA|uint64(e.Kind)<<48|uint64(form)<<56)
	b = le.AppendUint32(b, count)
	return le.AppendUint32(b, e.CRC)
}

// endRecords completes the frame that is all of b but its data: plain bytes, of which sent go on the wire.
func endRecords(b []byte, plain, sent int, packed bool) {
	if packed {
		b[5] |= flagPacked
	}
	le.PutUint32(b[headerSize+28:], uint32(plain))
	endFrame(b, 0, sent)
}

// recordsControl reads the control part of a RECORDS frame of n bytes. The numbers in it must add up to n,
// which is bounded, before they are used.
func (r *Reader) recordsControl(n int) error {
	fixed := r.grow(recordsFixed)
	if err := r.full(fixed); err != nil {
		return err
	}
	if r.head[5]&flagTerse != 0 {
		return r.terseControl(n)
	}
	entries, plain := int64(le.Uint32(fixed[24:])), int64(le.Uint32(fixed[28:]))
	data := int64(n) - recordsFixed - entries*entrySize
	if entries > MaxEntries || !adds(plain, data, r.head[5]&flagPacked != 0) {
		return fmt.Errorf("%d entries and %d bytes of data in %d bytes: %w", entries, plain, n, ErrInvalid)
	}
	r.data = int(data)
	return r.control(int(entries) * entrySize)
}

// adds tells whether so many bytes on the wire can be so many of data.
func adds(plain, data int64, packed bool) bool {
	return plain <= MaxRecords && data >= 0 && (packed && data < plain || !packed && data == plain)
}

// Records decodes the RECORDS that Next has read into rec, reusing its slices, and reads the data behind it.
// The data's checksums are not verified. Errors: ErrInvalid; ErrReference; what the reader below says.
func (r *Reader) Records(rec *Records) error {
	b := r.body
	plain := int(le.Uint32(b[28:]))
	rec.First, rec.End, rec.Time = format.Position(le.Uint64(b)), format.Position(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))
	rec.Commit, rec.Jump = r.head[5]&flagCommit != 0, r.head[5]&flagJump != 0
	rows, terse := b[recordsFixed:], r.head[5]&flagTerse != 0
	if terse {
		var err error
		if rows, err = r.unfold(); err != nil {
			return err
		}
	}
	if err := r.entries(rec, rows, plain); err != nil {
		return err
	}
	if err := rec.check(len(r.forms) * format.ChunkSize); err != nil {
		return err
	}
	rec.Data = sized(rec.Data, len(r.forms)*format.ChunkSize)
	sent := rec.Data[:min(plain, len(rec.Data))] // where it is to be, but for what was left out
	if plain < len(rec.Data) {
		r.unpack.plain = sized(r.unpack.plain, plain)
		sent = r.unpack.plain
	}
	packed := r.head[5]&flagPacked != 0
	if packed {
		r.unpack.packed = sized(r.unpack.packed, r.data)
		sent = r.unpack.packed
	}
	r.data = 0
	if _, err := io.ReadFull(r.r, sent); err != nil {
		return fmt.Errorf("RECORDS: %w", unexpectedEOF(err))
	}
	if packed {
		into := rec.Data
		if plain < len(into) {
			into = r.unpack.plain
		}
		dec := r.unpack.decoder()
		if terse && len(r.unpack.dict) > 0 {
			dec = r.unpack.dictDecoder()
		}
		if err := r.unpack.expand(dec, into, r.unpack.packed); err != nil {
			return err
		}
		sent = into
	}
	return r.unpack.fill(rec, r.forms, sent)
}

// entries decodes the entries into rec, and how the data of each is told into r.forms. That must make up plain bytes.
func (r *Reader) entries(rec *Records, b []byte, plain int) error {
	rec.Entries, r.forms = rec.Entries[:0], r.forms[:0]
	has := 0 // bytes of data that the entries are told with
	for ; len(b) > 0; b = b[entrySize:] {
		w := le.Uint64(b[8:])
		e := format.Entry{Birth: format.Position(le.Uint64(b)), LBA: w & maxLBA, Kind: format.Kind(w >> 48), Count: le.Uint32(b[16:]), CRC: le.Uint32(b[20:])}
		form := Form(w >> 56)
		if form > FormDelta || form != FormPlain && e.Kind != format.KindData {
			return fmt.Errorf("RECORDS: entry %d: form %d: %w", len(rec.Entries), form, ErrInvalid)
		}
		if e.Kind == format.KindData {
			r.forms = append(r.forms, told{form, e.Count})
			switch form {
			case FormPlain:
				has += format.ChunkSize
			case FormDelta:
				has += format.ChunkSize
				e.Count = 1
			case FormRepeat:
				e.Count = 1
			}
		}
		rec.Entries = append(rec.Entries, e)
	}
	if has != plain {
		return fmt.Errorf("RECORDS [%d, %d): its %d data entries have %d bytes, the data %d: %w", rec.First, rec.End, len(r.forms), has, plain, ErrInvalid)
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
		if e.Birth < next && !rec.Jump || e.Birth >= rec.End {
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
		case format.KindDiscard, format.KindZero, format.KindSize:
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

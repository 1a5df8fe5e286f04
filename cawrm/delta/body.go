package delta

import (
	"bytes"
	"fmt"
	"io"

	"cawrm/aodi/format"
)

const (
	bodyFixed = 8
	entrySize = 24
	endSize   = 48
	maxLBA    = 1<<48 - 1
)

// Write adds entries, with a chunk of data for each data entry. Errors: ErrInvalid, when no Reader would take them; the
// writer's below.
func (w *Writer) Write(entries []format.Entry, data []byte) error {
	if err := w.head.checkBody(entries, len(data), &w.lba); err != nil {
		return err
	}
	b := le.AppendUint32(w.plain[:0], uint32(len(entries)))
	b = le.AppendUint32(b, uint32(len(data)/format.ChunkSize))
	for i := range entries {
		e := &entries[i]
		b = le.AppendUint64(b, uint64(e.Birth))
		b = le.AppendUint64(b, e.LBA&maxLBA|uint64(e.Kind)<<48)
		b = le.AppendUint32(b, e.Count)
		b = le.AppendUint32(b, e.CRC)
	}
	w.plain = append(b, data...)
	w.entries, w.data = w.entries+uint64(len(entries)), w.data+uint64(len(data)/format.ChunkSize)
	return w.frame(typeBody, w.plain)
}

// Close ends the file. Without it no Reader takes it as whole.
func (w *Writer) Close() error {
	b := le.AppendUint64(nil, w.entries)
	b = le.AppendUint64(b, w.data)
	return w.frame(typeEnd, w.sum.Sum(b))
}

// Next returns the next entries and their data, which are valid until the next call. Errors: io.EOF, when the file has ended and
// all of it is as it was written; io.ErrUnexpectedEOF, when it breaks off; ErrMagic, ErrVersion, ErrChecksum, ErrInvalid;
// the reader's below. They stay.
func (r *Reader) Next() ([]format.Entry, []byte, error) {
	if r.over != nil {
		return nil, nil, r.over
	}
	entries, data, err := r.body()
	r.over = err
	return entries, data, err
}

func (r *Reader) body() ([]format.Entry, []byte, error) {
	kind, b, before, err := r.next()
	switch {
	case err != nil:
		return nil, nil, unexpected(err)
	case kind == typeEnd:
		return nil, nil, r.end(b, before)
	case kind != typeBody || len(b) < bodyFixed:
		return nil, nil, r.at(ErrInvalid)
	}
	n, chunks := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if n > MaxEntries || bodyFixed+n*entrySize+chunks*format.ChunkSize != int64(len(b)) {
		return nil, nil, r.at(fmt.Errorf("%w: %d entries and %d chunks in %d bytes", ErrInvalid, n, chunks, len(b)))
	}
	entries := make([]format.Entry, n)
	for i := range entries {
		e := b[bodyFixed+i*entrySize:]
		word := le.Uint64(e[8:])
		if word>>56 != 0 {
			return nil, nil, r.at(ErrInvalid)
		}
		entries[i] = format.Entry{Birth: format.Position(le.Uint64(e)), LBA: word & maxLBA, Kind: format.Kind(word >> 48),
			Count: le.Uint32(e[16:]), CRC: le.Uint32(e[20:])}
	}
	data := b[bodyFixed+int(n)*entrySize:]
	if err := r.head.checkBody(entries, len(data), &r.lba); err != nil {
		return nil, nil, r.at(err)
	}
	for i, at := 0, 0; i < len(entries); i++ {
		if e := &entries[i]; e.Kind == format.KindData {
			if format.Sum(data[at:at+format.ChunkSize]) != e.CRC {
				return nil, nil, r.at(fmt.Errorf("chunk %d: %w", e.LBA, ErrChecksum))
			}
			at += format.ChunkSize
		}
	}
	r.entries, r.data = r.entries+uint64(n), r.data+uint64(chunks)
	return entries, data, nil
}

// end holds the last frame against what has come. Nothing may follow.
func (r *Reader) end(b, sum []byte) error {
	if len(b) != endSize || le.Uint64(b) != r.entries || le.Uint64(b[8:]) != r.data {
		return r.at(fmt.Errorf("%w: END does not count what has come", ErrInvalid))
	}
	if !bytes.Equal(b[16:], sum) {
		return r.at(ErrChecksum)
	}
	if n, err := io.ReadFull(r.r, r.header[:1]); n > 0 {
		return fmt.Errorf("%w: more bytes behind its end", ErrInvalid)
	} else if err != io.EOF {
		return err
	}
	return io.EOF
}

// checkBody refuses entries that cannot be of this file, with data bytes of data. lba is what the data entries must not go below.
func (h *Head) checkBody(entries []format.Entry, data int, lba *uint64) error {
	size := uint64(h.Size / format.ChunkSize)
	chunks, next := 0, uint64(0)
	if len(entries) == 0 || len(entries) > MaxEntries || bodyFixed+len(entries)*entrySize+data > MaxPayload {
		return fmt.Errorf("%w: %d entries with %d bytes", ErrInvalid, len(entries), data)
	}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Birth < h.From || e.Birth >= h.To || e.Level != 0:
			return fmt.Errorf("%w: entry %d was born at %d, outside [%d, %d)", ErrInvalid, i, e.Birth, h.From, h.To)
		case e.Count == 0 || e.LBA >= size || uint64(e.Count) > size-e.LBA || e.LBA < next:
			return fmt.Errorf("%w: entry %d is of chunk %d", ErrInvalid, i, e.LBA)
		case e.Kind == format.KindData && (e.Count != 1 || e.LBA < *lba):
			return fmt.Errorf("%w: entry %d is of chunk %d again", ErrInvalid, i, e.LBA)
		case e.Kind == format.KindData:
			chunks++
			*lba = e.LBA + 1
		case e.Kind != format.KindDiscard && e.Kind != format.KindZero && e.Kind != format.KindSize:
			return fmt.Errorf("%w: entry %d is of kind %d", ErrInvalid, i, e.Kind)
		}
		next = e.LBA + uint64(e.Count)
	}
	if chunks*format.ChunkSize != data {
		return fmt.Errorf("%w: %d data entries with %d bytes of data", ErrInvalid, chunks, data)
	}
	return nil
}

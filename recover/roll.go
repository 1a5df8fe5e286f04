package recovery

import (
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// Place is where a batch stands.
type Place struct{ Segment, Chunk uint32 }

// Rolled says what Roll found.
type Rolled struct {
	Log     format.LogPlace // where the next batch goes, after the last one that was applied
	Batches int             // applied
	Records uint64
	Bytes   int64 // read from the log, data and headers
	Void    int   // batches found after the last commit, and left out
	Stop    error // why the chain ended: what stands at Log
}

// roller follows the chain and holds back what is not committed.
type roller struct {
	d       disk.Disk
	c       *Container
	apply   func(*format.BatchHeader, Place) error
	at      format.LogPlace
	buf     []byte
	pending []heldBatch
	res     Rolled
}

type heldBatch struct {
	h     format.BatchHeader
	place Place
	after format.LogPlace
}

// Roll follows the log from the checkpoint and calls apply for each committed batch, in order. The header
// passed to apply is valid only during the call. An error is one of the disk or of apply; the end of the
// chain is none.
func Roll(d disk.Disk, c *Container, apply func(h *format.BatchHeader, at Place) error) (Rolled, error) {
	r := &roller{d: d, c: c, apply: apply, at: c.Meta.Log, buf: make([]byte, (1+format.MaxEntries)*format.ChunkSize)}
	r.res.Log = r.at
	for {
		var held heldBatch
		more, err := r.next(&held)
		if err != nil || !more {
			r.res.Void = len(r.pending)
			return r.res, err
		}
		if held.h.Flags&format.FlagRestart != 0 {
			r.pending = r.pending[:0]
		}
		r.pending = append(r.pending, held)
		if held.h.Commits() {
			if err := r.commit(); err != nil {
				return r.res, err
			}
		}
	}
}

// next reads the batch that follows, or says by r.res.Stop why there is none.
func (r *roller) next(held *heldBatch) (bool, error) {
	if !Fits(r.c.Geo, r.at.Chunk) {
		r.at.Segment, r.at.Chunk, r.at.Next = r.at.Next, 0, 0
	}
	off := int64(r.c.Geo.Phys(r.at.Segment, r.at.Chunk)) * format.ChunkSize
	if off+format.ChunkSize > r.d.Size() {
		r.res.Stop = fmt.Errorf("segment %d lies beyond the end", r.at.Segment)
		return false, nil
	}
	if err := r.d.ReadAt(r.buf[:format.ChunkSize], off); err != nil {
		return false, err
	}
	h := &held.h
	if r.res.Stop = h.Decode(r.buf); r.res.Stop == nil {
		r.res.Stop = r.follows(h)
	}
	if r.res.Stop != nil {
		return false, nil
	}
	data := r.buf[format.ChunkSize : format.ChunkSize*int64(h.Chunks())]
	if off+format.ChunkSize+int64(len(data)) > r.d.Size() {
		r.res.Stop = fmt.Errorf("its data lie beyond the end")
		return false, nil
	}
	if err := r.d.ReadAt(data, off+format.ChunkSize); err != nil {
		return false, err
	}
	if r.res.Stop = VerifyData(h, data); r.res.Stop != nil { // R4
		return false, nil
	}
	held.place = Place{r.at.Segment, r.at.Chunk}
	r.at = format.LogPlace{Segment: r.at.Segment, Chunk: r.at.Chunk + h.Chunks(), Next: h.Next,
		PrevCRC: format.HeaderCRC(r.buf), Seq: h.Seq + 1}
	held.after = r.at
	r.res.Bytes += int64(h.Chunks()) * format.ChunkSize
	return true, nil
}

// follows checks R2, R3 and that the batch fits where it stands.
func (r *roller) follows(h *format.BatchHeader) error {
	switch m := &r.c.Meta; {
	case h.Tag != r.c.Tag():
		return fmt.Errorf("a batch of another container")
	case h.Kind != format.BatchLog:
		return fmt.Errorf("not a batch of the log")
	case h.Incarnation != m.Incarnation:
		return fmt.Errorf("a batch of incarnation %d, not %d", h.Incarnation, m.Incarnation)
	case h.Seq != r.at.Seq:
		return fmt.Errorf("batch %d, not %d", h.Seq, r.at.Seq)
	case h.PrevCRC != r.at.PrevCRC:
		return fmt.Errorf("batch %d follows another batch than the one before it", h.Seq)
	case r.at.Chunk+h.Chunks() > r.c.Geo.Slots():
		return fmt.Errorf("batch %d does not fit its segment", h.Seq)
	}
	return nil
}

func (r *roller) commit() error {
	for i := range r.pending {
		p := &r.pending[i]
		if err := r.apply(&p.h, p.place); err != nil {
			return err
		}
		r.res.Batches++
		r.res.Records += uint64(len(p.h.Entries))
		r.res.Log = p.after
	}
	r.pending = r.pending[:0]
	return nil
}

// Fits tells whether a batch can begin at that chunk of a segment: a header and one chunk of data.
func Fits(g format.Geometry, chunk uint32) bool { return chunk+2 <= g.Slots() }

// VerifyData compares a batch's data with the checksums of its entries.
func VerifyData(h *format.BatchHeader, data []byte) error {
	i := 0
	for _, e := range h.Entries {
		if e.Kind != format.KindData && e.Kind != format.KindPage {
			continue
		}
		if format.Sum(data[i:i+format.ChunkSize]) != e.CRC {
			return fmt.Errorf("batch %d, data chunk %d: %w", h.Seq, i/format.ChunkSize, format.ErrChecksum)
		}
		i += format.ChunkSize
	}
	return nil
}

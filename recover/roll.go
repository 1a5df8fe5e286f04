package recovery

import (
	"errors"
	"fmt"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"
)

// Place is where a batch stands.
type Place struct{ Segment, Chunk uint32 }

// ErrLostCheckpoint is returned when the log goes on with batches that only a newer checkpoint can explain. That
// one was durable once, so it is not a crash that took it away; to go on without it would drop acknowledged writes.
var ErrLostCheckpoint = errors.New("the newest checkpoint was durable and is damaged now")

// Rolled says what Roll found.
type Rolled struct {
	Log     format.LogPlace // where the next batch goes, after the last one that was applied
	Batches int             // applied
	Records uint64
	Bytes   int64    // read from the log, data and headers
	Void    int      // batches that nothing commits, left out
	Passed  []uint32 // segments that the chain leads through, also those of which nothing is applied
	Stop    error    // why the chain ended: what stands at Log
}

// roller follows the chain and holds back what is not committed.
type roller struct {
	d       disk.Disk
	c       *Container
	apply   func(*format.BatchHeader, Place) error
	at      format.LogPlace
	buf     []byte
	h       format.BatchHeader // of the batch that was read last
	pending []Place            // a mirror's epoch can be any length, so its headers are read again when it ends
	res     Rolled

	inc    uint32 // of the batches now
	bridge bool   // a later incarnation may follow: the checkpoint between is lost
	blind  bool   // leave out R4
}

// Roll follows the log from the checkpoint and calls apply for each committed batch, in order. The header
// passed to apply is valid only during the call. An error is one of the disk or of apply, or ErrLostCheckpoint; the
// end of the chain is none.
func Roll(d disk.Disk, c *Container, apply func(h *format.BatchHeader, at Place) error) (Rolled, error) {
	return newRoller(d, c, apply).run()
}

func newRoller(d disk.Disk, c *Container, apply func(*format.BatchHeader, Place) error) *roller {
	r := &roller{d: d, c: c, apply: apply, at: c.Meta.Log, buf: make([]byte, (1+format.MaxEntries)*format.ChunkSize), inc: c.Meta.Incarnation}
	r.res.Log = r.at
	return r
}

func (r *roller) run() (Rolled, error) {
	for {
		place, more, err := r.next()
		if err != nil || !more {
			r.res.Void += len(r.pending)
			return r.res, err
		}
		if r.h.Flags&format.FlagRestart != 0 {
			r.res.Void += len(r.pending)
			r.pending = r.pending[:0]
		}
		// What a jump epoch brings is applied to a map of its own, so it need not wait for the batch that commits.
		if !r.h.Commits() && r.h.Flags&format.FlagJump == 0 {
			r.pending = append(r.pending, place)
			continue
		}
		if err := r.commit(place); err != nil {
			return r.res, err
		}
	}
}

// next reads the batch that follows, or says by r.res.Stop why there is none.
func (r *roller) next() (place Place, more bool, err error) {
	if !Fits(r.c.Geo, r.at.Chunk) {
		r.at.Segment, r.at.Chunk, r.at.Next = r.at.Next, 0, 0
	}
	place = Place{r.at.Segment, r.at.Chunk}
	off := r.off(place)
	if off+format.ChunkSize > r.d.Size() {
		r.res.Stop = fmt.Errorf("segment %d lies beyond the end", r.at.Segment)
		return place, false, nil
	}
	if err := r.d.ReadAt(r.buf[:format.ChunkSize], off); err != nil {
		return place, false, err
	}
	h := &r.h
	if r.res.Stop = h.Decode(r.buf); r.res.Stop == nil {
		r.res.Stop = r.follows(h)
	}
	if r.res.Stop != nil {
		if errors.Is(r.res.Stop, ErrLostCheckpoint) {
			return place, false, fmt.Errorf("%s: checkpoint %d, segment %d chunk %d: %w; `cawrm check --repair` goes on without it, `cawrm serve --rescue` shows what is there, a mirror has the rest",
				r.d.Name(), r.c.Meta.Seq, place.Segment, place.Chunk, r.res.Stop)
		}
		return place, false, nil
	}
	if !r.blind {
		if r.res.Stop, err = r.verify(off + format.ChunkSize); r.res.Stop != nil || err != nil { // R4
			return place, false, err
		}
	}
	r.inc = h.Incarnation
	r.at = format.LogPlace{Segment: r.at.Segment, Chunk: r.at.Chunk + h.Chunks(), Next: h.Next,
		PrevCRC: format.HeaderCRC(r.buf), Seq: h.Seq + 1}
	r.res.Bytes += int64(h.Chunks()) * format.ChunkSize
	if n := len(r.res.Passed); n == 0 || r.res.Passed[n-1] != place.Segment {
		r.res.Passed = append(r.res.Passed, place.Segment)
	}
	return place, true, nil
}

// verify reads the data of the batch in r.h and says why they do not count.
func (r *roller) verify(off int64) (stop, err error) {
	data := r.buf[format.ChunkSize : format.ChunkSize*int64(r.h.Chunks())]
	if off+int64(len(data)) > r.d.Size() {
		return fmt.Errorf("batch %d: its data lie beyond the end", r.h.Seq), nil
	}
	if err := r.d.ReadAt(data, off); err != nil {
		return nil, err
	}
	return VerifyData(&r.h, data), nil
}

func (r *roller) off(p Place) int64 {
	return int64(r.c.Geo.Phys(p.Segment, p.Chunk)) * format.ChunkSize
}

// follows checks R2, R3 and that the batch fits where it stands.
func (r *roller) follows(h *format.BatchHeader) error {
	switch {
	case h.Tag != r.c.Tag():
		return fmt.Errorf("a batch of another container")
	case h.Kind != format.BatchLog:
		return fmt.Errorf("not a batch of the log")
	case !r.bridge && h.Incarnation > r.inc && h.Seq == r.at.Seq && h.PrevCRC == r.at.PrevCRC:
		return fmt.Errorf("batch %d is of incarnation %d, which is newer than %d: %w", h.Seq, h.Incarnation, r.inc, ErrLostCheckpoint)
	case h.Incarnation != r.inc && !(r.bridge && h.Incarnation > r.inc):
		return fmt.Errorf("a batch of incarnation %d, not %d", h.Incarnation, r.inc)
	case h.Seq != r.at.Seq:
		return fmt.Errorf("batch %d, not %d", h.Seq, r.at.Seq)
	case h.PrevCRC != r.at.PrevCRC:
		return fmt.Errorf("batch %d follows another batch than the one before it", h.Seq)
	case r.at.Chunk+h.Chunks() > r.c.Geo.Slots():
		return fmt.Errorf("batch %d does not fit its segment", h.Seq)
	case !r.c.CanReserve(h.Next):
		return fmt.Errorf("batch %d says that the log goes on in segment %d, which cannot be", h.Seq, h.Next)
	}
	return nil
}

// commit applies what is pending, and the batch at last, whose header is in r.h.
func (r *roller) commit(last Place) error {
	var h format.BatchHeader
	for _, p := range r.pending {
		if err := r.d.ReadAt(r.buf[:format.ChunkSize], r.off(p)); err != nil {
			return err
		}
		if err := h.Decode(r.buf); err != nil {
			return fmt.Errorf("%s: segment %d chunk %d, read again: %w", r.d.Name(), p.Segment, p.Chunk, err)
		}
		if err := r.applied(&h, p); err != nil {
			return err
		}
	}
	r.pending = r.pending[:0]
	if err := r.applied(&r.h, last); err != nil {
		return err
	}
	r.res.Log = r.at
	return nil
}

func (r *roller) applied(h *format.BatchHeader, p Place) error {
	if err := r.apply(h, p); err != nil {
		return err
	}
	r.res.Batches++
	r.res.Records += uint64(len(h.Entries))
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

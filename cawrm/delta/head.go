package delta

import (
	"bufio"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"cawrm/aodi/format"
)

// Head says what a file is of.
type Head struct {
	Volume   format.UUID
	Size     int64
	From, To format.Position
	Time     int64 // of the snapshot at To, unix nanoseconds
	Base     format.Position
	Cursor   uint64
	ToName   string
	FromName string // "": from the beginning
	Lineage  []format.Lineage
}

const (
	headFixed = 72
	linkSize  = 24
)

// NewWriter begins a file. Errors: ErrInvalid, when no Reader would take the head; the writer's below.
func NewWriter(w io.Writer, h *Head) (*Writer, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithWindowSize(MaxPayload))
	if err != nil {
		return nil, err
	}
	x := &Writer{w: w, sum: newSum(), enc: enc, head: *h}
	b := append([]byte(nil), h.Volume[:]...)
	for _, v := range []uint64{uint64(h.Size), uint64(h.From), uint64(h.To), uint64(h.Time), uint64(h.Base), h.Cursor} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint16(b, uint16(len(h.ToName)))
	b = le.AppendUint16(b, uint16(len(h.FromName)))
	b = le.AppendUint16(b, uint16(len(h.Lineage)))
	b = append(append(append(b, 0, 0), h.ToName...), h.FromName...)
	for _, l := range h.Lineage {
		b = le.AppendUint64(append(b, l.ID[:]...), uint64(l.Start))
	}
	return x, x.frame(typeHead, b)
}

// NewReader reads the head of a file. Errors: ErrMagic, ErrVersion, ErrChecksum, ErrInvalid; io.ErrUnexpectedEOF; the reader's below.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, 64<<10), sum: newSum()}
	kind, b, _, err := x.next()
	if err != nil {
		return nil, unexpected(err)
	}
	if kind != typeHead || len(b) < headFixed || le.Uint16(b[70:]) != 0 {
		return nil, fmt.Errorf("HEAD: %w", ErrInvalid)
	}
	to, from, links := int(le.Uint16(b[64:])), int(le.Uint16(b[66:])), int(le.Uint16(b[68:]))
	if to > MaxName || from > MaxName || links > MaxLinks || len(b) != headFixed+to+from+links*linkSize {
		return nil, fmt.Errorf("HEAD: names of %d and %d bytes and %d links in %d bytes: %w", to, from, links, len(b), ErrInvalid)
	}
	h := Head{Volume: format.UUID(b[:16]), Size: int64(le.Uint64(b[16:])), From: format.Position(le.Uint64(b[24:])), To: format.Position(le.Uint64(b[32:])),
		Time: int64(le.Uint64(b[40:])), Base: format.Position(le.Uint64(b[48:])), Cursor: le.Uint64(b[56:])}
	b = b[headFixed:]
	h.ToName, h.FromName = string(b[:to]), string(b[to:to+from])
	for b = b[to+from:]; len(b) > 0; b = b[linkSize:] {
		h.Lineage = append(h.Lineage, format.Lineage{ID: format.UUID(b[:16]), Start: format.Position(le.Uint64(b[16:]))})
	}
	x.head = h
	return x, h.check()
}

// Head is what the file is of.
func (r *Reader) Head() Head { return r.head }

// Bytes is how much of the file was read.
func (r *Reader) Bytes() int64 { return r.bytes }

// check refuses what no volume could have sent.
func (h *Head) check() error {
	bad := func(what string) error { return fmt.Errorf("HEAD: %s: %w", what, ErrInvalid) }
	switch {
	case h.Volume.IsZero() || len(h.Lineage) == 0 || len(h.Lineage) > MaxLinks:
		return bad("a volume id or a lineage")
	case h.Size <= 0 || h.Size > format.MaxLogicalSize || h.Size%format.ChunkSize != 0:
		return bad("the size")
	case h.From < h.Lineage[0].Start || h.From > h.To || h.Base > h.To || h.Base == 0 && h.Cursor > 0 || h.Cursor > uint64(h.Size/format.ChunkSize):
		return bad("positions")
	case h.ToName == "" || len(h.ToName) > MaxName || len(h.FromName) > MaxName:
		return bad("the names")
	}
	for i, l := range h.Lineage {
		if l.ID.IsZero() || i > 0 && l.Start < h.Lineage[i-1].Start || l.Start > h.To {
			return bad("the lineage")
		}
	}
	return nil
}

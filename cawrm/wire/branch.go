package wire

import (
	"fmt"

	"cawrm/aodi/format"
)

// Range is a range of logical chunks, half-open.
type Range struct{ First, End uint64 }

const (
	rangeSize = 16
	// MaxRanges bounds the ranges of one RANGES frame, MaxBranch those of all of them.
	MaxRanges = 4096
	MaxBranch = 1 << 20

	flagLast = 1
)

// AppendRanges appends a RANGES frame; last: no other follows. Errors: ErrInvalid when the decoder would refuse it.
func AppendRanges(b []byte, ranges []Range, last bool) ([]byte, error) {
	if err := checkRanges(ranges); err != nil {
		return b, err
	}
	at := len(b)
	var flags uint8
	if last {
		flags = flagLast
	}
	b = beginFrame(b, TypeRanges, flags)
	for _, r := range ranges {
		b = le.AppendUint64(le.AppendUint64(b, r.First), r.End)
	}
	return endFrame(b, at, 0), nil
}

// Ranges decodes the RANGES that Next has read. Errors: ErrInvalid.
func (r *Reader) Ranges() (ranges []Range, last bool, err error) {
	if len(r.body)%rangeSize != 0 {
		return nil, false, fmt.Errorf("RANGES: %d bytes: %w", len(r.body), ErrInvalid)
	}
	for b := r.body; len(b) > 0; b = b[rangeSize:] {
		ranges = append(ranges, Range{le.Uint64(b), le.Uint64(b[8:])})
	}
	return ranges, r.head[5]&flagLast != 0, checkRanges(ranges)
}

func checkRanges(ranges []Range) error {
	if len(ranges) > MaxRanges {
		return fmt.Errorf("RANGES: %d of them: %w", len(ranges), ErrInvalid)
	}
	at := uint64(0)
	for i, r := range ranges {
		if r.First < at || r.End <= r.First || r.End > format.MaxLogicalSize/format.ChunkSize {
			return fmt.Errorf("RANGES: range %d is [%d, %d), after %d: %w", i, r.First, r.End, at, ErrInvalid)
		}
		at = r.End
	}
	return nil
}

// AppendFollow appends a FOLLOW frame.
func AppendFollow(b []byte) []byte {
	at := len(b)
	return endFrame(beginFrame(b, TypeFollow, 0), at, 0)
}

// AppendHandover appends a HANDOVER frame.
func AppendHandover(b []byte, end format.Position) []byte {
	at := len(b)
	b = beginFrame(b, TypeHandover, 0)
	return endFrame(le.AppendUint64(b, uint64(end)), at, 0)
}

// Handover decodes the HANDOVER that Next has read.
func (r *Reader) Handover() format.Position { return format.Position(le.Uint64(r.body)) }

// AppendTaken appends a TAKEN frame.
func AppendTaken(b []byte) []byte {
	at := len(b)
	return endFrame(beginFrame(b, TypeTaken, 0), at, 0)
}

package wire

import (
	"fmt"

	"cawrm/aodi/format"
)

// CapCheck is the capability to compare and mend: CHECK and SUMS.
const CapCheck = 1 << 8

// CheckOp says what a CHECK asks for, and what a SUMS answers.
type CheckOp uint8

// The operations.
const (
	CheckOpen   CheckOp = 1 // hold still at position First
	CheckRanges CheckOp = 2 // digests of Count ranges of CheckRange chunks, from range First on
	CheckChunks CheckOp = 3 // sums of the chunks of range First
	CheckFetch  CheckOp = 4 // chunk First, as of what is held
	CheckMend   CheckOp = 5 // Body is what chunk First should hold
	CheckWant   CheckOp = 6 // chunk First as it is now, if Count are the low 24 bits of its checksum
	CheckClose  CheckOp = 7 // what is held can go; not answered
)

const (
	// CheckRange is how many chunks one digest is of: 4 MiB.
	CheckRange = 1024
	// DigestSize and SumSize are bytes of a range's digest, and of a chunk's sum.
	DigestSize = 16
	SumSize    = 8
	// MaxDigests is how many ranges may be asked for at once.
	MaxDigests = 64

	checkFixed = 24
	maxCheck   = checkFixed + CheckRange*SumSize
)

// Check is a CHECK or a SUMS: a question of a source, or its peer's answer.
type Check struct {
	Op           CheckOp
	Failed       bool // of an answer: Body says why
	First, Count uint64
	Body         []byte
}

// AppendCheck appends a CHECK frame, AppendSums a SUMS frame. Errors: a body that is too long.
func AppendCheck(b []byte, c *Check) ([]byte, error) { return appendCheck(b, TypeCheck, c) }

// AppendSums is AppendCheck for the answer.
func AppendSums(b []byte, c *Check) ([]byte, error) { return appendCheck(b, TypeSums, c) }

func appendCheck(b []byte, t Type, c *Check) ([]byte, error) {
	if len(c.Body) > maxCheck-checkFixed {
		return b, fmt.Errorf("%v: body of %d bytes is too long", t, len(c.Body))
	}
	at := len(b)
	b = beginFrame(b, t, 0)
	var failed byte
	if c.Failed {
		failed = 1
	}
	b = append(b, byte(c.Op), failed, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint64(b, c.First)
	b = le.AppendUint64(b, c.Count)
	b = append(b, c.Body...)
	return endFrame(b, at, 0), nil
}

// Check decodes the CHECK or SUMS that Next has read; the body is a copy. Errors: ErrInvalid.
func (r *Reader) Check() (Check, error) {
	b := r.body
	c := Check{Op: CheckOp(b[0]), Failed: b[1] == 1, First: le.Uint64(b[8:]), Count: le.Uint64(b[16:]), Body: append([]byte(nil), b[checkFixed:]...)}
	const chunks = format.MaxLogicalSize / format.ChunkSize
	limit := uint64(chunks)
	if c.Op == CheckOpen {
		limit = 1<<64 - 1
	}
	if c.Op < CheckOpen || c.Op > CheckClose || b[1] > 1 || c.First > limit || c.Count > 1<<24 || le.Uint32(b[2:])|uint32(le.Uint16(b[6:])) != 0 {
		return c, fmt.Errorf("CHECK: operation %d of %d, %d: %w", c.Op, c.First, c.Count, ErrInvalid)
	}
	return c, nil
}

package wire

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Type is the type of a frame.
type Type uint8

// The types of frames.
const (
	TypeHello   Type = 1
	TypeWelcome Type = 2
	TypeRefuse  Type = 3
	TypeRecords Type = 4
	TypeAck     Type = 5
	TypeBeat    Type = 6

	TypeSnapshot Type = 7
	TypeKept     Type = 8
	TypeRanges   Type = 16
	TypeFollow   Type = 17
	TypeHandover Type = 18
	TypeTaken    Type = 19

	TypeCheck Type = 20
	TypeSums  Type = 21
)

var typeNames = [...]string{TypeHello: "HELLO", TypeWelcome: "WELCOME", TypeRefuse: "REFUSE",
	TypeRecords: "RECORDS", TypeAck: "ACK", TypeBeat: "BEAT",
	TypeSnapshot: "SNAPSHOT", TypeKept: "KEPT",

	TypeRanges: "RANGES", TypeFollow: "FOLLOW", TypeHandover: "HANDOVER", TypeTaken: "TAKEN", TypeCheck: "CHECK", TypeSums: "SUMS"}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Set is a set of types, for what a Reader allows.
type Set uint32

// Of makes a set.
func Of(types ...Type) Set {
	var s Set
	for _, t := range types {
		s |= 1 << t
	}
	return s
}

func (s Set) has(t Type) bool { return t < 32 && s&(1<<t) != 0 }

const (
	headerSize = 16
	frameMagic = "CWRM"
	flagCommit = 1
	flagJump   = 2
	flagPacked = 4
	flagTerse  = 8
	readBuffer = 16 << 10
)

// beginFrame appends a header that endFrame fills in.
func beginFrame(b []byte, t Type, flags uint8) []byte {
	b = append(b, frameMagic...)
	b = append(b, byte(t), flags)
	return append(b, make([]byte, headerSize-6)...)
}

// endFrame fills in the length and the checksum of the frame that starts at b[at:]; data bytes follow b.
func endFrame(b []byte, at, data int) []byte {
	h := b[at:]
	le.PutUint32(h[8:], uint32(len(h)-headerSize+data))
	crc := crc32.Update(0, castagnoli, h[:12])
	le.PutUint32(h[12:], crc32.Update(crc, castagnoli, h[headerSize:]))
	return b
}

// Reader takes a stream apart. It belongs to one goroutine.
type Reader struct {
	r      *bufio.Reader
	head   [headerSize]byte
	body   []byte // control part of the current frame, reused
	data   int    // data bytes of the current frame that were not read yet
	frames uint64
	forms  []told // of the RECORDS that is decoded
	unpack unpacker

	resolve Resolver // of RECORDS that refer to what is held here; nil: none may
}

// NewReader reads frames from r through a small buffer; large data goes past it.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, readBuffer)}
}

// Resolve lets RECORDS refer to what this side holds. To be called before the first of them.
func (r *Reader) Resolve(f Resolver) { r.resolve = f }

// Release gives back what the Reader remembers, when its stream has ended. It is not used any more.
func (r *Reader) Release() { r.unpack.window.release() }

// Next reads the next frame's control part, of which the type must be in allow, and verifies it. The caller then
// takes it with the method of that type, before the next Next.
//
// Errors: io.EOF between frames, io.ErrUnexpectedEOF in one; ErrMagic, ErrUnexpected, ErrInvalid, ErrChecksum with
// the frame; what the reader below says.
func (r *Reader) Next(allow Set) (Type, error) {
	if r.data > 0 { // of a RECORDS that the caller did not want
		if _, err := r.r.Discard(r.data); err != nil {
			return 0, fmt.Errorf("RECORDS: %w", unexpectedEOF(err))
		}
	}
	t, n, err := r.header(allow)
	if err != nil {
		return 0, err
	}
	r.frames++
	r.body, r.data = r.body[:0], 0
	if t == TypeRecords {
		err = r.recordsControl(n)
	} else {
		err = r.control(n)
	}
	if err != nil {
		return 0, fmt.Errorf("%v: %w", t, unexpectedEOF(err))
	}
	crc := crc32.Update(0, castagnoli, r.head[:12])
	if crc32.Update(crc, castagnoli, r.body) != le.Uint32(r.head[12:]) {
		return 0, fmt.Errorf("%v: %w", t, ErrChecksum)
	}
	return t, nil
}

// header reads a header and refuses what is not ours before it believes a length in it.
func (r *Reader) header(allow Set) (Type, int, error) {
	if n, err := io.ReadFull(r.r, r.head[:]); err != nil {
		if n > 0 && !magicPrefix(r.head[:n]) {
			return 0, 0, r.wrongMagic(n)
		}
		return 0, 0, err
	}
	if !magicPrefix(r.head[:]) {
		return 0, 0, r.wrongMagic(headerSize)
	}
	t, flags, n := Type(r.head[4]), r.head[5], le.Uint32(r.head[8:])
	lowest, limit, knownFlags := t.bounds()
	switch {
	case limit < 0:
		return 0, 0, fmt.Errorf("frame %d: unknown %v: %w", r.frames, t, ErrInvalid)
	case !allow.has(t):
		return 0, 0, fmt.Errorf("%v: %w", t, ErrUnexpected)
	case flags&^knownFlags != 0 || r.head[6] != 0 || r.head[7] != 0:
		return 0, 0, fmt.Errorf("%v: unknown flags %#x: %w", t, flags, ErrInvalid)
	case int64(n) < int64(lowest) || int64(n) > int64(limit):
		return 0, 0, fmt.Errorf("%v: %d bytes, must be %d to %d: %w", t, n, lowest, limit, ErrInvalid)
	}
	return t, int(n), nil
}

// bounds of a frame's length, limit < 0 for a type that is not known.
func (t Type) bounds() (lowest, limit int, flags uint8) {
	switch t {
	case TypeHello, TypeWelcome:
		return 2, MaxHello, 0 // the rest of another version's may have any layout
	case TypeRefuse:
		return 2, 2 << 10, 0
	case TypeRecords:
		return recordsFixed, MaxRecords, flagCommit | flagJump | flagPacked | flagTerse
	case TypeAck:
		return 8, 8, 0
	case TypeBeat, TypeFollow, TypeTaken:
		return 0, 0, 0
	case TypeSnapshot:
		return snapshotFixed + 1, snapshotFixed + MaxSnapshotName, 0
	case TypeKept:
		return keptFixed, keptFixed + MaxText, 0
	case TypeHandover:
		return 8, 8, 0
	case TypeRanges:
		return 0, MaxRanges * rangeSize, flagLast
	case TypeCheck, TypeSums:
		return checkFixed, maxCheck, 0
	}
	return 0, -1, 0
}

func magicPrefix(b []byte) bool {
	n := min(len(b), len(frameMagic))
	return string(b[:n]) == frameMagic[:n]
}

func (r *Reader) wrongMagic(n int) error {
	if r.frames > 0 {
		return fmt.Errorf("after frame %d: %w", r.frames, ErrMagic)
	}
	return fmt.Errorf("%w: the other side says %q", ErrMagic, r.head[:n])
}

func (r *Reader) control(n int) error {
	return r.full(r.grow(n))
}

func (r *Reader) full(b []byte) error {
	_, err := io.ReadFull(r.r, b)
	return err
}

// grow makes room for n more bytes of control and returns them. n is bounded by the caller.
func (r *Reader) grow(n int) []byte {
	at := len(r.body)
	if cap(r.body) < at+n {
		r.body = append(make([]byte, 0, at+n), r.body...)
	}
	r.body = r.body[:at+n]
	return r.body[at:]
}

// unexpectedEOF turns an end in the middle of a frame into what it is.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

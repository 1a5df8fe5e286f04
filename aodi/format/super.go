package format

import (
	"encoding/binary"
	"fmt"
)

var le = binary.LittleEndian

// Super is the super chunk: what never changes in a container's life.
type Super struct {
	Container     UUID
	SegmentChunks uint32 // chunks in a segment, a power of two in [32, 65536]
	Created       int64  // unix nanoseconds
}

const superMagic = "CAWRMVOL"

// Encode writes s into b, which holds one chunk.
func (s *Super) Encode(b []byte) {
	clear(b[:ChunkSize])
	copy(b, superMagic)
	le.PutUint32(b[8:], Version)
	copy(b[16:], s.Container[:])
	le.PutUint32(b[32:], s.SegmentChunks)
	le.PutUint64(b[40:], DataStart)
	le.PutUint64(b[48:], uint64(s.Created))
	seal(b)
}

// DecodeSuper reads a super chunk. Errors: ErrMagic, ErrVersion, ErrChecksum, ErrInvalid.
func DecodeSuper(b []byte) (Super, error) {
	var s Super
	if err := open(b, superMagic); err != nil {
		return s, err
	}
	copy(s.Container[:], b[16:])
	s.SegmentChunks = le.Uint32(b[32:])
	s.Created = int64(le.Uint64(b[48:]))
	if !validSegment(s.SegmentChunks) || le.Uint64(b[40:]) != DataStart {
		return s, fmt.Errorf("super chunk: %w", ErrInvalid)
	}
	return s, nil
}

func validSegment(chunks uint32) bool {
	return chunks >= 32 && chunks <= 65536 && chunks&(chunks-1) == 0
}

// seal stores the checksum of a chunk-sized structure.
func seal(b []byte) { le.PutUint32(b[crcAt:], Sum(b[:crcAt])) }

// open checks magic, version and checksum of a chunk-sized structure with an 8-byte magic and a 4-byte version.
func open(b []byte, magic string) error {
	if len(b) < ChunkSize || string(b[:8]) != magic {
		return ErrMagic
	}
	if v := le.Uint32(b[8:]); v != Version {
		return fmt.Errorf("%w (format %d, this program knows %d)", ErrVersion, v, Version)
	}
	if le.Uint32(b[crcAt:]) != Sum(b[:crcAt]) {
		return ErrChecksum
	}
	return nil
}

package cawrm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// still is what is compared: a volume's content that does not change.
type still interface {
	Size() int64
	ReadAt(p []byte, off int64) error
	Extents(off, n int64, fn func(n int64, flags uint32) bool) error
}

const rangeBytes = wire.CheckRange * format.ChunkSize

// unreadable is the sum of a chunk that does not match its checksum, or that the disk does not give.
var unreadable = bytes.Repeat([]byte{0xff}, wire.SumSize)

// summer makes sums and digests; its buffer is reused.
type summer struct {
	v   still
	buf []byte
}

func newSummer(v still) *summer { return &summer{v: v, buf: make([]byte, rangeBytes)} }

// load reads a range. What is a hole is not read: it is zeroes. bad are the chunks of it that cannot be read.
func (s *summer) load(first uint64) (p []byte, bad map[int]bool, err error) {
	off := int64(first) * rangeBytes
	p = s.buf[:max(0, min(rangeBytes, s.v.Size()-off))]
	clear(p)
	bad = map[int]bool{}
	at := off
	scan := s.v.Extents(off, int64(len(p)), func(n int64, flags uint32) bool {
		if flags&aodi.ExtentZero == 0 {
			err = s.read(p[at-off:at-off+n], at, off, bad)
		}
		at += n
		return err == nil
	})
	return p, bad, errors.Join(err, scan)
}

// read reads as much as it can, chunk by chunk where something is wrong.
func (s *summer) read(p []byte, at, off int64, bad map[int]bool) error {
	err := s.v.ReadAt(p, at)
	if err == nil || errors.Is(err, aodi.ErrClosed) {
		return err
	}
	for i := 0; i < len(p); i += format.ChunkSize {
		if err := s.v.ReadAt(p[i:i+format.ChunkSize], at+int64(i)); err != nil {
			bad[int(at-off+int64(i))/format.ChunkSize] = true
		}
	}
	return nil
}

// digest is that of a range; data are the bytes of it that are not zeroes.
func (s *summer) digest(first uint64) (d [wire.DigestSize]byte, data int64, err error) {
	p, bad, err := s.load(first)
	if err != nil {
		return d, 0, err
	}
	h := sha256.New()
	var number [8]byte
	for i := 0; i*format.ChunkSize < len(p); i++ {
		if c := p[i*format.ChunkSize:][:format.ChunkSize]; !isZero(c) {
			binary.LittleEndian.PutUint64(number[:], first*wire.CheckRange+uint64(i))
			h.Write(number[:])
			h.Write(c)
			data += format.ChunkSize
		}
	}
	h.Sum(s.buf[:0]) // the range is not needed any more
	copy(d[:], s.buf)
	if len(bad) > 0 {
		copy(d[:], bytes.Repeat([]byte{0xff}, len(d)))
	}
	return d, data, nil
}

// sums are those of the chunks of a range.
func (s *summer) sums(first uint64) ([]byte, error) {
	p, bad, err := s.load(first)
	if err != nil {
		return nil, err
	}
	var all []byte
	for i := 0; i*format.ChunkSize < len(p); i++ {
		switch c := p[i*format.ChunkSize:][:format.ChunkSize]; {
		case bad[i]:
			all = append(all, unreadable...)
		case isZero(c):
			all = append(all, make([]byte, wire.SumSize)...)
		default:
			sum := sha256.Sum256(c)
			all = append(all, sum[:wire.SumSize]...)
		}
	}
	return all, nil
}

var zeroChunk [format.ChunkSize]byte

func isZero(c []byte) bool { return bytes.Equal(c, zeroChunk[:]) }

// rangesOf is how many ranges a volume has.
func rangesOf(size int64) uint64 { return uint64((size + rangeBytes - 1) / rangeBytes) }

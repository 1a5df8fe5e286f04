package delta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

const (
	magic      = "CWDL"
	headerSize = 24

	typeHead = 1
	typeBody = 2
	typeEnd  = 3
)

// Writer writes a file.
type Writer struct {
	w             io.Writer
	sum           hash.Hash
	enc           *zstd.Encoder
	number        uint32
	plain, buf    []byte
	entries, data uint64
	head          Head
	lba           uint64 // of the next data entry, at least
}

// frame writes one frame. The file's hash is of whole frames.
func (w *Writer) frame(kind byte, payload []byte) error {
	b := append(w.buf[:0], magic...)
	b = append(b, kind, Version, 0, 0)
	b = append(b, make([]byte, headerSize-8)...)
	plain := 0
	if kind == typeBody {
		if b = w.enc.EncodeAll(payload, b); len(b)-headerSize < len(payload)-len(payload)/16 {
			plain = len(payload)
		} else {
			b = append(b[:headerSize], payload...)
		}
	} else {
		b = append(b, payload...)
	}
	le.PutUint32(b[8:], uint32(len(b)-headerSize))
	le.PutUint32(b[12:], uint32(plain))
	le.PutUint32(b[16:], w.number)
	crc := crc32.Update(0, castagnoli, b[:20])
	le.PutUint32(b[20:], crc32.Update(crc, castagnoli, b[headerSize:]))
	w.number++
	w.buf = b
	w.sum.Write(b)
	_, err := w.w.Write(b)
	return err
}

// Reader reads a file. What it gives out is not to be shown before Next has said io.EOF.
type Reader struct {
	r             io.Reader
	sum           hash.Hash
	dec           *zstd.Decoder
	number        uint32
	header        [headerSize]byte
	buf, plain    []byte
	entries, data uint64
	head          Head
	lba           uint64
	bytes         int64
	over          error
}

// next reads a frame's payload, verified. Errors: io.EOF where a frame could begin.
func (r *Reader) next() (kind byte, payload []byte, before []byte, err error) {
	h := r.header[:]
	n, err := io.ReadFull(r.r, h)
	switch {
	case n > 0 && string(h[:min(n, 4)]) != magic[:min(n, 4)]:
		return 0, nil, nil, r.at(ErrMagic)
	case err != nil:
		return 0, nil, nil, err
	case h[5] != Version:
		return 0, nil, nil, r.at(fmt.Errorf("%w: %d, this program reads %d", ErrVersion, h[5], Version))
	}
	length, plain := le.Uint32(h[8:]), le.Uint32(h[12:])
	if h[6] != 0 || h[7] != 0 || length > MaxPayload || plain > MaxPayload || plain > 0 && (h[4] != typeBody || length >= plain) {
		return 0, nil, nil, r.at(ErrInvalid)
	}
	if r.buf, err = fill(r.r, r.buf, int(length)); err != nil {
		return 0, nil, nil, unexpected(err)
	}
	crc := crc32.Update(0, castagnoli, h[:20])
	switch {
	case crc32.Update(crc, castagnoli, r.buf) != le.Uint32(h[20:]):
		return 0, nil, nil, r.at(ErrChecksum)
	case le.Uint32(h[16:]) != r.number:
		return 0, nil, nil, r.at(fmt.Errorf("%w: it says that it is frame %d", ErrInvalid, le.Uint32(h[16:])))
	}
	before = r.sum.Sum(nil)
	r.sum.Write(h)
	r.sum.Write(r.buf)
	payload = r.buf
	if plain > 0 {
		if payload, err = r.expand(int(plain)); err != nil {
			return 0, nil, nil, r.at(err)
		}
	}
	r.number++
	r.bytes += int64(headerSize) + int64(length)
	return h[4], payload, before, nil
}

// expand expands the payload, into so many bytes as it says and not one more.
func (r *Reader) expand(plain int) ([]byte, error) {
	if r.dec == nil {
		var err error
		if r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxPayload),
			zstd.WithDecoderMaxWindow(MaxPayload), zstd.WithDecoderLowmem(true)); err != nil {
			return nil, err
		}
	}
	out, err := r.dec.DecodeAll(r.buf, r.plain[:0])
	r.plain = out[:0]
	if err != nil || len(out) != plain {
		return nil, fmt.Errorf("%w: its zstd frame does not expand to %d bytes (%v)", ErrInvalid, plain, err)
	}
	return out, nil
}

// at says in which frame an error is.
func (r *Reader) at(err error) error {
	return fmt.Errorf("frame %d, byte %d: %w", r.number, r.bytes, err)
}

// fill reads n bytes into b. Memory is taken as the bytes come, not by what a header says.
func fill(r io.Reader, b []byte, n int) ([]byte, error) {
	b = b[:0]
	for len(b) < n {
		step := min(n-len(b), max(64<<10, len(b)))
		if cap(b) < len(b)+step {
			b = append(make([]byte, 0, len(b)+step), b...)
		}
		got, err := io.ReadFull(r, b[len(b):len(b)+step])
		if b = b[:len(b)+got]; err != nil {
			return b, err
		}
	}
	return b, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func newSum() hash.Hash { return sha256.New() }

package baseline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A batch travels, and is kept in the journal, as
//
//	 0  magic "BTCH"
//	 4  writes in it, u32
//	 8  bytes of data, u32
//	12  CRC32C of all that follows, u32
//	16  sequence number, u64
//	24  for each write: offset u64, length u32
//	    the data of each, one behind the other
//
// all little-endian. The answer is the sequence number. A batch without writes is a beat: it is only answered.
const (
	batchMagic  = 0x48435442
	headSize    = 24
	entrySize   = 12
	maxWrites   = 1 << 12
	maxBatch    = 4 << 20
	wantedBatch = 1 << 20 // a batch takes no more writes once it has so many bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write is one clone.
type write struct {
	off    int64
	data   []byte
	copied bool // by a resync; does not travel
}

// batch is what is committed at once.
type batch struct {
	seq    uint64
	writes []write
}

func (b batch) encode() []byte {
	n := headSize + entrySize*len(b.writes)
	size := 0
	for _, w := range b.writes {
		size += len(w.data)
	}
	out := make([]byte, n, n+size)
	binary.LittleEndian.PutUint32(out, batchMagic)
	binary.LittleEndian.PutUint32(out[4:], uint32(len(b.writes)))
	binary.LittleEndian.PutUint32(out[8:], uint32(size))
	binary.LittleEndian.PutUint64(out[16:], b.seq)
	for i, w := range b.writes {
		e := out[headSize+entrySize*i:]
		binary.LittleEndian.PutUint64(e, uint64(w.off))
		binary.LittleEndian.PutUint32(e[8:], uint32(len(w.data)))
	}
	for _, w := range b.writes {
		out = append(out, w.data...)
	}
	binary.LittleEndian.PutUint32(out[12:], crc32.Checksum(out[16:], castagnoli))
	return out
}

var errNoBatch = errors.New("no batch begins here")

// readBatch reads one. raw is all of it. Errors: io.EOF before the first byte; errNoBatch for bytes that are none.
func readBatch(r io.Reader) (b batch, raw []byte, err error) {
	raw = make([]byte, headSize)
	if _, err := io.ReadFull(r, raw); err != nil {
		return b, nil, err
	}
	count, size := binary.LittleEndian.Uint32(raw[4:]), binary.LittleEndian.Uint32(raw[8:])
	if binary.LittleEndian.Uint32(raw) != batchMagic || count > maxWrites || size > maxBatch {
		return b, nil, errNoBatch
	}
	sum := binary.LittleEndian.Uint32(raw[12:])
	b.seq = binary.LittleEndian.Uint64(raw[16:])
	raw = append(raw, make([]byte, entrySize*int(count)+int(size))...)
	if _, err := io.ReadFull(r, raw[headSize:]); err != nil {
		return b, nil, errors.Join(errNoBatch, err)
	}
	if crc32.Checksum(raw[16:], castagnoli) != sum {
		return b, nil, fmt.Errorf("%w: checksum of batch %d", errNoBatch, b.seq)
	}
	data := raw[headSize+entrySize*int(count):]
	for i := range int(count) {
		e := raw[headSize+entrySize*i:]
		n := binary.LittleEndian.Uint32(e[8:])
		if int64(n) > int64(len(data)) {
			return b, nil, errNoBatch
		}
		b.writes = append(b.writes, write{off: int64(binary.LittleEndian.Uint64(e)), data: data[:n]})
		data = data[n:]
	}
	if len(data) > 0 {
		return b, nil, errNoBatch
	}
	return b, raw, nil
}

package oracle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// BlockSize is the unit in which a Load writes, and in which a write is atomic.
const BlockSize = 4096

const stampMagic = 0x63617772_6d6f7261

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Stamp fills a block so that it says which request wrote it, and where:
//
//	0        8        16       24                          4092   4096
//	| magic  | seq    | block  | noise from seq and block  | crc  |
func Stamp(b []byte, seq uint64, block int64) {
	binary.LittleEndian.PutUint64(b, stampMagic)
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], uint64(block))
	x := seq*0x9e3779b97f4a7c15 ^ uint64(block)*0xbf58476d1ce4e5b9 | 1
	for i := 24; i < BlockSize; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	binary.LittleEndian.PutUint32(b[BlockSize-4:], crc32.Checksum(b[:BlockSize-4], castagnoli))
}

// ReadStamp returns the request that wrote the block, 0 for a block of zeroes.
// Anything else than zeroes or an intact stamp of this very block is an error.
func ReadStamp(b []byte, block int64) (seq uint64, err error) {
	if binary.LittleEndian.Uint64(b) != stampMagic {
		if allZero(b) {
			return 0, nil
		}
		return 0, fmt.Errorf("block %d holds neither zeroes nor a stamp", block)
	}
	seq = binary.LittleEndian.Uint64(b[8:])
	if crc32.Checksum(b[:BlockSize-4], castagnoli) != binary.LittleEndian.Uint32(b[BlockSize-4:]) {
		return 0, fmt.Errorf("block %d is torn or changed within the stamp of request %d", block, seq)
	}
	if at := int64(binary.LittleEndian.Uint64(b[16:])); at != block {
		return 0, fmt.Errorf("block %d holds block %d, as request %d wrote it", block, at, seq)
	}
	if seq == 0 {
		return 0, errors.New("a stamp without a request")
	}
	return seq, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

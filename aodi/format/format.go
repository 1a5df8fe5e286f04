// Package format is the on-disk format of an AoDI container: bytes, and nothing but bytes.
//
// Every structure is described here and only here; encoder and decoder stand beside each other in
// the file that is named in the heading. Nothing in this package does I/O, so it may be called from any
// goroutine. All integers are little-endian. All checksums are CRC32C (Castagnoli).
//
// # Container
//
//	chunk 0        super chunk          written once by create
//	chunk 1, 2     meta chunks A and B  checkpoint n is written to chunk 1 + n%2
//	chunk 3..255   reserved, zero
//	chunk 256..    segments, segment i at chunk 256 + i*segment_chunks
//
// A chunk is 4096 bytes. Physical chunk numbers below 256 can never hold data, which leaves two
// of them free as marks in the forward map: 0 is "not mapped", 1 is "mapped, reads as zeroes".
//
// # Super chunk (super.go)
//
//	 0        8        12       16                 32       36       40         48
//	+--------+--------+--------+------------------+--------+--------+----------+----------+- - -+------+
//	|CAWRMVOL|version |  zero  |  container uuid  |segment |  zero  |data start|created at| zero| crc  |
//	|        |  u32   |        |     16 bytes     |chunks  |        |chunk u64 |unix ns   |     | u32  |
//	+--------+--------+--------+------------------+--------+--------+----------+----------+- - -+------+
//	                                                                                         4092   4096
//
// # Meta chunk (meta.go)
//
//	   0  8  magic CAWRMMET            8  4  version            12  4  flags: 1 mirror, 2 without identity, 4 closed cleanly,
//	                                                             8 a mirror that leaves its own branch for any other
//	  16  8  checkpoint sequence      24 16  container uuid     40 16  volume id (the same on every mirror)
//	  56  8  logical size, bytes      64  8  position P: the map holds all records below it
//	  72  8  time, unix ns            80  8  forward map root   88  4  its height     92  4  segment tree height
//	  96  8  segment tree root       104  8  segments: high-water mark
//	 112  4  replay segment          116  4  replay chunk in it    where the first batch after P is, or will be
//	 120  4  next log segment        124  4  crc of the batch header before it
//	 128  8  sequence of the first batch after P               136  4  incarnation
//	 140  4  meta segment            144  4  next chunk in it   148  4  next meta segment
//	 152  8  data chunks ever logged 160  8  mapped chunks     168  8  history_floor  176  8  trim_floor
//	 184  8  catalog reference       192  4  catalog bytes      200  8  capacity, bytes in use, 0 = none
//	 208  8  free segments
//	 216  8  jump: map root         224  8  its mapped chunks 232  8  its end, 0 = none   240 16  base, cursor: see Reached
//	 256  4  cold segment          260  4  next chunk in it, 0 = none                   264  8  live chunks of data
//	 272  8  jump: its logical size, bytes, 0 = the volume's
//	 280 240  jump: 15 x base, cursor: what lies before those at 240, base 0 ends them
//	4092  4  crc of the 4092 bytes before
//
// Recovery takes the valid meta chunk with the greater sequence. Incarnation grows by one each time the
// container is opened for writing, so a batch that an earlier life left beyond its crash is not mistaken for
// one of this life.
//
// # Catalog (catalog.go)
//
// What has no fixed number: lineage, mirrors, snapshots. Items one after the other, in chunks that follow each other; the meta chunk
// leads to them. What is more than 128 chunks, or than a segment takes, goes on elsewhere, where the last item leads:
//
//	 0      2       4
//	+------+-------+- - - - - - - -+
//	| type | bytes | payload       |      1 lineage: id 16, start position 8
//	| u16  | u16   |               |      2 mirror: sync_ptr 8, id length 2 (bit 15: kept, 14: lineage), id, lineage 16, url
//	+------+-------+- - - - - - - -+      3 snapshot: position 8, root 8, height 4, flags 4, size 8, time 8, mapped 8, gone 8,
//	                                        logged 8, log: segment 4, chunk 4, next 4, prev crc 4, seq 8; name
//	                                      4 clone: snapshot's length 2, snapshot, name's length 2, name, path
//	                                      5 base: container 16, position 8, snapshot's length 2, snapshot, path
//	                                      6 more: reference 8 (with the checksum of all its bytes), bytes 4
//	                                     17 next: as lineage; all of them take the place of the lineage when the jump
//	                                        epoch that is under way is whole
//
// # Segment (segment.go)
//
// Batches from its first chunk on, and in its last summary_chunks chunks, once it is sealed, the summary.
// A segment's row in the segment tree is 16 bytes:
//
//	 0            4       5      6      8              16
//	+------------+-------+------+------+--------------+
//	| live chunks| state | kind | zero | max position |
//	|    u32     |  u8   |  u8  |      |     u64      |
//	+------------+-------+------+------+--------------+
//
// Only data chunks and map pages are live or dead; batch headers and summaries are never counted.
//
// # Batch (batch.go)
//
// One header chunk, then the data chunks of its data entries in the order of the entries.
//
//	 0      4    6    7     8            16    24      32    40     48       56     60     64     68    70    72    96
//	+------+----+----+-----+------------+-----+-------+-----+------+--------+------+------+------+-----+-----+- -+--------+- -+----+
//	| CBAT |vers|kind|flags| uuid, first| seq | first | end | time | logged |incar-| crc  | next |ent- |data |   |entries |   |crc |
//	| u32  |u16 |u8  |u8   | 8 bytes    | u64 | pos   | pos | ns   | chunks |nation| prev | seg  |ries |     |   |24 each |   |u32 |
//	+------+----+----+-----+------------+-----+-------+-----+------+--------+------+------+------+-----+-----+- -+--------+- -+----+
//
// The header of log batch n+1 holds the crc of the header of log batch n: a batch follows only the one
// that it was written after. flags: 1 commit, the records up to here may be shown (a mirror's epoch ends
// here; a source's every batch has it), 2 restart, what was not committed before it is void, 4 jump, of an epoch that
// holds, of each chunk that was born in [first, end), only the newest content as of end; all of its batches have
// the same first and end. next is the segment in which the log goes on when this one is full.
// logged is the number of data chunks that the log took before this batch, in the life of the volume.
//
// A cold batch holds chunks that cleaning moved, with the births and checksums that they had. Its prev is the checksum of the
// header before it in the same segment, 0 in the first; [first, end) spans its births; seq, logged and next are zero.
//
// An entry is the inverse map of one record:
//
//	 0       8            14     15      16      20      24
//	+-------+------------+------+-------+-------+-------+
//	| birth | lba u48    | kind | level | count | crc   |
//	+-------+------------+------+-------+-------+-------+
//
// kind 1 data: count is 1, crc is of the chunk. kind 2 discard, 3 zero: count chunks from lba, no data.
// kind 6 size: the volume has grown by count chunks from lba on; in a jump epoch only their end tells something.
// kind 5 map page: birth is the checkpoint sequence, lba the page's number in its level, count its tree.
//
// # Summary (segment.go)
//
//	 0      4    6    7     8            16        20       24             32     36     64
//	+------+----+----+-----+------------+---------+--------+--------------+------+- - -+- - - - - - -+- -+----+
//	| CSUM |vers|kind|zero | uuid, first| segment | incar- | max position |slots |     |slots entries|   |crc |
//	| u32  |u16 |u8  |     | 8 bytes    | u32     | nation | u64          | u32  |     | 24 each     |   |u32 |
//	+------+----+----+-----+------------+---------+--------+--------------+------+- - -+- - - - - - -+- -+----+
//
// Slot i is chunk i of the segment: the entry of the data or page that is there, kind 4 for a batch
// header, kind 0 for nothing. It makes the inverse map one look-up, and cleaning one read.
//
// # Map page (ref.go)
//
// 512 references of 8 bytes, or 256 rows of the segment tree. A page has no header: the reference that
// leads to it holds its checksum.
//
//	 0                       39 40             63
//	+--------------------------+----------------+
//	| physical chunk, 40 bits  | crc, low 24    |
//	+--------------------------+----------------+
//
// Bit 39 of the physical chunk is zero on disk: it is memory's mark of a page that is not on disk yet.
package format

import (
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// Version is the version of every structure here; another one is refused.
	Version = 1
	// ChunkSize is the unit of mapping, in bytes.
	ChunkSize = 4096
	// DataStart is the physical chunk at which segment 0 begins.
	DataStart = 256
	// DefaultSegmentChunks makes segments of 8 MiB.
	DefaultSegmentChunks = 2048
	// MaxLogicalSize bounds a volume's logical size, in bytes: 16 TiB.
	MaxLogicalSize = 16 << 40

	crcAt = ChunkSize - 4
)

// Three errors that must not be taken for each other: not ours, ours but of another version, ours but damaged.
var (
	ErrMagic    = errors.New("not a cawrm structure (wrong magic)")
	ErrVersion  = errors.New("written by another version of cawrm")
	ErrChecksum = errors.New("checksum does not match: damaged or torn")
	ErrInvalid  = errors.New("checksum matches but a field is out of range")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the CRC32C of b.
func Sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Position numbers a record in the volume's life; it only grows and is never reused.
type Position uint64

// UUID names a container, a volume or a lineage.
type UUID [16]byte

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// IsZero tells that no identity has been given yet.
func (u UUID) IsZero() bool { return u == UUID{} }

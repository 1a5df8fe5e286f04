// Package delta is the file of `cawrm send`: what a volume held at one of its snapshots, or what changed between two, as bytes,
// and nothing but bytes. Encoder and decoder stand beside each other in the file that is named in the heading. A Writer and a
// Reader belong to one goroutine each. All integers are little-endian.
//
// # The file
//
//	HEAD  BODY  BODY ... BODY  END
//
// It says of which volume it is, between which positions of whose history, and holds each logical chunk that was written between
// them once, in its newest content, in the order of the chunks, and after that what was discarded. A mirror takes it as
// one epoch: what END does not bear out is never shown. Files of any age can be read, whatever the frames of the link have become.
//
// # Frame (frame.go)
//
//	 0      4      5         6      8        12      16       20     24
//	+------+------+---------+------+--------+-------+--------+------+- - - - - -+
//	| CWDL | type | version | zero | length | plain | number | crc  | payload   |
//	|      | u8   | u8      | u16  | u32    | u32   | u32    | u32  |           |
//	+------+------+---------+------+--------+-------+--------+------+- - - - - -+
//
// length is the payload's, at most 2 MiB. crc is CRC32C (Castagnoli) of the header's first 20 bytes and of the payload. number
// counts the frames from 0, so that one which is missing or comes twice is found. plain is 0 when the payload is as it is; else
// the payload is a zstd frame, without dictionary, that expands to exactly so many bytes, at most 2 MiB.
// Types: 1 HEAD, 2 BODY, 3 END. The version is 1.
//
// # HEAD (head.go)
//
//	 0        16     24     32    40     48     56       64      66      68      70    72
//	+--------+------+------+-----+------+------+--------+-------+-------+-------+------+- - -+- - - -+- - - - - -+
//	| volume | size | from | to  | time | base | cursor | to    | from  | links | zero | to  | from  | links     |
//	| id 16  | u64  | pos  | pos | ns   | pos  | chunk  | bytes | bytes | u16   | u16  |name | name  | 24 each   |
//	+--------+------+------+-----+------+------+--------+-------+-------+-------+------+- - -+- - - -+- - - - - -+
//
// The file leads from position from, of the snapshot of that name, or of the beginning when the name is empty, to position
// to, of the snapshot of that name, which was made at time. links is the lineage of the history to there: id 16, start 8. A
// file that goes on where another broke off leaves out what its reader has: of the chunks below cursor those that were written before
// position base; both are 0 in any other.
//
// # BODY (body.go)
//
//	 0         4      8
//	+---------+------+- - - - - - - -+- - - - - - - -+
//	| entries | data | entries       | data          |
//	| u32     | u32  | 24 each       | 4096 each     |
//	+---------+------+- - - - - - - -+- - - - - - - -+
//
//	 0       8            14     15     16      20      24
//	+-------+------------+------+------+-------+-------+
//	| birth | lba u48    | kind | zero | count | crc   |
//	+-------+------------+------+------+-------+-------+
//
// Entries as in a mirror's RECORDS: kinds 1 data (count 1, crc of the chunk), 2 discard, 3 zero. from <= birth < to. The chunks
// of a frame grow, and all data entries of the file do.
//
// # END (body.go)
//
//	 0         8      16       48
//	+---------+------+--------+
//	| entries | data | sha256 |    the numbers in all BODY frames, and the hash of all bytes of the file before this frame
//	| u64     | u64  | 32     |
//	+---------+------+--------+
//
// Absences: no signature and no encryption. Whoever can write the file can make one that says anything.
package delta

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	// Version of the format; another one is refused.
	Version = 1
	// MaxPayload bounds the payload of a frame, also as it is expanded, in bytes.
	MaxPayload = 2 << 20
	// MaxEntries bounds the entries of a BODY, MaxName a name in bytes, MaxLinks a lineage.
	MaxEntries = 16384
	MaxName    = 255
	MaxLinks   = 2048
)

// Errors that must not be taken for each other: not such a file, of another version, damaged, senseless.
var (
	ErrMagic    = errors.New("not a file of `cawrm send`")
	ErrVersion  = errors.New("another version of the format")
	ErrChecksum = errors.New("checksum does not match: the file is damaged")
	ErrInvalid  = errors.New("invalid file")
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Package wire is the stream between a source and its mirror's peer: bytes, and nothing but bytes.
//
// Every frame is described here and only here; encoder and decoder stand beside each other in the file
// that is named in the heading. Encoders are pure and may be called from any goroutine; a Reader belongs to
// one. All integers are little-endian. All checksums are CRC32C (Castagnoli). Every length is bounded
// before anything is allocated by it, and a Reader that has not been told to allow a type of frame allocates
// nothing for it: 64 KiB is the most that a stranger gets before its HELLO was understood.
//
// # The stream
//
//	source                                                     peer
//	  | HELLO    which volume, which NAME, how far durable  -->  |
//	  |  <-- WELCOME  where the mirror stands   (or REFUSE, end) |
//	  | BEAT     I take it (or REFUSE, end)                 -->  |
//	  | RECORDS  RECORDS  RECORDS|commit  RECORDS|commit    -->  |
//	  |  <-- ACK      committed up to here                       |
//	  | BEAT     whenever nothing was sent for an interval  -->  |
//	  |  <-- BEAT     whenever nothing was sent for an interval  |
//
// The source never waits for an ACK before it sends on, but where a snapshot stands. BEAT is not answered: each side sends it of its own
// accord, so that a slow line, on which a question would queue behind megabytes of records, is
// not taken for a dead one.
//
// # Frame (frame.go)
//
//	 0      4      5       6      8         12     16
//	+------+------+-------+------+---------+------+- - - - - - -+- - - - - - - -+
//	| CWRM | type | flags | zero | length  | crc  | control     | data          |
//	|      | u8   | u8    | u16  | u32     | u32  |             | RECORDS only  |
//	+------+------+-------+------+---------+------+- - - - - - -+- - - - - - - -+
//
// length counts what follows the header. crc is of the header's first 12 bytes and of the control part. Data
// is not covered by it: each chunk has its own checksum in its entry. A flag that is not named here, and
// anything else than zero where it says zero, is refused.
//
//	type        length       flags
//	1 HELLO     <= 64 KiB
//	2 WELCOME   <= 64 KiB
//	3 REFUSE    <= 2 KiB
//	4 RECORDS   <= 2 MiB     1 commit: an epoch ends here, 2 jump: of a jump epoch, 4 packed: the data is a zstd frame, 8 terse
//	5 ACK       8
//	6 BEAT      0
//	7 SNAPSHOT  25 to 279
//	8 KEPT      8 to 1032
//	16 RANGES   <= 64 KiB    1 last: no other follows
//	17 FOLLOW   0
//	18 HANDOVER 8
//	19 TAKEN    0
//	20 CHECK    24 to 8216
//	21 SUMS     24 to 8216
//
// # HELLO (hello.go)
//
//	 0        2      4          8              16        32           48      56            64      66      68    72
//	+--------+------+----------+--------------+---------+------------+-------+-------------+-------+-------+-----+- - - +- - - - - - -+
//	|version | zero |keep-alive| capabilities | volume  | container  |logical|source's     | name  | links | zero| name | links       |
//	| u16    |      |   ms u32 | offered u64  | id 16   | uuid 16    |size   |durable_ptr  | bytes | u16   |     |      | 24 each     |
//	+--------+------+----------+--------------+---------+------------+-------+-------------+-------+-------+-----+- - - +- - - - - - -+
//
// A link of the lineage is id 16, start 8. The container's uuid tells two sources of one volume apart.
//
// # WELCOME (hello.go)
//
//	 0        2      4      6      8              16        32         40       48       56      58      60    64
//	+--------+------+------+------+--------------+---------+----------+--------+--------+-------+-------+-----+- - - +- - - - - - -+- - - - -+- - - - - -+
//	|version | flags|newer | zero | capabilities | volume  | sync_ptr | base   | cursor | name  | links | zero| name | links       | newer   | container |
//	| u16    |      |u16   |      | taken u64    | id 16   |          | pos    | chunk  | bytes | u16   |     |      | 24 each     | 16 each | uuid 16   |
//	+--------+------+------+------+--------------+---------+----------+--------+--------+-------+-------+-----+- - - +- - - - - - -+- - - - -+- - - - - -+
//
// A volume id of zero means "none yet": the mirror is empty and takes the source's. sync_ptr is the position
// of the last committed cut, name the peer's own. With a base other than zero the mirror has got a part of a jump epoch: the
// chunks below cursor as of base, and those below the cursors of newer, at most 15, as of their bases (format.Reached). flags: 1, it is a primary and takes nothing, and sync_ptr is its durable_ptr; 2, it has
// records which the source lacks, and leaves them for the source's: RANGES follow, which say where.
// The capabilities taken are a subset of those offered;
// 1: CapSnapshots, 0x100: CapCheck, 0x200: CapContainer, 0x400: CapReferences. With 0x200 the frame ends with the container's uuid, else it has none: so a
// source knows a head that it has met when that is a mirror, and takes no other member of the same lineage for it.
//
// # REFUSE (control.go)
//
//	 0      2
//	+------+- - - - - - - -+
//	| code | text, UTF-8   |    said before closing, by either side, at any time
//	| u16  | <= 1024       |
//	+------+- - - - - - - -+
//
// # RECORDS (records.go, pack.go, window.go, refer.go)
//
//	 0        8      16      24        28     32
//	+--------+------+-------+---------+------+- - - - - - -+- - - - - - - - -+
//	| first  | end  | time  | entries | data | entries     | data            |
//	| pos    | pos  | ns    | u32     | bytes| 24 each     |                 |
//	+--------+------+-------+---------+------+- - - - - - -+- - - - - - - - -+
//
//	 0       8            14     15      16      20      24
//	+-------+------------+------+-------+-------+-------+
//	| birth | lba u48    | kind | form  | count | crc   |
//	+-------+------------+------+-------+-------+-------+
//
// The content of a data entry is told in one of these forms; other kinds have form 0.
//
//	0 plain     its 4096 bytes stand in the data, behind those of the plain entry before; count is 1
//	1 zero      it holds zeroes only; count is 1
//	2 repeat    it is the same as the chunk of the window that is count back, 1 for the last one
//	3 delta     4096 bytes stand in the data as of a plain one: its content exclusive or that of the chunk that is count back
//
// Both sides keep the last 4096 chunks that came plain or as a delta, in all RECORDS of the connection: the window. What is made of a frame is at
// most 2 MiB, as when all of it were plain.
//
// The data's length after the entries must be that of the field. With the flag packed it is a zstd frame instead, without
// dictionary unless there are references, shorter than the field says, which must expand to what it says. zstd is only used where it saves at least a sixteenth.
//
// With the flag terse, and only with the capability 0x400, this stands in the place of the entries (refer.go):
//
//	32           36      40        56
//	+------------+-------+--------+- - - -+
//	| references | table | digest | table |    the table is a zstd frame of so many bytes, and expands to the columns of the entries, 24 bytes
//	| u32        | u32   | 16     |       |    each, and of the references, 8 bytes each, at most 512
//	+------------+-------+--------+- - - -+
//
// Columns: of each u64 of a row, but of the one with count and crc, the difference to that of the row before; then the first byte of all rows, the
// second of all, and so on. A reference is a chunk back in the window, times 2, plus 1; or times 2 the number of a logical chunk that the peer
// shows. Their contents one after the other are the dictionary of the data's zstd frame, which has the id 1; digest is the first half of their SHA-256, or of nothing.
// The data is packed if there are references. A source refers to nothing that the peer does not show all the time from when the frame was packed
// until it is read: known.go. A peer that finds another digest, or cannot read a chunk, takes nothing of the frame and says REFUSE with code 14; the source comes
// back without the capability.
//
// Records [first, end) in the order of the log, births growing; there may be fewer entries than
// positions where cleaning has dropped what was superseded. Kinds as on disk: 1 data (one chunk, crc of it),
// 2 discard, 3 zero (count chunks, no data). time is that of the first record.
//
// The frames of a jump epoch all say the same [first, end): together they hold, of all that was born in it, the newest
// content as of end, each chunk once; a mirror that leaves a branch of its own gets older ones too. The entries of a frame are in the order of logical chunks, not of births; the last
// frame commits, and may be empty.
//
// # ACK (control.go)
//
//	 0            8
//	+------------+
//	| sync_ptr   |    all records below it are committed: durable, and shown
//	+------------+
//
// # SNAPSHOT, KEPT (snapshot.go)
//
//	 0          8      16     24
//	+----------+------+------+- - - - - - - - -+
//	| position | time | size | name, UTF-8     |    the mirror is to keep what it shows as this snapshot of the source
//	| pos      | ns   | u64  | 1 to 255        |
//	+----------+------+------+- - - - - - - - -+
//
//	 0          8
//	+----------+- - - - - - - -+
//	| position | text, UTF-8   |    it does, durably; or it does not, for this reason
//	| pos      | <= 1024       |
//	+----------+- - - - - - - -+
//
// A source says SNAPSHOT only after the ACK of exactly that position, and nothing but BEAT until it has heard KEPT. It says it
// again when it cannot know the answer; the mirror then says KEPT again. Only with CapSnapshots.
//
// # When roles change (branch.go)
//
//	RANGES     after a WELCOME with flag 2: first u64, end u64 of each range of chunks that the mirror has changed where
//	           its history is not the source's; in order, apart. In as many frames as it takes, of which the last has the flag.
//	FOLLOW     from a source, after a WELCOME with flag 1: it is a mirror itself, or has become one. The sides change
//	           places: the other one says HELLO over the same connection, and all goes on from there.
//	HANDOVER   position u64, from a source: it takes no more writes, its log ends there, and the mirror, which has
//	           acknowledged that, becomes the primary.
//	TAKEN      the answer: it is. Then the mirror hangs up. Or REFUSE.
//
// # CHECK and SUMS (check.go)
//
//	 0     1        2      8       16      24
//	+-----+--------+------+-------+-------+- - - -+
//	| op  | failed | zero | first | count | body  |    a source asks by CHECK, its peer answers each but the last op by SUMS with
//	| u8  | u8     |      | u64   | u64   |       |    the same op and first; failed: the body says why
//	+-----+--------+------+-------+-------+- - - -+
//
// 1 open: hold still at position first, which the stream has just come to. 2 ranges: the answer's body has a digest of 16 bytes for
// each of count ranges of 1024 chunks from range first on, the first half of SHA-256 of the numbers (u64) and contents of those that are not
// all zeroes; of 16 bytes 0xff when a chunk cannot be read. 3 chunks: 8 bytes for each chunk of range first: 0 for zeroes, 0xff for what
// cannot be read, else the beginning of SHA-256 of its content. 4 fetch: the body is chunk first, as it is held. 5 mend: the question's body
// is what chunk first should hold; the answer's count is 1 if that was needed. 6 want: the body is chunk first as it is now, if the low 24
// bits of its checksum are count. 7 close. Only where WELCOME takes the capability 0x100.
//
// # Versions
//
// The frame header, the place of the version in HELLO and WELCOME, and REFUSE stay as they are in all
// versions, so that each version can tell any other why it will not talk to it.
//
// Absences: no encryption here (the connection below may be TLS), no negotiation beyond the capability bits.
package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

const (
	// Version of the protocol; another one is refused.
	Version = 3

	// MaxHello bounds HELLO and WELCOME, MaxRecords a RECORDS frame, in bytes.
	MaxHello   = 64 << 10
	MaxRecords = 2 << 20
	// MaxEntries bounds the entries of one RECORDS frame.
	MaxEntries = 16384
	// MaxName bounds a NAME, MaxText a refusal's text, in bytes.
	MaxName = 1024
	MaxText = 1024
	// CapSnapshots is the capability that the mirror keeps the source's snapshots.
	CapSnapshots = 1 << 0

	// MaxLinks bounds a lineage.
	MaxLinks = 2048
	// MaxKeepAlive bounds the interval that a source may ask for.
	MaxKeepAlive = time.Minute
)

// Errors that must not be taken for each other: not ours, ours but of another version, damaged, senseless,
// not to be said at this moment.
var (
	ErrMagic      = errors.New("not a cawrm mirror stream")
	ErrVersion    = errors.New("another protocol version")
	ErrChecksum   = errors.New("frame checksum does not match: damaged on the way")
	ErrInvalid    = errors.New("invalid frame")
	ErrUnexpected = errors.New("frame out of turn")
)

var le = binary.LittleEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

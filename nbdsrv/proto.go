package nbdsrv

// The constants of the protocol that go-nbd's pkg/protocol lacks, in the words of the protocol
// document (NetworkBlockDevice/nbd, doc/proto.md; "ext" marks its branch extension-ext-header).
// Everything on the wire is big-endian.

// Handshake phase, "Handshake flags" and "Client flags".
const (
	flagNoZeroes      = uint16(1 << 1)
	clientFixed       = uint32(1 << 0)
	clientNoZeroes    = uint32(1 << 1)
	exportNameZeroes  = 124 // "Newstyle negotiation": reserved bytes after the export's flags
	maxString         = 4096
	optionHeaderSize  = 16
	optionReplySize   = 20
	requestSize       = 28 // "Request message"
	extRequestSize    = 32 // ext, "Request message"
	simpleReplySize   = 16 // "Simple reply message"
	structReplySize   = 20 // "Structured reply chunk message"
	extReplySize      = 32 // ext, "Extended reply chunk message"
	offsetSize        = 8  // what NBD_REPLY_TYPE_OFFSET_DATA and _HOLE start with
	extendedReqMagic  = uint32(0x21e41c71)
	structReplyMagic  = uint32(0x668e33ef)
	extendedRepMagic  = uint32(0x6e8a278c)
	metaAllocation    = "base:allocation"
	metaAllocationID  = uint32(1)
	metaBaseNamespace = "base:"
)

// "Option types".
const (
	optExportName      = uint32(1)
	optStartTLS        = uint32(5)
	optStructuredReply = uint32(8)
	optListMetaContext = uint32(9)
	optSetMetaContext  = uint32(10)
	optExtendedHeaders = uint32(11) // ext
)

// "Option reply types".
const (
	repMetaContext      = uint32(4)
	repErrPolicy        = uint32(1<<31 | 2)
	repErrInvalid       = uint32(1<<31 | 3)
	repErrTLSRequired   = uint32(1<<31 | 5)
	repErrShutdown      = uint32(1<<31 | 7)
	repErrTooBig        = uint32(1<<31 | 9)
	repErrExtHeaderReqd = uint32(1<<31 | 10) // ext
)

// "Transmission flags".
const (
	flagReadOnly           = uint16(1 << 1)
	flagSendFlush          = uint16(1 << 2)
	flagSendFUA            = uint16(1 << 3)
	flagRotational         = uint16(1 << 4)
	flagSendTrim           = uint16(1 << 5)
	flagSendWriteZeroes    = uint16(1 << 6)
	flagSendDF             = uint16(1 << 7)
	flagSendCache          = uint16(1 << 10)
	flagSendFastZero       = uint16(1 << 11)
	flagBlockStatusPayload = uint16(1 << 12) // ext
)

// "Request types".
const (
	cmdFlush       = uint16(3)
	cmdTrim        = uint16(4)
	cmdCache       = uint16(5)
	cmdWriteZeroes = uint16(6)
	cmdBlockStatus = uint16(7)
)

// "Command flags".
const (
	cmdFlagFUA        = uint16(1 << 0)
	cmdFlagNoHole     = uint16(1 << 1)
	cmdFlagDF         = uint16(1 << 2)
	cmdFlagReqOne     = uint16(1 << 3)
	cmdFlagFastZero   = uint16(1 << 4)
	cmdFlagPayloadLen = uint16(1 << 5) // ext
)

// "Structured reply flags" and "Structured reply types".
const (
	replyFlagDone       = uint16(1 << 0)
	replyNone           = uint16(0)
	replyOffsetData     = uint16(1)
	replyOffsetHole     = uint16(2)
	replyBlockStatus    = uint16(5)
	replyBlockStatusExt = uint16(6) // ext
	replyError          = uint16(1<<15 | 1)
)

// "The base:allocation metadata context": what Device.Extents reports for an extent.
const (
	StateHole uint32 = 1 << 0 // not allocated: a write may need new space
	StateZero uint32 = 1 << 1 // reads as zeroes
)

// "Error values".
const (
	errPerm     = uint32(1)
	errIO       = uint32(5)
	errNoMem    = uint32(12)
	errInval    = uint32(22)
	errNoSpace  = uint32(28)
	errOverflow = uint32(75)
	errNotSup   = uint32(95)
	errShutdown = uint32(108)
)

package nbdclient

import "fmt"

// Numbers of the protocol document (NetworkBlockDevice/nbd, doc/proto.md).
const (
	magicInit    = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicOptRep  = 0x0003e889045565a9
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1

	optGo = 7

	repAck     = 1
	repInfo    = 3
	repErrBit  = 1 << 31
	infoExport = 0

	maxOptReply = 64 << 10 // no server has reason to say more in one reply
)

// Command is an NBD request type.
type Command uint16

const (
	Read        Command = 0
	Write       Command = 1
	disconnect  Command = 2
	Flush       Command = 3
	Trim        Command = 4
	WriteZeroes Command = 6
)

func (c Command) String() string {
	switch c {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Trim:
		return "trim"
	case WriteZeroes:
		return "write zeroes"
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// Flags of a request.
type Flags uint16

const (
	FUA    Flags = 1 << 0
	NoHole Flags = 1 << 1
)

// Transmission flags that the server offers for an export.
const (
	HasFlags       = 1 << 0
	ReadOnly       = 1 << 1
	CanFlush       = 1 << 2
	CanFUA         = 1 << 3
	CanTrim        = 1 << 5
	CanWriteZeroes = 1 << 6
	CanMultiConn   = 1 << 8
)

// Error is an error number in a reply: the request failed, the connection
// goes on.
type Error uint32

const (
	EPERM     Error = 1
	EIO       Error = 5
	EINVAL    Error = 22
	ENOSPC    Error = 28
	ENOTSUP   Error = 95
	ESHUTDOWN Error = 108
)

func (e Error) Error() string {
	switch e {
	case EPERM:
		return "the server says EPERM"
	case EIO:
		return "the server says EIO"
	case EINVAL:
		return "the server says EINVAL"
	case ENOSPC:
		return "the server says ENOSPC"
	case ENOTSUP:
		return "the server says ENOTSUP"
	case ESHUTDOWN:
		return "the server says ESHUTDOWN"
	}
	return fmt.Sprintf("the server says error %d", uint32(e))
}

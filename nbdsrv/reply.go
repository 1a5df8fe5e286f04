package nbdsrv

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// mode is the kind of headers that the handshake has settled for a connection.
type mode uint8

const (
	simple     mode = iota // compact requests, simple replies
	structured             // compact requests, structured chunks where there is a payload
	extended               // extended requests, extended chunks only
)

// dataHeaderSize is what stands before the data of a successful read sent as one piece.
func (m mode) dataHeaderSize() int {
	switch m {
	case simple:
		return simpleReplySize
	case structured:
		return structReplySize + offsetSize
	}
	return extReplySize + offsetSize
}

// appendData appends the header of a read's only piece of data: all that it asked for.
func (m mode) appendData(b []byte, r *request) []byte {
	if m == simple {
		return appendSimple(b, r, 0)
	}
	return m.appendDataChunk(b, r, replyFlagDone, r.offset, uint32(r.length))
}

// appendDataChunk appends the header of a chunk with n bytes of data from off.
func (m mode) appendDataChunk(b []byte, r *request, flags uint16, off uint64, n uint32) []byte {
	b = m.appendChunk(b, r, flags, replyOffsetData, offsetSize+n)
	return binary.BigEndian.AppendUint64(b, off)
}

// appendHole appends a chunk that says that n bytes from off are zeroes.
func (m mode) appendHole(b []byte, r *request, flags uint16, off uint64, n uint32) []byte {
	b = m.appendChunk(b, r, flags, replyOffsetHole, offsetSize+4)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, n)
}

// appendDone appends the answer of a request that has succeeded and returns no data.
func (m mode) appendDone(b []byte, r *request) []byte {
	if m == simple || (m == structured && r.typ != protocol.TRANSMISSION_TYPE_REQUEST_READ) {
		return appendSimple(b, r, 0)
	}
	return m.appendChunk(b, r, replyFlagDone, replyNone, 0)
}

// appendError appends the answer of a request that has failed. The text goes only where the
// protocol has a place for it.
func (m mode) appendError(b []byte, r *request, code uint32, text string) []byte {
	if m == simple {
		return appendSimple(b, r, code)
	}
	b = m.appendChunk(b, r, replyFlagDone, replyError, uint32(6+len(text)))
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...)
}

// appendChunk appends the header of a structured or extended chunk with n bytes of payload.
func (m mode) appendChunk(b []byte, r *request, flags, typ uint16, n uint32) []byte {
	if m == structured {
		b = binary.BigEndian.AppendUint32(b, structReplyMagic)
	} else {
		b = binary.BigEndian.AppendUint32(b, extendedRepMagic)
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	if m == structured {
		return binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

func appendSimple(b []byte, r *request, code uint32) []byte {
	h := protocol.TransmissionReplyHeader{
		ReplyMagic: protocol.TRANSMISSION_MAGIC_REPLY, Error: code, Handle: r.cookie,
	}
	b = binary.BigEndian.AppendUint32(b, h.ReplyMagic)
	b = binary.BigEndian.AppendUint32(b, h.Error)
	return binary.BigEndian.AppendUint64(b, h.Handle)
}

// replySize is the size of the header of a chunk.
func (m mode) replySize() int {
	if m == extended {
		return extReplySize
	}
	return structReplySize
}

func (m mode) statusType() uint16 {
	if m == extended {
		return replyBlockStatusExt
	}
	return replyBlockStatus
}

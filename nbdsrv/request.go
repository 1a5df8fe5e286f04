package nbdsrv

import (
	"encoding/binary"
	"errors"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

var errMagic = errors.New("bad request magic")

// request is a decoded request header of either size.
type request struct {
	cookie uint64
	offset uint64
	length uint64 // effect length; for a write, and with NBD_CMD_FLAG_PAYLOAD_LEN, of the payload
	flags  uint16
	typ    uint16
}

// headerSize is the size of a request header.
func (m mode) headerSize() int {
	if m == extended {
		return extRequestSize
	}
	return requestSize
}

// decode reads the request header at the start of b, which holds headerSize bytes.
func (m mode) decode(b []byte) (request, error) {
	if m == extended {
		return decodeExtended(b)
	}
	h := protocol.TransmissionRequestHeader{
		RequestMagic: binary.BigEndian.Uint32(b),
		CommandFlags: binary.BigEndian.Uint16(b[4:]),
		Type:         binary.BigEndian.Uint16(b[6:]),
		Handle:       binary.BigEndian.Uint64(b[8:]),
		Offset:       binary.BigEndian.Uint64(b[16:]),
		Length:       binary.BigEndian.Uint32(b[24:]),
	}
	if h.RequestMagic != protocol.TRANSMISSION_MAGIC_REQUEST {
		return request{}, errMagic
	}
	return request{h.Handle, h.Offset, uint64(h.Length), h.CommandFlags, h.Type}, nil
}

func decodeExtended(b []byte) (request, error) {
	if binary.BigEndian.Uint32(b) != extendedReqMagic {
		return request{}, errMagic
	}
	return request{
		flags:  binary.BigEndian.Uint16(b[4:]),
		typ:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		offset: binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint64(b[24:]),
	}, nil
}

// payload is the number of bytes that follow the header on the wire.
func (m mode) payload(r *request) uint64 {
	if m == extended {
		if r.flags&cmdFlagPayloadLen != 0 {
			return r.length
		}
		return 0
	}
	if r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
		return r.length
	}
	return 0
}

// refusal is why a request is not served: an error value and a few words. The zero refusal is none.
type refusal struct {
	code uint32
	text string
}

var (
	refuseCommand  = refusal{errInval, "unknown command"}
	refuseFlags    = refusal{errInval, "flag not valid for this command"}
	refusePayload  = refusal{errInval, "payload flag does not fit this command"}
	refuseReadOnly = refusal{errPerm, "the export is read-only"}
	refuseAlign    = refusal{errInval, "not a multiple of the minimum block size"}
	refuseRange    = refusal{errInval, "beyond the end of the export"}
	refuseSpace    = refusal{errNoSpace, "beyond the end of the export"}
	refuseLarge    = refusal{errInval, "larger than the maximum payload"}
	refuseOverflow = refusal{errOverflow, "larger than the maximum payload"}
	refuseContext  = refusal{errInval, "no metadata context was selected"}
	refuseEmpty    = refusal{errInval, "empty range"}
	refuseSlow     = refusal{errNotSup, "provisioned zeroes are not fast"}
)

// commandFlags are the flags that a command may carry. FUA is good on all of them: the protocol has
// a server accept it everywhere once it is advertised.
func (v *view) commandFlags(typ uint16) (uint16, bool) {
	f := cmdFlagFUA
	switch typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		if v.mode != simple {
			f |= cmdFlagDF
		}
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		if v.mode == extended {
			f |= cmdFlagPayloadLen
		}
	case cmdWriteZeroes:
		f |= cmdFlagNoHole | cmdFlagFastZero
	case cmdBlockStatus:
		f |= cmdFlagReqOne
		if v.mode == extended && v.metaSelected {
			f |= cmdFlagPayloadLen
		}
	case cmdFlush, cmdTrim, cmdCache:
	default:
		return 0, false
	}
	return f, true
}

// view is what a connection has settled with its client: one export, seen at one size.
type view struct {
	export       *Export
	size         uint64 // bytes; the reader's, which looks again when a request goes beyond
	mode         mode
	metaSelected bool // base:allocation
	readOnly     bool // the export is, or is for this client
}

// check says whether a request may be served as it stands. After it, offset and length fit an
// int64 and lie inside the export.
func (v *view) check(r *request) refusal {
	allowed, known := v.commandFlags(r.typ)
	switch {
	case !known:
		return refuseCommand
	case r.flags&^allowed != 0:
		return refuseFlags
	}
	switch r.typ {
	case cmdFlush:
		return refusal{}
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		if v.mode == extended && r.flags&cmdFlagPayloadLen == 0 {
			return refusePayload
		}
		fallthrough
	case cmdTrim, cmdWriteZeroes:
		if v.readOnly {
			return refuseReadOnly
		}
	case cmdBlockStatus:
		if !v.metaSelected {
			return refuseContext
		}
		if r.flags&cmdFlagPayloadLen != 0 {
			return refusal{} // the range is in the payload: checkRange follows when it is read
		}
	}
	return v.checkRange(r)
}

func (v *view) inside(r *request) bool { return r.offset <= v.size && r.length <= v.size-r.offset }

// checkRange is the part of check about offset and length.
func (v *view) checkRange(r *request) refusal {
	if !v.inside(r) {
		v.size = max(v.size, v.export.size()) // it may have grown, and the client know: the kernel can be told
	}
	if !v.inside(r) {
		if r.typ == protocol.TRANSMISSION_TYPE_REQUEST_WRITE || r.typ == cmdWriteZeroes {
			return refuseSpace
		}
		return refuseRange
	}
	if (r.offset|r.length)&uint64(v.export.MinBlock-1) != 0 {
		return refuseAlign
	}
	switch r.typ {
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		if r.length > uint64(v.export.MaxPayload) {
			if v.mode != simple {
				return refuseOverflow
			}
			return refuseLarge
		}
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE:
		if r.length > uint64(v.export.MaxPayload) {
			return refuseLarge
		}
	case cmdBlockStatus:
		if r.length == 0 {
			return refuseEmpty
		}
	case cmdWriteZeroes:
		if r.flags&cmdFlagFastZero != 0 && r.flags&cmdFlagNoHole != 0 {
			return refuseSlow
		}
	}
	return refusal{}
}

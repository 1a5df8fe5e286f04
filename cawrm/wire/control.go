package wire

import (
	"fmt"
	"strings"

	"cawrm/aodi/format"
)

// Code says why a side refuses the other.
type Code uint16

// The reasons of a refusal.
const (
	CodeGarbage     Code = 1  // what came was no HELLO, or a frame that makes no sense
	CodeVersion     Code = 2  // another protocol version
	CodeUnknownName Code = 3  // no volume of that NAME is served here
	CodeNotMirror   Code = 4  // the volume there is a primary
	CodeOtherVolume Code = 5  // the mirror belongs to another volume
	CodeOtherSize   Code = 6  // the logical sizes differ
	CodeAhead       Code = 7  // the mirror holds what its source does not
	CodeDiverged    Code = 8  // the histories part
	CodeBusy        Code = 9  // another source is connected
	CodeFailed      Code = 10 // the volume there cannot go on: its error
	CodeLied        Code = 11 // the other side claims what cannot be
	CodeClosing     Code = 12 // the daemon there is stopping
	CodeTrust       Code = 13 // the other side has not proved that it may do this
	CodeReference   Code = 14 // a frame refers to what is not held there
)

var codeNames = [...]string{CodeGarbage: "garbage", CodeVersion: "version", CodeUnknownName: "unknown name",
	CodeNotMirror: "not a mirror", CodeOtherVolume: "other volume", CodeOtherSize: "other size", CodeAhead: "ahead",
	CodeDiverged: "diverged", CodeBusy: "busy", CodeFailed: "failed", CodeLied: "lied", CodeClosing: "closing", CodeTrust: "not trusted", CodeReference: "reference"}

func (c Code) String() string {
	if int(c) < len(codeNames) && c != 0 {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// AppendRefuse appends a REFUSE frame; a text that is too long is cut.
func AppendRefuse(b []byte, c Code, text string) []byte {
	at := len(b)
	b = beginFrame(b, TypeRefuse, 0)
	b = le.AppendUint16(b, uint16(c))
	b = append(b, strings.ToValidUTF8(text[:min(len(text), MaxText)], "")...)
	return endFrame(b, at, 0)
}

// Refuse decodes the REFUSE that Next has read. Of the text only what prints is left: it goes to logs and terminals.
func (r *Reader) Refuse() (Code, string) {
	return Code(le.Uint16(r.body)), printable(r.body[2:min(len(r.body), 2+MaxText)])
}

// AppendAck appends an ACK frame.
func AppendAck(b []byte, syncPtr format.Position) []byte {
	at := len(b)
	b = beginFrame(b, TypeAck, 0)
	b = le.AppendUint64(b, uint64(syncPtr))
	return endFrame(b, at, 0)
}

// Ack decodes the ACK that Next has read.
func (r *Reader) Ack() format.Position { return format.Position(le.Uint64(r.body)) }

// AppendBeat appends a BEAT frame.
func AppendBeat(b []byte) []byte {
	at := len(b)
	return endFrame(beginFrame(b, TypeBeat, 0), at, 0)
}

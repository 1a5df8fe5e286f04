package wire

import (
	"fmt"
	"strings"
	"unicode"

	"cawrm/aodi/format"
)

// Snapshot is a snapshot of the source, which the mirror is to keep too.
type Snapshot struct {
	Position format.Position
	Time     int64 // when it was made, unix nanoseconds
	Size     int64 // of the volume then, bytes
	Name     string
}

// Kept is the answer to SNAPSHOT.
type Kept struct {
	Position format.Position
	Declined string // why the mirror does not keep it, for people; "": it does
}

// MaxSnapshotName bounds a snapshot's name, in bytes.
const MaxSnapshotName = 255

const (
	snapshotFixed = 24
	keptFixed     = 8
)

// AppendSnapshot appends a SNAPSHOT frame. Errors: a name that is too long.
func AppendSnapshot(b []byte, s *Snapshot) ([]byte, error) {
	if s.Name == "" || len(s.Name) > MaxSnapshotName {
		return b, fmt.Errorf("SNAPSHOT: a name of %d bytes: %w", len(s.Name), ErrInvalid)
	}
	at := len(b)
	b = beginFrame(b, TypeSnapshot, 0)
	b = le.AppendUint64(b, uint64(s.Position))
	b = le.AppendUint64(b, uint64(s.Time))
	b = le.AppendUint64(b, uint64(s.Size))
	b = append(b, s.Name...)
	return endFrame(b, at, 0), nil
}

// Snapshot decodes the SNAPSHOT that Next has read. Whether the name can be one is for the volume to say. Errors: ErrInvalid.
func (r *Reader) Snapshot() (Snapshot, error) {
	b := r.body
	s := Snapshot{Position: format.Position(le.Uint64(b)), Time: int64(le.Uint64(b[8:])), Size: int64(le.Uint64(b[16:])), Name: string(b[snapshotFixed:])}
	if s.Size <= 0 || s.Size > format.MaxLogicalSize || s.Size%format.ChunkSize != 0 {
		return s, fmt.Errorf("SNAPSHOT: size %d: %w", s.Size, ErrInvalid)
	}
	return s, nil
}

// AppendKept appends a KEPT frame; a text that is too long is cut.
func AppendKept(b []byte, k *Kept) []byte {
	at := len(b)
	b = beginFrame(b, TypeKept, 0)
	b = le.AppendUint64(b, uint64(k.Position))
	b = append(b, strings.ToValidUTF8(k.Declined[:min(len(k.Declined), MaxText)], "")...)
	return endFrame(b, at, 0)
}

// Kept decodes the KEPT that Next has read. Of the text only what prints is left, as of a refusal's.
func (r *Reader) Kept() Kept {
	return Kept{format.Position(le.Uint64(r.body)), printable(r.body[keptFixed:])}
}

func printable(b []byte) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, string(b))
}

package cawrm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/delta"
)

// A delta file is a jump epoch on its way by other means: what a snapshot holds, or what changed from one to another, as package
// delta writes it. It leads from a position to a position of one history, so whether a mirror can take it is a comparison of
// positions, as on the link:
//
//	file    from |------------------------------| to
//	mirror           p: any position in [from, to) of the same history; what it has already is left out as it comes
//
// It is staged like any jump epoch: shown when it is whole, borne out by its checksums, and durable. A mirror that was
// interrupted keeps what has come, and the same file, or one that is sent with its Resume, goes on there.

// fileBytes is the data of a frame of a file, about: what is lost where it breaks off.
const fileBytes = 256 << 10

// Send is what is to be sent.
type Send struct {
	From, To string // snapshots; From "": all that To holds
	Resume   Resume // of a reader that has got a part
	// Progress is told how much is written, 0 to 1; nil: nobody asks.
	Progress func(part float64)
}

// Resume says how far a mirror has got with a file: the chunks below Cursor are as of Base. The zero value: not begun.
type Resume struct {
	Base   aodi.Position
	Cursor uint64
}

// String is the text that ParseResume reads, for command lines.
func (r Resume) String() string { return fmt.Sprintf("%d:%d", r.Base, r.Cursor) }

// ParseResume reads what String writes.
func ParseResume(s string) (r Resume, err error) {
	base, cursor, ok := strings.Cut(s, ":")
	b, err1 := strconv.ParseUint(base, 10, 64)
	c, err2 := strconv.ParseUint(cursor, 10, 64)
	if !ok || errors.Join(err1, err2) != nil || b == 0 {
		return r, fmt.Errorf("%q is no token of an interrupted `cawrm receive`, as 1024:88", s)
	}
	return Resume{aodi.Position(b), c}, nil
}

// WriteDelta writes a delta file. Any goroutine. The snapshots may be deleted meanwhile. Errors: aodi.ErrNoSnapshot; snapshots
// in the wrong order, or of a history that was given up; the volume's, the writer's, the context's.
func WriteDelta(ctx context.Context, v *aodi.Volume, s Send, w io.Writer) error {
	head, err := deltaHead(v, s)
	if err != nil {
		return err
	}
	cut, err := v.OpenCut(aodi.CutFrom{Position: head.From, Got: format.ReachedTo(head.Base, head.Cursor), Snapshot: s.To})
	if err != nil {
		return err
	}
	defer cut.Close()
	if cut.End != head.To {
		return fmt.Errorf("snapshot %s was made anew meanwhile; send it again", s.To)
	}
	out, err := delta.NewWriter(w, head)
	if err != nil {
		return err
	}
	if head.From == head.To {
		return out.Close() // nothing was written between, and a hole can have no birth there
	}
	tell := s.teller(v, cut)
	var b aodi.LogBatch
	for ctx.Err() == nil {
		switch err := cut.Next(fileBytes, &b); {
		case err == io.EOF:
			return out.Close()
		case err != nil:
			return fmt.Errorf("read snapshot %s: %w", s.To, err)
		}
		if err := out.Write(b.Entries, b.Data); err != nil {
			return err
		}
		tell(len(b.Entries))
	}
	return ctx.Err()
}

// teller returns what is told of each so many chunks that were written. All of a snapshot is so many chunks; how many of them a later part
// has is not known before it is gone over.
func (s *Send) teller(v *aodi.Volume, cut *aodi.Cut) func(chunks int) {
	if s.Progress == nil {
		return func(int) {}
	}
	all := int64(0)
	if info, err := v.SettledSnapshot(s.To); err == nil && s.From == "" && s.Resume == (Resume{}) {
		all = info.UsedBytes / format.ChunkSize
	}
	done := int64(0)
	return func(chunks int) {
		if done += int64(chunks); all > 0 {
			s.Progress(min(1, float64(done)/float64(all)))
		} else {
			s.Progress(cut.Progress())
		}
	}
}

// deltaHead finds what the file is of.
func deltaHead(v *aodi.Volume, s Send) (*delta.Head, error) {
	to, err := v.SettledSnapshot(s.To)
	if err != nil {
		return nil, err
	}
	info := v.Info()
	end, _ := v.Pointers()
	history := Head{info.Lineage, end}
	h := &delta.Head{Volume: info.Volume, Size: to.Size, From: info.Lineage[0].Start, To: to.Position, Time: to.Time.UnixNano(),
		Base: s.Resume.Base, Cursor: s.Resume.Cursor, ToName: s.To, FromName: s.From}
	if to.Astray || !history.has(to.Position) {
		return nil, fmt.Errorf("snapshot %s is of a history that was given up: no mirror can follow it", s.To)
	}
	if s.From != "" {
		from, err := v.SettledSnapshot(s.From)
		switch {
		case err != nil:
			return nil, err
		case from.Position > to.Position || from.Astray || !history.has(from.Position):
			return nil, fmt.Errorf("snapshot %s, of position %d, does not lead to %s, of position %d: give the older one first",
				s.From, from.Position, s.To, to.Position)
		}
		h.From = from.Position
	}
	if h.Base > h.To {
		return nil, fmt.Errorf("the token is of a reader that is at position %d, beyond snapshot %s at %d", h.Base, s.To, h.To)
	}
	h.Lineage = slices.DeleteFunc(info.Lineage, func(l format.Lineage) bool { return l.Start > h.To })
	return h, nil
}

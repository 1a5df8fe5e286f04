package cawrm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/delta"
)

// Received is what came of a delta file.
type Received struct {
	Snapshot string
	Position aodi.Position
	Bytes    int64 // of the file
	Chunks   int64 // that were new to the mirror
	Nothing  bool  // the mirror stood there already
}

// Interrupted is the error of a file that broke off, or that the mirror could take no more of: Resume is what it keeps.
type Interrupted struct {
	Resume Resume
	Err    error
}

func (e *Interrupted) Error() string {
	if e.Resume.Base == 0 {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v; what came is kept: receive the file again, or the rest of it, which `cawrm send --resume %v` sends", e.Err, e.Resume)
}

func (e *Interrupted) Unwrap() error { return e.Err }

// OpenDelta reads the head of a delta file.
func OpenDelta(r io.Reader) (*delta.Reader, error) { return delta.NewReader(r) }

// ReadDelta applies a delta file to a mirror, which must not be fed meanwhile, and keeps the snapshot that it is of. An empty
// mirror becomes one of the file's volume. Errors: the file is of another volume or history, or does not begin or end where the
// mirror can use it, and nothing is changed; *Interrupted.
func ReadDelta(v *aodi.Volume, r *delta.Reader) (Received, error) {
	h := r.Head()
	got := Received{Snapshot: h.ToName, Position: h.To}
	if _, err := v.Commit(); err != nil { // whole epochs that a feed has left: what is staged next must follow them
		return got, err
	}
	at, err := takes(v, &h)
	if err != nil {
		return got, err
	}
	switch info := v.Info(); {
	case !info.HasIdentity:
		err = v.Adopt(h.Volume, h.Size, h.Lineage)
	case len(info.Lineage) < len(h.Lineage): // the source was promoted since
		_, err = v.Follow(h.Lineage, false, true, "")
	}
	switch {
	case err != nil:
	case at < h.To:
		err = stageDelta(v, r, at, &got)
	default:
		got.Nothing, err = true, drain(r)
	}
	if err == nil {
		err = v.MirrorSnapshot(aodi.SnapshotInfo{Name: h.ToName, Position: h.To, Time: time.Unix(0, h.Time), Size: h.Size})
	}
	got.Bytes = r.Bytes()
	return got, err
}

// takes tells where a mirror stands that can take a file.
func takes(v *aodi.Volume, h *delta.Head) (aodi.Position, error) {
	info := v.Info()
	at, _ := v.Pointers()
	got := v.Coming()
	base, cursor := got.Least()
	from := "the beginning"
	if h.FromName != "" {
		from = "@" + h.FromName
	}
	file := fmt.Sprintf("the file leads from %s at position %d to @%s at %d", from, h.From, h.ToName, h.To)
	if err := aodi.CheckSnapshotName(h.ToName); err != nil {
		return 0, fmt.Errorf("the file's snapshot: %w", err)
	}
	if info.Role != aodi.RoleMirror {
		return 0, fmt.Errorf("%s, and a %s takes none: only a mirror does", file, info.Role)
	}
	if !info.HasIdentity {
		at = h.Lineage[0].Start
	} else {
		switch relation, fork := Compare(Head{info.Lineage, at}, Head{h.Lineage, h.To}); {
		case info.Volume != h.Volume:
			return 0, fmt.Errorf("the file is of volume %v, the mirror of volume %v", h.Volume, info.Volume)
		case info.Size > h.Size:
			return 0, fmt.Errorf("the file is of a volume of %d bytes, the mirror has %d", h.Size, info.Size)
		case relation == Ahead && len(info.Lineage) >= len(h.Lineage):
			return 0, fmt.Errorf("%s, and the mirror stands at %d already", file, at)
		case relation != Same && relation != Behind || !leadsOn(info.Lineage, h) || got != nil && !ofHistory(v.ComingLineage(), info.Lineage, h.Lineage):
			return 0, fmt.Errorf("%s, of another history: the mirror stands at %v, and they part at %d", file, Head{info.Lineage, at}, fork)
		}
	}
	for _, s := range v.Snapshots() {
		if s.Name == h.ToName && s.Position != h.To {
			return 0, fmt.Errorf("%s, and @%s is another snapshot here, of position %d: delete that first", file, s.Name, s.Position)
		}
	}
	switch {
	case at < h.From:
		return 0, fmt.Errorf("%s: the wrong base, the mirror stands at %d and lacks what is between; receive first what leads to %s", file, at, from)
	case at < h.To && got.Newest() > h.To:
		return 0, fmt.Errorf("%s, and the mirror has a part of what leads to %d: let its source, or a newer file, bring the rest", file, got.Newest())
	case at < h.To && h.Base > 0 && (base < h.Base || cursor < h.Cursor):
		return 0, fmt.Errorf("the file is the rest of one, from %d:%d on, and the mirror has got to %d:%d: send what `--resume` is to say anew",
			h.Base, h.Cursor, base, cursor)
	}
	return at, nil
}

// leadsOn tells whether a file's history goes on where a mirror's does: one lineage begins with the other, and what the mirror's has
// more begins at the file's end or behind it.
func leadsOn(mirror []format.Lineage, h *delta.Head) bool {
	n := min(len(mirror), len(h.Lineage))
	return slices.Equal(mirror[:n], h.Lineage[:n]) && (n == len(mirror) || h.To <= mirror[n].Start)
}

// ofHistory tells whether the jump epoch that a mirror has begun is of the file's history, and not one that leads it away
// from its own.
func ofHistory(coming, mirror, file []format.Lineage) bool {
	return len(coming) == 0 || slices.Equal(coming, mirror) || slices.Equal(coming, file)
}

// stageDelta stages what the mirror at position at lacks, and shows it when all of it has come.
func stageDelta(v *aodi.Volume, r *delta.Reader, at aodi.Position, got *Received) error {
	h := r.Head()
	reached := v.Coming()
	b := aodi.LogBatch{First: at, End: h.To, Time: h.Time, Jump: true}
	for {
		entries, data, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			b.Entries, b.Data = b.Entries[:0], b.Data[:0]
			for _, e := range entries {
				chunk := data[:0]
				if e.Kind == format.KindData {
					chunk, data = data[:format.ChunkSize], data[format.ChunkSize:]
				}
				if e.Kind == format.KindData && (e.Birth < at || e.Birth < reached.Base(e.LBA)) {
					continue // the mirror has it
				}
				e.Birth = max(e.Birth, at)
				b.Entries, b.Data = append(b.Entries, e), append(b.Data, chunk...)
			}
			got.Chunks += int64(len(b.Data) / format.ChunkSize)
			if len(b.Entries) > 0 {
				err = v.Stage(&b, false)
			}
		}
		if err != nil {
			return interrupted(v, err)
		}
	}
	b.Entries, b.Data = nil, nil
	err := v.Stage(&b, true)
	if err == nil {
		_, err = v.Commit()
	}
	if err != nil {
		return interrupted(v, err)
	}
	return nil
}

// interrupted leaves the epoch as far as it has come.
func interrupted(v *aodi.Volume, err error) error {
	if over := v.Unstage(); over != nil {
		return errors.Join(err, over)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the file breaks off")
	}
	base, cursor := v.Coming().Least()
	return &Interrupted{Resume{base, cursor}, err}
}

// drain reads a file to its end, to know that it is whole.
func drain(r *delta.Reader) error {
	for {
		if _, _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Receive is ReadDelta for a volume of the peer. No source may feed it meanwhile.
func (p *Peer) Receive(name string, r *delta.Reader) (Received, error) {
	p.mu.Lock()
	t := p.targets[name]
	p.mu.Unlock()
	if t == nil {
		return Received{}, fmt.Errorf("no source can feed a volume %q here", name)
	}
	t.mu.Lock()
	switch {
	case t.feed != nil || t.next != nil:
		from := t.source
		t.mu.Unlock()
		return Received{}, fmt.Errorf("%q is being fed, from %s: pause the mirror there (`cawrm mirror pause`) until the file was received", name, from)
	case t.receiving, t.turning, t.gone:
		t.mu.Unlock()
		return Received{}, fmt.Errorf("%q is receiving another file, changes its role, or is being closed", name)
	}
	t.receiving = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.receiving = false
		t.mu.Unlock()
	}()
	return ReadDelta(t.v, r)
}

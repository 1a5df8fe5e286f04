package format

import (
	"fmt"
	"slices"
)

// MaxCatalog bounds a part of an encoded catalog, in bytes.
const MaxCatalog = 128 * ChunkSize

// Lineage is one link of the chain that says which histories agree: from Start on, records belong to ID.
type Lineage struct {
	ID    UUID
	Start Position
}

// Mirror is what a source remembers of one mirror. SyncPtr is a hint: the peer is the authority.
type Mirror struct {
	ID      string
	URL     string
	SyncPtr Position
	Kept    bool // it is the volume's: started with it, whoever opens it
	Lineage UUID // of a target that does not know its position: the one under which SyncPtr is meant; zero: none
}

// Snapshot is a cut that is kept: a root of the forward map. Each shares what was not changed between them with the one
// before it in the catalog, and the last one with the volume.
type Snapshot struct {
	Name     string
	Flags    uint32
	Position Position
	Root     Ref
	Height   uint32
	Size     int64
	Time     int64    // unix nanoseconds
	Mapped   uint64   // logical chunks that are not holes
	Gone     uint64   // with FlagDeleting: leaves of the map below this one do not count any more
	Logged   uint64   // as in Meta, and
	Log      LogPlace // where the log goes on behind Position
}

// Flags of a snapshot.
const (
	FlagDeleting = 1 << 0 // nobody sees it, and what only it leads to is being freed
	FlagCut      = 1 << 1 // of the history: it has no name
	FlagAstray   = 1 << 2 // of a branch that the volume has left: what Position means is not in its lineage any more
)

// SnapshotBytes is the size of a snapshot in the catalog, but for its name.
const SnapshotBytes = 92

// Clone is a volume in a container of its own that was made of a snapshot.
type Clone struct {
	Snapshot string
	Name     string
	Path     string
}

// Base is what a clone is made of: chunks that it does not have are there.
type Base struct {
	Container UUID
	Position  Position // of the snapshot
	Snapshot  string
	Path      string // of the container when the clone was made
}

// Catalog holds what a checkpoint has any number of.
type Catalog struct {
	Lineage   []Lineage
	Next      []Lineage // takes the place of Lineage when the jump epoch that is under way is whole; empty: stays
	Mirrors   []Mirror
	Snapshots []Snapshot
	Clones    []Clone
	Base      *Base // nil: no clone

	Places []CatalogPart // ReadCatalog: where it stands
	more   CatalogPart
}

// CatalogPart is a part of an encoded catalog: chunks that follow each other.
type CatalogPart struct {
	Ref Ref // its first chunk, and the checksum of all its bytes
	Len uint32
}

// Chunks is how many chunks the part takes.
func (p CatalogPart) Chunks() int { return int(p.Len+ChunkSize-1) / ChunkSize }

const (
	itemHeader   = 4
	itemLineage  = 1
	itemMirror   = 2
	itemSnapshot = 3
	itemClone    = 4
	itemBase     = 5
	itemMore     = 6
	itemNext     = 17

	moreBytes = 12

	idLength  = 1<<14 - 1
	idKept    = 1 << 15 // beside the length of a mirror's id
	idLineage = 1 << 14 // and this one: a lineage follows
)

// Encode appends the catalog's bytes to b. Errors: an item that is too large.
func (c *Catalog) Encode(b []byte) ([]byte, error) {
	var err error
	item := func(kind uint16, fill func([]byte) []byte) {
		at := len(b)
		b = fill(append(b, 0, 0, 0, 0))
		n := len(b) - at - 4
		if n > 65535 {
			err = fmt.Errorf("catalog item of %d bytes is too large (at most 65535)", n)
			return
		}
		le.PutUint16(b[at:], kind)
		le.PutUint16(b[at+2:], uint16(n))
	}
	for _, l := range c.Lineage {
		item(itemLineage, func(b []byte) []byte { return le.AppendUint64(append(b, l.ID[:]...), uint64(l.Start)) })
	}
	for _, l := range c.Next {
		item(itemNext, func(b []byte) []byte { return le.AppendUint64(append(b, l.ID[:]...), uint64(l.Start)) })
	}
	for _, m := range c.Mirrors {
		item(itemMirror, func(b []byte) []byte {
			b = le.AppendUint64(b, uint64(m.SyncPtr))
			n := uint16(len(m.ID)) & idLength
			if m.Kept {
				n |= idKept
			}
			if !m.Lineage.IsZero() {
				n |= idLineage
			}
			b = append(le.AppendUint16(b, n), m.ID[:n&idLength]...)
			if !m.Lineage.IsZero() {
				b = append(b, m.Lineage[:]...)
			}
			return append(b, m.URL...)
		})
	}
	for _, s := range c.Snapshots {
		item(itemSnapshot, func(b []byte) []byte {
			b = le.AppendUint64(b, uint64(s.Position))
			b = le.AppendUint64(b, uint64(s.Root))
			b = le.AppendUint32(le.AppendUint32(b, s.Height), s.Flags)
			b = le.AppendUint64(b, uint64(s.Size))
			b = le.AppendUint64(b, uint64(s.Time))
			b = le.AppendUint64(b, s.Mapped)
			b = le.AppendUint64(b, s.Gone)
			b = le.AppendUint64(b, s.Logged)
			b = le.AppendUint32(le.AppendUint32(b, s.Log.Segment), s.Log.Chunk)
			b = le.AppendUint32(le.AppendUint32(b, s.Log.Next), s.Log.PrevCRC)
			b = le.AppendUint64(b, s.Log.Seq)
			return append(b, s.Name...)
		})
	}
	for _, c := range c.Clones {
		item(itemClone, func(b []byte) []byte { return append(putString(putString(b, c.Snapshot), c.Name), c.Path...) })
	}
	if s := c.Base; s != nil {
		item(itemBase, func(b []byte) []byte {
			return append(putString(le.AppendUint64(append(b, s.Container[:]...), uint64(s.Position)), s.Snapshot), s.Path...)
		})
	}
	return b, err
}

// Parts encodes the catalog in parts that fit a segment each. All but the last end with an item that leads to the next, which Chain
// completes.
func (c *Catalog) Parts(g Geometry) ([][]byte, error) {
	b, err := c.Encode(nil)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	most := min(MaxCatalog, int(g.Slots()-1)*ChunkSize)
	var parts [][]byte
	for len(b) > most {
		n := 0
		for {
			next := n + itemHeader + int(le.Uint16(b[n+2:]))
			if next+itemHeader+moreBytes > most {
				break
			}
			n = next
		}
		if n == 0 {
			return nil, fmt.Errorf("an item of the catalog does not fit a segment of %d bytes", g.SegmentBytes())
		}
		part := le.AppendUint16(le.AppendUint16(slices.Clone(b[:n]), itemMore), moreBytes)
		parts, b = append(parts, append(part, make([]byte, moreBytes)...)), b[n:]
	}
	return append(parts, b), nil
}

// Chain lets each part lead to the next, of which at[i] is the first chunk.
func Chain(parts [][]byte, at []Phys) []CatalogPart {
	places := make([]CatalogPart, len(parts))
	for i := len(parts) - 1; i >= 0; i-- { // a part's checksum is in the one before
		if p := parts[i]; i+1 < len(parts) {
			le.PutUint64(p[len(p)-moreBytes:], uint64(places[i+1].Ref))
			le.PutUint32(p[len(p)-4:], places[i+1].Len)
		}
		places[i] = CatalogPart{MakeRef(at[i], Sum(parts[i])), uint32(len(parts[i]))}
	}
	return places
}

// ReadCatalog reads a catalog from its first part on. read reads a part's bytes. Errors: read's, ErrChecksum, ErrInvalid; Places are
// those up to there then.
func ReadCatalog(first CatalogPart, read func(CatalogPart) ([]byte, error)) (c Catalog, err error) {
	seen := map[Ref]bool{}
	for next := first; next.Len > 0; next = c.more {
		c.more = CatalogPart{}
		if next.Len > MaxCatalog || !next.Ref.HasData() || seen[next.Ref] {
			return Catalog{Places: c.Places}, fmt.Errorf("part %d: its place is not in a segment, or not its own: %w", len(c.Places), ErrInvalid)
		}
		seen[next.Ref], c.Places = true, append(c.Places, next)
		b, err := read(next)
		if err == nil && !next.Ref.Matches(Sum(b)) {
			err = ErrChecksum
		}
		if err == nil {
			err = c.decode(b)
		}
		if err != nil {
			return Catalog{Places: c.Places}, err
		}
	}
	return c, nil
}

// DecodeCatalog reads what Encode wrote. Errors: ErrInvalid with the place.
func DecodeCatalog(b []byte) (Catalog, error) {
	var c Catalog
	err := c.decode(b)
	return c, err
}

// decode adds what a part has.
func (c *Catalog) decode(b []byte) error {
	for at := 0; at < len(b); {
		bad := fmt.Errorf("catalog, byte %d: %w", at, ErrInvalid)
		if len(b)-at < 4 || c.more.Len > 0 {
			return bad
		}
		kind, n := le.Uint16(b[at:]), int(le.Uint16(b[at+2:]))
		at += 4
		if len(b)-at < n {
			return bad
		}
		if !c.decodeItem(kind, b[at:at+n]) {
			return bad
		}
		at += n
	}
	return nil
}

func (c *Catalog) decodeItem(kind uint16, p []byte) bool {
	switch kind {
	case itemLineage, itemNext:
		if len(p) != 24 {
			return false
		}
		l := Lineage{UUID(p[:16]), Position(le.Uint64(p[16:]))}
		if kind == itemNext {
			c.Next = append(c.Next, l)
		} else {
			c.Lineage = append(c.Lineage, l)
		}
	case itemMirror:
		return c.decodeMirror(p)
	case itemSnapshot:
		if len(p) < SnapshotBytes-itemHeader {
			return false
		}
		c.Snapshots = append(c.Snapshots, Snapshot{Name: string(p[SnapshotBytes-itemHeader:]), Position: Position(le.Uint64(p)), Root: Ref(le.Uint64(p[8:])),
			Height: le.Uint32(p[16:]), Flags: le.Uint32(p[20:]), Size: int64(le.Uint64(p[24:])), Time: int64(le.Uint64(p[32:])),
			Mapped: le.Uint64(p[40:]), Gone: le.Uint64(p[48:]), Logged: le.Uint64(p[56:]),
			Log: LogPlace{le.Uint32(p[64:]), le.Uint32(p[68:]), le.Uint32(p[72:]), le.Uint32(p[76:]), le.Uint64(p[80:])}})
	case itemClone:
		var n Clone
		var ok bool
		if n.Snapshot, p, ok = getString(p); !ok {
			return false
		}
		if n.Name, p, ok = getString(p); !ok {
			return false
		}
		n.Path = string(p)
		c.Clones = append(c.Clones, n)
	case itemMore:
		if len(p) != moreBytes {
			return false
		}
		c.more = CatalogPart{Ref(le.Uint64(p)), le.Uint32(p[8:])}
		return c.more.Len > 0
	case itemBase:
		if len(p) < 24 || c.Base != nil {
			return false
		}
		name, rest, ok := getString(p[24:])
		c.Base = &Base{UUID(p[:16]), Position(le.Uint64(p[16:])), name, string(rest)}
		return ok
	default:
		return false
	}
	return true
}

// putString appends a string with its length.
func putString(b []byte, s string) []byte { return append(le.AppendUint16(b, uint16(len(s))), s...) }

// getString takes a string with its length off the front.
func getString(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(le.Uint16(b)) {
		return "", nil, false
	}
	n := 2 + int(le.Uint16(b))
	return string(b[2:n]), b[n:], true
}

func (c *Catalog) decodeMirror(p []byte) bool {
	if len(p) < 10 {
		return false
	}
	bits := le.Uint16(p[8:])
	m := Mirror{SyncPtr: Position(le.Uint64(p)), Kept: bits&idKept != 0}
	n, p := int(bits&idLength), p[10:]
	if len(p) < n {
		return false
	}
	m.ID, p = string(p[:n]), p[n:]
	if bits&idLineage != 0 {
		if len(p) < len(m.Lineage) {
			return false
		}
		m.Lineage, p = UUID(p[:len(m.Lineage)]), p[len(m.Lineage):]
	}
	m.URL = string(p)
	c.Mirrors = append(c.Mirrors, m)
	return true
}

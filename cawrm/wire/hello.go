package wire

import (
	"fmt"
	"time"

	"cawrm/aodi/format"
)

// Hello is what a source says first.
type Hello struct {
	KeepAlive    time.Duration // whole milliseconds; it beats at least so often
	Capabilities uint64
	Volume       format.UUID
	Container    format.UUID
	Size         int64
	DurablePtr   format.Position
	Name         string
	Lineage      []format.Lineage
}

// Welcome is what a peer answers when it takes the source.
type Welcome struct {
	Capabilities uint64
	Volume       format.UUID // zero: none yet
	SyncPtr      format.Position
	Got          format.Reached // of a jump epoch that was interrupted
	Primary      bool           // it takes nothing: SyncPtr is its durable_ptr
	Branch       bool           // it has gone its own way, and leaves it: RANGES follow
	Container    format.UUID    // its own, with CapContainer
	Name         string
	Lineage      []format.Lineage
}

const (
	helloFixed   = 72
	welcomeFixed = 64
	linkSize     = 24
	reachSize    = 16
	uuidSize     = 16
)

// CapContainer is the capability that a WELCOME says whose it is.
const CapContainer = 1 << 9

// CapReferences is the capability that RECORDS may be terse, and refer to what the mirror shows.
const CapReferences = 1 << 10

// AppendHello appends a HELLO frame. Errors: a name or a lineage that is too long.
func AppendHello(b []byte, h *Hello) ([]byte, error) {
	if err := checkNames(h.Name, h.Lineage); err != nil {
		return b, fmt.Errorf("HELLO: %w", err)
	}
	at := len(b)
	b = beginFrame(b, TypeHello, 0)
	b = le.AppendUint16(b, Version)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint32(b, uint32(h.KeepAlive/time.Millisecond))
	b = le.AppendUint64(b, h.Capabilities)
	b = append(b, h.Volume[:]...)
	b = append(b, h.Container[:]...)
	b = le.AppendUint64(b, uint64(h.Size))
	b = le.AppendUint64(b, uint64(h.DurablePtr))
	b = appendNames(b, h.Name, h.Lineage)
	return endFrame(b, at, 0), nil
}

// AppendWelcome appends a WELCOME frame. Errors: a name or a lineage that is too long.
func AppendWelcome(b []byte, w *Welcome) ([]byte, error) {
	if err := checkNames(w.Name, w.Lineage); err != nil {
		return b, fmt.Errorf("WELCOME: %w", err)
	}
	if !w.Got.Valid() {
		return b, fmt.Errorf("WELCOME: of a jump epoch it has got %v: %w", w.Got, ErrInvalid)
	}
	if w.says() == w.Container.IsZero() {
		return b, fmt.Errorf("WELCOME: container %v with capabilities %#x: %w", w.Container, w.Capabilities, ErrInvalid)
	}
	at := len(b)
	b = beginFrame(b, TypeWelcome, 0)
	b = le.AppendUint16(b, Version)
	b = le.AppendUint16(b, w.flags())
	b = le.AppendUint16(b, uint16(max(len(w.Got), 1)-1))
	b = append(b, 0, 0)
	b = le.AppendUint64(b, w.Capabilities)
	b = append(b, w.Volume[:]...)
	b = le.AppendUint64(b, uint64(w.SyncPtr))
	base, cursor := w.Got.Least()
	b = appendReach(b, format.Reach{Base: base, Cursor: cursor})
	b = appendNames(b, w.Name, w.Lineage)
	for i := 0; i+1 < len(w.Got); i++ {
		b = appendReach(b, w.Got[i])
	}
	if w.says() {
		b = append(b, w.Container[:]...)
	}
	return endFrame(b, at, 0), nil
}

// says tells whether the container is in the frame.
func (w *Welcome) says() bool { return w.Capabilities&CapContainer != 0 }

func appendReach(b []byte, r format.Reach) []byte {
	return le.AppendUint64(le.AppendUint64(b, uint64(r.Base)), r.Cursor)
}

func getReach(b []byte) format.Reach {
	return format.Reach{Base: format.Position(le.Uint64(b)), Cursor: le.Uint64(b[8:])}
}

// Flags of a WELCOME; one of them at most.
const (
	welcomePrimary = 1
	welcomeBranch  = 2
)

func (w *Welcome) flags() uint16 {
	switch {
	case w.Primary:
		return welcomePrimary
	case w.Branch:
		return welcomeBranch
	}
	return 0
}

func checkNames(name string, lineage []format.Lineage) error {
	if len(name) > MaxName {
		return fmt.Errorf("name of %d bytes is too long (at most %d)", len(name), MaxName)
	}
	if len(lineage) > MaxLinks {
		return fmt.Errorf("lineage of %d links is too long (at most %d)", len(lineage), MaxLinks)
	}
	return nil
}

// appendNames appends what ends both frames: the lengths, the name, the links.
func appendNames(b []byte, name string, lineage []format.Lineage) []byte {
	b = le.AppendUint16(b, uint16(len(name)))
	b = le.AppendUint16(b, uint16(len(lineage)))
	b = append(b, 0, 0, 0, 0)
	b = append(b, name...)
	for _, l := range lineage {
		b = le.AppendUint64(append(b, l.ID[:]...), uint64(l.Start))
	}
	return b
}

// Hello decodes the HELLO that Next has read. Errors: ErrVersion, ErrInvalid.
func (r *Reader) Hello() (Hello, error) {
	var h Hello
	b := r.body
	if err := checkVersion(b); err != nil {
		return h, fmt.Errorf("HELLO: %w", err)
	}
	if len(b) < helloFixed || le.Uint16(b[2:]) != 0 {
		return h, fmt.Errorf("HELLO: %w", ErrInvalid)
	}
	h.KeepAlive = time.Duration(le.Uint32(b[4:])) * time.Millisecond
	h.Capabilities = le.Uint64(b[8:])
	copy(h.Volume[:], b[16:])
	copy(h.Container[:], b[32:])
	h.Size = int64(le.Uint64(b[48:]))
	h.DurablePtr = format.Position(le.Uint64(b[56:]))
	var err error
	if h.Name, h.Lineage, err = names(b[helloFixed-8:]); err != nil {
		return h, fmt.Errorf("HELLO: %w", err)
	}
	if h.Size <= 0 || h.Size > format.MaxLogicalSize || h.Size%format.ChunkSize != 0 || h.KeepAlive == 0 || h.KeepAlive > MaxKeepAlive ||
		h.Volume.IsZero() || h.Container.IsZero() || len(h.Lineage) == 0 {
		return h, fmt.Errorf("HELLO: a field is out of range: %w", ErrInvalid)
	}
	return h, nil
}

// Welcome decodes the WELCOME that Next has read. Errors: ErrVersion, ErrInvalid.
func (r *Reader) Welcome() (Welcome, error) {
	var w Welcome
	b := r.body
	if err := checkVersion(b); err != nil {
		return w, fmt.Errorf("WELCOME: %w", err)
	}
	if len(b) < welcomeFixed || le.Uint16(b[2:]) > welcomeBranch || le.Uint16(b[4:]) >= format.MaxReach || le.Uint16(b[6:]) != 0 {
		return w, fmt.Errorf("WELCOME: %w", ErrInvalid)
	}
	w.Primary, w.Branch = le.Uint16(b[2:]) == welcomePrimary, le.Uint16(b[2:]) == welcomeBranch
	w.Capabilities = le.Uint64(b[8:])
	copy(w.Volume[:], b[16:])
	w.SyncPtr = format.Position(le.Uint64(b[32:]))
	if w.says() {
		if len(b) < welcomeFixed+uuidSize {
			return w, fmt.Errorf("WELCOME: %w", ErrInvalid)
		}
		copy(w.Container[:], b[len(b)-uuidSize:])
		if b = b[:len(b)-uuidSize]; w.Container.IsZero() {
			return w, fmt.Errorf("WELCOME: no container: %w", ErrInvalid)
		}
	}
	newer := int(le.Uint16(b[4:])) * reachSize
	if len(b) < welcomeFixed+newer {
		return w, fmt.Errorf("WELCOME: %w", ErrInvalid)
	}
	for g := b[len(b)-newer:]; len(g) > 0; g = g[reachSize:] {
		w.Got = append(w.Got, getReach(g))
	}
	if last := getReach(b[40:]); newer > 0 || last != (format.Reach{}) {
		w.Got = append(w.Got, last)
	}
	var err error
	if w.Name, w.Lineage, err = names(b[welcomeFixed-8 : len(b)-newer]); err != nil {
		return w, fmt.Errorf("WELCOME: %w", err)
	}
	if w.Volume.IsZero() != (len(w.Lineage) == 0) || w.Volume.IsZero() && w.flags() != 0 {
		return w, fmt.Errorf("WELCOME: a volume id and a lineage go together: %w", ErrInvalid)
	}
	if base, cursor := w.Got.Least(); !w.Got.Valid() || w.Got != nil && base <= w.SyncPtr || cursor > format.MaxLogicalSize/format.ChunkSize {
		return w, fmt.Errorf("WELCOME: of a jump epoch %v, with sync_ptr %d: %w", w.Got, w.SyncPtr, ErrInvalid)
	}
	return w, nil
}

func checkVersion(b []byte) error {
	if v := le.Uint16(b); v != Version {
		return fmt.Errorf("%w (the other side speaks %d, this program %d)", ErrVersion, v, Version)
	}
	return nil
}

// names decodes what appendNames has written; nothing may follow.
func names(b []byte) (string, []format.Lineage, error) {
	n, links := int(le.Uint16(b)), int(le.Uint16(b[2:]))
	if le.Uint32(b[4:]) != 0 || n > MaxName || links > MaxLinks || len(b) != 8+n+links*linkSize {
		return "", nil, fmt.Errorf("name of %d bytes, lineage of %d links in %d bytes: %w", n, links, len(b)-8, ErrInvalid)
	}
	name := string(b[8 : 8+n])
	b = b[8+n:]
	var lineage []format.Lineage
	for i := range links {
		l := b[i*linkSize:]
		link := format.Lineage{ID: format.UUID(l[:16]), Start: format.Position(le.Uint64(l[16:]))}
		if link.ID.IsZero() || i > 0 && link.Start < lineage[i-1].Start {
			return "", nil, fmt.Errorf("lineage, link %d: %w", i, ErrInvalid)
		}
		lineage = append(lineage, link)
	}
	return name, lineage, nil
}

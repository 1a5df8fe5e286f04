package cawrm

import (
	"errors"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// known is what a source knows of what its mirror holds, for frames that refer to that (wire: Known). It serves from one session to the
// next, as long as nobody else can have fed the mirror meanwhile.
type known struct {
	wire.Known
	container format.UUID // the mirror's
	turn      uint64      // of the lineage
}

// withoutReferences is how long a mirror is told everything in full after it has lacked what it was referred to. That should not
// happen: a chunk there may have rotted, or others have fed it.
const withoutReferences = time.Hour

// offer are the capabilities for the next session.
func (m *Mirror) offer() uint64 {
	if time.Now().Before(m.plain) {
		return offered &^ wire.CapReferences
	}
	return offered
}

// recollect forgets what is known of a mirror that stands, or has come in a jump epoch, where this source's frames have not brought it, and of
// one that is empty: it is not told of holes. It is called before sync_ptr is what this session begins with.
func (m *Mirror) recollect(from aodi.CutFrom, turn uint64) {
	if m.taken&wire.CapReferences == 0 {
		m.known = nil // what is sent now would not become known
		return
	}
	m.mu.Lock()
	last := m.syncPtr
	m.mu.Unlock()
	k := m.known
	if k == nil || k.container != m.container || k.turn != turn || from.Fresh || from.Diverged || from.Position < last || from.Position > k.Passed ||
		from.Got != nil && from.Got.Newest() != k.Last {
		m.known = &known{container: m.container, turn: turn}
		m.known.Passed = from.Position
	}
}

// refer lets a packer refer to what the mirror holds.
func (m *Mirror) refer(p *wire.Packer) {
	if m.known == nil {
		return
	}
	m.v.RememberReplaced()
	p.Refer(&wire.References{Known: &m.known.Known, Acked: m.acked, Read: func(lba uint64, crc uint32, chunk []byte) bool {
		return m.v.ReadFormer(lba, crc, m.acked(), chunk)
	}})
}

func (m *Mirror) acked() aodi.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.syncPtr
}

// lacked notes that a session has ended because the mirror lacks what it was referred to.
func (m *Mirror) lacked(err error) {
	if r := (*refusal)(nil); errors.As(err, &r) && r.code == wire.CodeReference {
		m.plain = time.Now().Add(withoutReferences)
		m.log.Warn("the mirror lacks what it was referred to; it is told everything in full now", "for", withoutReferences, "reason", r.text)
	}
}

// resolve reads what a frame refers to: what this side shows, which is committed. That the source means the same content is seen by the digest
// in the frame.
func (f *feed) resolve(lba uint64, chunk []byte) error {
	return f.t.v.ReadAt(chunk, int64(lba)*format.ChunkSize)
}

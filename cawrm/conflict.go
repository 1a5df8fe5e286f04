package cawrm

import (
	"slices"
	"strings"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// conflict is another writable head of a volume that was met. It lasts until that container is met as a mirror: another member is
// one too, and can have the same lineage. Of a peer that does not say which container it has, any that says so little ends it.
type conflict struct {
	container format.UUID
	text      string
}

// maxConflicts bounds what is remembered of whoever comes.
const maxConflicts = 32

// says is the container of a WELCOME with these capabilities.
func says(taken uint64, v *aodi.Volume) format.UUID {
	if taken&wire.CapContainer == 0 {
		return format.UUID{}
	}
	return v.Info().Container
}

// Conflict says which other writable heads of a volume were met; empty: none.
func (p *Peer) Conflict(name string) string {
	if t := p.target(name); t != nil {
		return t.Conflict()
	}
	return ""
}

// Conflict says which other writable heads were met; empty: none.
func (t *target) Conflict() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conflictLocked()
}

func (t *target) conflictLocked() string {
	if t.v.Role() != aodi.RolePrimary {
		return "" // what was heard late
	}
	var all []string
	for _, c := range t.conflicts {
		all = append(all, c.text)
	}
	return strings.Join(all, "; and ")
}

// setConflict notes that a container is another head.
func (t *target) setConflict(container format.UUID, text string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(container)
	if t.conflicts = append(t.conflicts, conflict{container, text}); len(t.conflicts) > maxConflicts {
		t.conflicts = slices.Delete(t.conflicts, 0, 1)
	}
}

// endConflict notes that a container is a mirror.
func (t *target) endConflict(container format.UUID) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(container)
}

func (t *target) forgetLocked(container format.UUID) {
	t.conflicts = slices.DeleteFunc(t.conflicts, func(c conflict) bool { return c.container == container })
}

// noConflict forgets all: this side is another head now, or none.
func (t *target) noConflict() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conflicts = nil
}

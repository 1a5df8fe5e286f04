package cawrm

import (
	"errors"
	"fmt"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// offered are the capabilities that both sides have.
const offered = wire.CapSnapshots | wire.CapCheck | wire.CapContainer | wire.CapReferences

// handshake says HELLO, hears where the mirror stands, checks that it can be this volume's, and returns from where
// to go on, and the turn of the lineage that it has said. What is wrong is told to the peer too.
func (m *Mirror) handshake(l *link, r *wire.Reader) (from aodi.CutFrom, turn uint64, err error) {
	info := m.v.Info()
	if !info.HasIdentity {
		return from, 0, errNoSource
	}
	_, durable := m.v.Pointers()
	if info.GrownTo > durable {
		return from, 0, errGrowing
	}
	m.taken = m.offer() // at most
	hello, err := wire.AppendHello(nil, &wire.Hello{KeepAlive: m.cfg.KeepAlive, Capabilities: m.taken, Volume: info.Volume,
		Container: info.Container, Size: info.Size, DurablePtr: durable, Name: m.target.Name, Lineage: info.Lineage})
	if err != nil {
		return from, 0, fmt.Errorf("%w: %w", errLocal, err)
	}
	if err := l.say(hello, m.cfg.ReadTimeout); err != nil {
		return from, 0, err
	}
	from, err = m.welcome(r, info)
	var refused *refusal
	switch {
	case err == errFollow, err == errAgain:
		return from, 0, err
	case errors.As(err, &refused) && !errors.Is(err, errTold):
		l.refuse(wire.AppendRefuse(nil, refused.code, refused.text))
		return from, 0, err
	case err != nil:
		return from, 0, fmt.Errorf("%s: %w", m.target.Addr, err)
	}
	return from, info.Turn, l.say(wire.AppendBeat(nil), m.cfg.ReadTimeout)
}

// errTold marks a refusal that came from the other side.
var errTold = errors.New("refused")

// told is the refusal that the reader has at hand, as an error of this side.
func told(r *wire.Reader) error {
	code, text := r.Refuse()
	return fmt.Errorf("%w by the other side (%v): %w", errTold, code, &refusal{code, text})
}

// welcome hears the answer and holds it against this volume.
func (m *Mirror) welcome(r *wire.Reader, info aodi.Info) (from aodi.CutFrom, err error) {
	t, err := r.Next(wire.Of(wire.TypeWelcome, wire.TypeRefuse))
	if err != nil {
		return from, fmt.Errorf("no welcome: %w", err)
	}
	if t == wire.TypeRefuse {
		return from, told(r)
	}
	w, err := r.Welcome()
	switch {
	case errors.Is(err, wire.ErrVersion):
		return from, &refusal{wire.CodeVersion, err.Error()}
	case err != nil:
		return from, &refusal{wire.CodeGarbage, err.Error()}
	case w.Capabilities&^m.taken != 0:
		return from, refusef(wire.CodeLied, "peer %q takes capabilities %#x that were not offered", w.Name, w.Capabilities&^m.taken)
	}
	m.taken, m.container = w.Capabilities, w.Container
	m.mu.Lock()
	m.checks = w.Capabilities&wire.CapCheck != 0
	m.reached = w.Container
	m.mu.Unlock()
	switch {
	case w.Volume.IsZero():
		return aodi.CutFrom{Position: info.Lineage[0].Start, Fresh: true}, nil
	case w.Volume != info.Volume:
		return from, refusef(wire.CodeOtherVolume, "peer %q mirrors volume %v, the source is volume %v", w.Name, w.Volume, info.Volume)
	case w.Primary:
		return from, m.meetPrimary(info, &w)
	}
	m.cfg.Peer.target(m.cfg.Name).endConflict(w.Container)
	_, durable := m.v.Pointers()
	mirror, source := Head{w.Lineage, w.SyncPtr}, Head{info.Lineage, durable}
	if w.Branch {
		return m.branch(r, &w, mirror, source)
	}
	if err := judge(mirror, source); err != nil {
		return from, err
	}
	if newest := w.Got.Newest(); newest > durable {
		return from, refusef(wire.CodeAhead, "the mirror is ahead: it has a part of a jump epoch as of %d, the source has durable_ptr %d; "+
			"the source is an older copy of the volume", newest, durable)
	}
	return aodi.CutFrom{Position: w.SyncPtr, Got: w.Got, Fresh: w.Got == nil && w.SyncPtr == info.Lineage[0].Start}, nil
}

// judge refuses a mirror that cannot go on where it stands. Either side asks it: the peer with the
// durable_ptr of the HELLO, the source with what the peer claims.
func judge(mirror, source Head) error {
	relation, fork := Compare(mirror, source)
	switch relation {
	case Ahead:
		// I1 rules this out between a mirror and the source that fed it, whatever crashed.
		return refusef(wire.CodeAhead, "the mirror is ahead: it stands at %v, the source has durable_ptr %d; "+
			"the source is an older copy of the volume", mirror, source.Position)
	case Diverged:
		return refusef(wire.CodeDiverged, "the histories diverged at position %d: the mirror stands at %v, the source at %v; "+
			"to make it a mirror of that source all the same, say `cawrm demote NAME --force-discard` at the mirror: what only it has stays there as a snapshot",
			fork, mirror, source)
	case Unrelated:
		return refusef(wire.CodeDiverged, "the histories have no lineage in common: the mirror stands at %v, the source at %v",
			mirror, source)
	}
	return nil
}

// peerSilence is how long a peer waits for a source that beats at that interval.
func peerSilence(timeout, interval time.Duration) time.Duration { return max(timeout, 3*interval) }

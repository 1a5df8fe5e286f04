package cawrm

import (
	"errors"
	"fmt"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// The roles of a peer's volumes. Both commands may be called from any goroutine, one of them at a time does something.

// ErrSourceAlive is why a mirror is not promoted: there would be two writable heads.
var ErrSourceAlive = errors.New("its source is alive")

// ErrTwoHeads is why a primary is not demoted without being told twice: another primary has what this one lacks.
var ErrTwoHeads = errors.New("there are two writable heads")

// Promote makes a mirror the primary, where it stands: an epoch that is not whole is given up. Unless forced it is refused
// while the source is heard. Promoting a primary does nothing.
func (p *Peer) Promote(name string, force bool) error {
	t := p.target(name)
	if t == nil {
		return fmt.Errorf("there is no volume %q", name)
	}
	if t.v.Role() == aodi.RolePrimary {
		return nil
	}
	if !force {
		if err := t.awaitSilence(); err != nil {
			return err
		}
	}
	return t.turn(refusef(wire.CodeClosing, "%q is promoted", name), t.v.Promote)
}

// Demote makes a primary a mirror: what it has accepted is durable, and the next source that has it all goes on behind it.
// With discard it becomes the mirror of any source, also of one that lacks what it has: that stays as a snapshot.
func (p *Peer) Demote(name string, discard bool) error {
	t := p.target(name)
	if t == nil {
		return fmt.Errorf("there is no volume %q", name)
	}
	if text := t.Conflict(); text != "" && !discard {
		return fmt.Errorf("%q: %w: %s", name, ErrTwoHeads, text)
	}
	return t.turn(refusef(wire.CodeClosing, "%q changes its role", name), func() error { return t.v.Demote(discard) })
}

// turn changes the role with nobody feeding the volume.
func (t *target) turn(why *refusal, change func() error) error {
	t.takeRole()
	defer t.giveRole()
	t.mu.Lock()
	if t.receiving {
		t.mu.Unlock()
		return refusef(wire.CodeBusy, "%q is receiving a file: end that `cawrm receive` first; what has come of it is kept", t.name)
	}
	t.turning = true
	f := t.feed
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.turning = false
		t.mu.Unlock()
	}()
	if f != nil {
		f.stop(why)
		<-f.done
	}
	before := t.v.Role()
	if err := change(); err != nil {
		return err
	}
	t.noConflict()
	t.turned(before)
	return nil
}

// takeRole waits until nobody else changes the role: that can take as long as the network. Before mu.
func (t *target) takeRole() { t.roles <- struct{}{} }
func (t *target) giveRole() { <-t.roles }

// turned tells of a role that has changed.
func (t *target) turned(before aodi.Role) {
	now := t.v.Role()
	if now == before {
		return
	}
	_, durable := t.v.Pointers()
	t.p.log.Warn("role changed", "name", t.name, "role", now, "head", Head{t.v.Info().Lineage, durable}.String())
	kind := EventPromoted
	if now == aodi.RoleMirror {
		kind = EventDemoted
	}
	t.p.tell(kind, t.name, "it is a %s now, at %v", now, Head{t.v.Info().Lineage, durable})
	if t.p.cfg.Turned != nil {
		t.p.cfg.Turned(t.name)
	}
}

// stepDown makes an old primary, which has come back and which nobody has written to, a mirror of the head that took its
// place.
func (p *Peer) stepDown(t *target, successor Head) error {
	p.log.Warn("this volume was succeeded by another while it was away, and becomes its mirror", "name", t.name, "successor", successor.String())
	return t.turn(refusef(wire.CodeClosing, "%q steps down", t.name), func() error {
		defer t.v.Release() // what waits meanwhile is refused by a mirror, and written where nothing came of it
		if err := t.v.Hold(); err != nil {
			return err
		}
		if !t.v.Untouched() {
			return refusef(wire.CodeBusy, "%q was written to while it was about to step down", t.name)
		}
		return t.v.Demote(false)
	})
}

// awaitSilence waits until the source has missed a beat. A link that was cut without a word looks alive until then.
func (t *target) awaitSilence() error {
	t.mu.Lock()
	f := t.feed
	t.mu.Unlock()
	if f == nil {
		return nil
	}
	heard := f.contact.Load()
	silence := time.NewTimer(min(2*max(f.hello.KeepAlive, minBeat)+silenceSlack, DefaultReadTimeout))
	defer silence.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-f.done:
			return nil
		case <-silence.C:
			return nil
		case <-look.C:
			if f.contact.Load() != heard {
				return fmt.Errorf("%q: %w and feeds it, from %v: `cawrm switchover` there hands over without loss; "+
					"--force promotes all the same, and makes two writable heads of one", t.name, ErrSourceAlive, f.l)
			}
		}
	}
}

// silenceSlack is how much later than it should a beat may come.
const silenceSlack = 500 * time.Millisecond

// target finds a volume, nil if there is none, or no peer.
func (p *Peer) target(name string) *target {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.targets[name]
}

// fed tells whether a source is connected.
func (t *target) fed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.feed != nil || t.turning
}

func (t *target) keptTail(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = name
}

package cawrm

import (
	"errors"
	"fmt"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// welcome checks a HELLO, makes its connection the one that feeds the volume, and answers. The checks come
// before the take-over, so that only a source that could go on ends the connection before it; where the mirror
// stands is asked after it, when nothing moves it any more. The errors are refusals, or the link's.
func (p *Peer) welcome(l *link, r *wire.Reader, h *wire.Hello) (*feed, error) {
	p.mu.Lock()
	t := p.targets[h.Name]
	p.mu.Unlock()
	if t == nil {
		return nil, refusef(wire.CodeUnknownName, "peer %q serves no volume named %q", p.cfg.Name, h.Name)
	}
	f := newFeed(p, t, l, h)
	if err := p.meet(t, l, r, h); err != nil {
		return nil, err
	}
	err := t.check(h)
	if err == nil {
		err = t.take(f)
	}
	if err == nil {
		if err = t.check(h); err == nil {
			err = f.sayWelcome()
		}
		if err != nil {
			t.release(f, err)
		}
	}
	if err != nil {
		t.note(err)
		return nil, err
	}
	l.silence = peerSilence(p.cfg.ReadTimeout, h.KeepAlive)
	f.begin()
	return f, nil
}

// errLed marks the end of a connection on which the sides had changed places.
var errLed = errors.New("fed from here")

// meet is for a volume that is a primary, as its source is, or was: it becomes the mirror if it is an old primary that the
// other has succeeded, and nobody has written to it; else it says who it is. On nil the source may go on.
func (p *Peer) meet(t *target, l *link, r *wire.Reader, h *wire.Hello) error {
	info := t.v.Info()
	if info.Role != aodi.RolePrimary || info.Volume != h.Volume || t.v.Status().Failed != nil {
		return nil
	}
	_, durable := t.v.Pointers()
	if other := (Head{h.Lineage, h.DurablePtr}); h.Size >= info.Size && other.succeeds(Head{info.Lineage, durable}) && t.v.Untouched() {
		return p.stepDown(t, other)
	}
	err := p.sayPrimary(t, l, r, h)
	if !errors.Is(err, errLed) {
		t.note(err)
	}
	return err
}

// check holds a HELLO against the volume. An empty mirror takes any source.
func (t *target) check(h *wire.Hello) error {
	st := t.v.Status()
	switch {
	case st.Failed != nil:
		return refusef(wire.CodeFailed, "mirror %q: %v", t.name, st.Failed)
	case st.Role != aodi.RoleMirror:
		return refusef(wire.CodeNotMirror, "%q is no mirror: the volume there is a %s (volume %v), the source is volume %v",
			t.name, st.Role, st.Volume, h.Volume)
	case !st.HasIdentity:
		return nil
	case st.Volume != h.Volume:
		return refusef(wire.CodeOtherVolume, "%q mirrors volume %v, the source is volume %v", t.name, st.Volume, h.Volume)
	case st.Size > h.Size: // it grew as a primary; a larger source's size comes with its records
		return refusef(wire.CodeOtherSize, "%q has %d bytes, the source %d, and a volume is not made smaller: `cawrm resize` the source", t.name, st.Size, h.Size)
	}
	mirror, source := Head{st.Lineage, st.EndPtr}, Head{h.Lineage, h.DurablePtr}
	if leaves(t.v, mirror, source) {
		return nil
	}
	err := judge(mirror, source)
	if r, ok := err.(*refusal); ok {
		r.text = fmt.Sprintf("%q: %s", t.name, r.text)
	}
	return err
}

// leaves tells whether a mirror has records that its source lacks and gives them up for the source's: when the source has
// succeeded the head that it stands on, or when it was told to by hand.
func leaves(v *aodi.Volume, mirror, source Head) bool {
	switch relation, _ := Compare(mirror, source); relation {
	case Diverged:
		return source.succeeds(mirror) || v.Yields()
	case Ahead:
		return v.Yields()
	}
	return false
}

// take makes f the feed of the volume (I6). The same source's connection before it is dead, though nobody
// has told this side: it is ended, with its last whole epochs committed. Another source's is left alone.
func (t *target) take(f *feed) error {
	patience := time.NewTimer(f.p.cfg.ReadTimeout)
	defer patience.Stop()
	defer t.unclaim(f)
	for {
		old, err := t.claim(f)
		if old == nil {
			return err
		}
		old.stop(fmt.Errorf("replaced by a new connection of the same source, %v", f.l))
		select {
		case <-old.done:
		case <-patience.C:
			return refusef(wire.CodeBusy, "%q: the connection before, from %v, is not done with its commit yet", t.name, old.l)
		}
	}
}

// claim makes f the feed, or returns the one that it may replace. One at a time waits for that.
func (t *target) claim(f *feed) (before *feed, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.feed
	switch {
	case f.p.closed.Load(): // asked under t.mu: a feed that gets in before is stopped by Close
		return nil, refusef(wire.CodeClosing, "peer %q is stopping", f.p.cfg.Name)
	case t.turning:
		return nil, refusef(wire.CodeBusy, "%q changes its role", t.name)
	case t.gone:
		return nil, refusef(wire.CodeUnknownName, "peer %q serves no volume named %q any more", f.p.cfg.Name, t.name)
	case t.receiving:
		return nil, refusef(wire.CodeBusy, "%q is receiving a file", t.name)
	case old == nil:
		t.feed, t.source, t.identity, t.container = f, f.l.String(), f.l.identity(), f.hello.Container
		return nil, nil
	case old.hello.Container != f.hello.Container:
		return nil, refusef(wire.CodeBusy, "%q is being fed by another source of this volume, container %v at %v",
			t.name, old.hello.Container, old.l)
	case t.next != nil && t.next != f:
		return nil, refusef(wire.CodeBusy, "%q: another connection of the same source, from %v, waits for the one before to end",
			t.name, t.next.l)
	}
	t.next = f
	return old, nil
}

func (t *target) unclaim(f *feed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next == f {
		t.next = nil
	}
}

// release ends f's turn.
func (t *target) release(f *feed, err error) {
	t.mu.Lock()
	if t.feed == f {
		t.feed = nil
		t.contact = time.Unix(0, f.contact.Load())
	}
	t.mu.Unlock()
	t.note(err)
	close(f.done)
}

func (t *target) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastErr, t.lastErrAt = err.Error(), time.Now()
}

func (t *target) stopFeed(err error) {
	t.mu.Lock()
	f := t.feed
	t.mu.Unlock()
	if f != nil {
		f.stop(err)
	}
}

// end lets no feed in any more and waits for the one that is there.
func (t *target) end() {
	t.mu.Lock()
	t.gone = true
	f := t.feed
	t.mu.Unlock()
	t.endLeading()
	if f != nil {
		f.stop(refusef(wire.CodeClosing, "peer %q stops serving %q", f.p.cfg.Name, t.name))
		<-f.done
	}
}

// sayWelcome tells the source where the mirror stands: what a mirror shows is durable. Whole epochs that the feed before
// could not commit, because of a read that failed say, are committed first: the next records must follow them.
func (f *feed) sayWelcome() error {
	if _, err := f.t.v.Commit(); err != nil {
		return f.failed(err)
	}
	st := f.t.v.Status()
	w := wire.Welcome{Capabilities: f.hello.Capabilities & offered, SyncPtr: st.EndPtr, Name: f.p.cfg.Name}
	f.refers = w.Capabilities&wire.CapReferences != 0
	w.Container = says(w.Capabilities, f.t.v)
	var fork aodi.Position
	if st.HasIdentity {
		source := Head{f.hello.Lineage, f.hello.DurablePtr}
		w.Volume, w.Lineage = st.Volume, st.Lineage
		w.Branch = leaves(f.t.v, Head{st.Lineage, st.EndPtr}, source)
		_, fork = Compare(Head{st.Lineage, st.EndPtr}, source)
		got := f.t.v.Coming()
		if least, _ := got.Least(); least > w.SyncPtr {
			if r, _ := Compare(Head{f.t.v.ComingLineage(), got.Newest()}, source); r == Same || r == Behind {
				w.Got, f.keep = got, true
			}
		}
		f.diverged = w.Branch
	} else {
		f.adopt = true
	}
	frame, err := wire.AppendWelcome(nil, &w)
	if err != nil {
		return refusef(wire.CodeFailed, "mirror %q: %v", f.t.name, err)
	}
	f.committed.Store(uint64(st.EndPtr))
	if err := f.l.say(frame, f.p.cfg.ReadTimeout); err != nil || !w.Branch {
		return err
	}
	return f.sayBranch(fork)
}

package cawrm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// A source that meets a primary and is a mirror itself, or has become one, says FOLLOW, and the sides change places on the
// connection that is there: so an old primary comes back as the mirror of the new one without anybody naming its address.

// sayPrimary answers a source of the same volume that this one is a primary too, and hears what follows of it.
func (p *Peer) sayPrimary(t *target, l *link, r *wire.Reader, h *wire.Hello) error {
	st := t.v.Status()
	own, other := Head{st.Lineage, st.DurablePtr}, Head{h.Lineage, h.DurablePtr}
	taken := h.Capabilities & wire.CapContainer
	frame, err := wire.AppendWelcome(nil, &wire.Welcome{Primary: true, Capabilities: taken, Volume: st.Volume, SyncPtr: st.DurablePtr,
		Name: p.cfg.Name, Lineage: st.Lineage, Container: says(taken, t.v)})
	if err != nil {
		return err
	}
	if err := l.say(frame, p.cfg.ReadTimeout); err != nil {
		return err
	}
	kind, err := r.Next(wire.Of(wire.TypeFollow, wire.TypeRefuse))
	if err != nil {
		return fmt.Errorf("link lost: %w", err)
	}
	if kind == wire.TypeFollow {
		t.endConflict(h.Container)
		return p.lead(t, l, r, h)
	}
	err = told(r)
	var said *refusal
	switch {
	case !errors.As(err, &said):
	case said.code == wire.CodeDiverged:
		t.setConflict(h.Container, twoHeads(own, other, l.String()).text)
		err = fmt.Errorf("%w: %s", errTold, t.Conflict())
	case said.code == wire.CodeNotMirror: // it is one, and fed by another connection
		t.endConflict(h.Container)
	}
	return err
}

// lead feeds the other side until the link ends.
func (p *Peer) lead(t *target, l *link, r *wire.Reader, h *wire.Hello) error {
	m := t.follower(l, h)
	if m == nil {
		return refusef(wire.CodeBusy, "%q has %d followers already", t.name, maxFollowers)
	}
	g, err := t.beginLeading(m)
	if err != nil {
		return err
	}
	defer t.ended(m, g)
	l.sent = &m.sent // nobody else uses the link yet
	p.visitors.leave(l)
	defer p.visitors.enter(l)
	// Peer.Close has ended reads before it ended g, if it was before this: what ends g closes the link, which no renewal takes back.
	l.renewReads()
	stop := context.AfterFunc(g.ctx, func() { l.closeFor(context.Cause(g.ctx)) })
	defer stop()
	if m.whilePaused(func() { g.cancel(errPaused) }) {
		m.down(errPaused)
		return refusef(wire.CodeBusy, "%s is paused at the source, as mirror %s", t.name, m.cfg.ID)
	}
	_, err = m.run(g.ctx, l, r)
	if err = l.because(err); p.closed.Load() {
		err = errClosed // Close ends reads before it closes the link
	}
	m.down(err)
	return fmt.Errorf("%w: %w", errLed, err)
}

// leading is the feeding of a follower over one connection.
type leading struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nothing of it uses the volume any more
}

// beginLeading lets a follower be fed until endLeading, or its next connection: the one before is dead then, though nobody has told
// this side.
func (t *target) beginLeading(m *Mirror) (*leading, error) {
	g := &leading{done: make(chan struct{})}
	g.ctx, g.cancel = context.WithCancelCause(context.Background())
	for {
		before, err := t.claimLeading(m, g)
		if before == nil {
			return g, err
		}
		before.cancel(fmt.Errorf("replaced by a new connection of the same mirror"))
		<-before.done
	}
}

// claimLeading makes g the one that feeds m, or returns the one before.
func (t *target) claimLeading(m *Mirror, g *leading) (before *leading, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch before := t.led[m]; {
	case t.p.closed.Load(): // asked under t.mu: one that gets in before is ended by Close
		return nil, refusef(wire.CodeClosing, "peer %q is stopping", t.p.cfg.Name)
	case t.gone:
		return nil, refusef(wire.CodeUnknownName, "peer %q serves no volume named %q any more", t.p.cfg.Name, t.name)
	case before != nil:
		return before, nil
	}
	t.led[m] = g
	return nil, nil
}

// ended is the end of g.
func (t *target) ended(m *Mirror, g *leading) {
	t.mu.Lock()
	delete(t.led, m)
	t.mu.Unlock()
	g.cancel(nil)
	close(g.done)
}

// endLeading ends what is fed and waits: afterwards no follower uses the volume. The volume was removed, or the peer is closed.
func (t *target) endLeading() {
	t.mu.Lock()
	all, followers := slices.Collect(maps.Values(t.led)), slices.Collect(maps.Values(t.followers))
	t.mu.Unlock()
	for _, g := range all {
		g.cancel(errClosed)
		<-g.done
	}
	for _, m := range followers {
		m.mu.Lock()
		m.closing = true
		m.mu.Unlock()
		m.checking.Wait() // who compares reads the volume
	}
}

// follow is the mirror's side: it is fed over a connection that it has made itself.
func (p *Peer) follow(name string, l *link, r *wire.Reader) error {
	t := p.target(name)
	if t == nil || p.closed.Load() {
		return refusef(wire.CodeClosing, "peer %q is stopping", p.cfg.Name)
	}
	h, err := hello(r)
	if err != nil {
		return err
	}
	h.Name = name
	p.visitors.enter(l) // as one that was accepted
	defer p.visitors.leave(l)
	err = p.feed(l, r, &h)
	var ours *refusal
	if errors.As(err, &ours) && !errors.Is(err, errTold) {
		l.refuse(wire.AppendRefuse(nil, ours.code, ours.text))
	}
	return err
}

// sayBranch says, behind a WELCOME that has told of it, what the mirror has changed on its own branch. To find that can take
// long, and the source is not to take it for silence.
func (f *feed) sayBranch(fork aodi.Position) error {
	type found struct {
		ranges []aodi.Range
		err    error
	}
	done := make(chan found, 1)
	go func() {
		g, err := f.t.v.Branch(fork)
		done <- found{g, err}
	}()
	beat := time.NewTicker(max(f.hello.KeepAlive, minBeat))
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			if err := f.l.say(wire.AppendBeat(nil), f.p.cfg.ReadTimeout); err != nil {
				<-done // the volume is in use until then
				return err
			}
		case g := <-done:
			if g.err != nil {
				return f.failed(g.err)
			}
			f.tail = len(g.ranges) > 0
			return f.sayRanges(g.ranges)
		}
	}
}

func (f *feed) sayRanges(ranges []aodi.Range) error {
	for first := true; first || len(ranges) > 0; first = false {
		n := min(len(ranges), wire.MaxRanges)
		part := make([]wire.Range, n)
		for i, g := range ranges[:n] {
			part[i] = wire.Range(g)
		}
		ranges = ranges[n:]
		frame, err := wire.AppendRanges(nil, part, len(ranges) == 0)
		if err != nil {
			return f.failed(err)
		}
		if err := f.l.say(frame, f.p.cfg.ReadTimeout); err != nil {
			return err
		}
	}
	return nil
}

// tailName is the name of the snapshot that keeps what only this mirror has.
func tailName(v *aodi.Volume, now time.Time) string {
	name := "unsent-" + now.UTC().Format("20060102T150405Z")
	taken := map[string]bool{}
	for _, s := range v.Snapshots() {
		taken[s.Name] = true
	}
	for i, base := 2, name; taken[name]; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name
}

package cawrm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

// A planned change of roles. At every moment at most one side takes writes, and whatever fails, nothing that was
// acknowledged is lost:
//
//	near    the mirror is let come close, while clients write
//	hold    writes wait; the log is durable, and the mirror gets all of it. If it does not in time, writes go on
//	demote  this side is a mirror, durably: from here on there is no primary, until there is the other one
//	hand    HANDOVER: the mirror becomes the primary, says TAKEN, and hangs up; this side follows it
//
// If the link breaks in the last step nobody knows whether the other side has become the primary: then a person has to look.

// handing is a HANDOVER that a session has to send.
type handing struct {
	end   aodi.Position
	taken chan struct{}
}

// Switchover hands the volume over to one of its mirrors, and follows it. ctx bounds how long the mirror may take to come
// close, and hold how long writes may wait. Errors: the mirror did not get there, and this side is the primary still, or it
// says that nobody is.
func (p *Peer) Switchover(ctx context.Context, name string, m *Mirror, hold time.Duration) error {
	t := p.target(name)
	switch {
	case t == nil:
		return fmt.Errorf("there is no volume %q", name)
	case t.v.Role() != aodi.RolePrimary:
		return fmt.Errorf("%q is a mirror: switchover is said where the primary is", name)
	}
	if err := m.await(ctx, func(st Status) bool { return st.State == StateSynced || st.LagBytes <= jumpFirst }); err != nil {
		return fmt.Errorf("%q is the primary still: mirror %s is not close: %w", name, m.cfg.ID, err)
	}
	if err := t.handOver(ctx, m, hold); err != nil {
		return err
	}
	p.log.Warn("handed over", "name", name, "to", m.cfg.ID)
	return nil
}

func (t *target) handOver(ctx context.Context, m *Mirror, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer t.v.Release()
	end, err := t.resign(ctx, m)
	if err != nil {
		return err
	}
	h := &handing{end, make(chan struct{})}
	lost := fmt.Errorf("%q is a mirror now, at position %d, and mirror %s was not heard to take over: look at its role; "+
		"if it is a mirror too, `cawrm promote` on either side, as neither lacks anything", t.name, end, m.cfg.ID)
	select {
	case m.handing <- h:
	case <-ctx.Done():
		return lost
	}
	select {
	case <-h.taken:
		return nil
	case <-ctx.Done():
		return lost
	}
}

// resign makes this side a mirror, at the position that the mirror m has got to. Writes are held when it returns. A change of the
// role that comes meanwhile waits: it would release them.
func (t *target) resign(ctx context.Context, m *Mirror) (end aodi.Position, err error) {
	t.takeRole()
	defer t.giveRole()
	before := t.v.Role()
	if err := t.v.Begin(); err != nil {
		return 0, fmt.Errorf("%q is the primary still: %w", t.name, err)
	}
	if err := t.v.Hold(); err != nil {
		return 0, err
	}
	end, _ = t.v.Pointers()
	if err := m.await(ctx, func(st Status) bool { return st.State == StateSynced && st.SyncPtr == end }); err != nil {
		return 0, fmt.Errorf("%q is the primary still: mirror %s did not get the last records: %w", t.name, m.cfg.ID, err)
	}
	if err := t.v.Demote(false); err != nil {
		return 0, fmt.Errorf("%q is the primary still: %w", t.name, err)
	}
	t.turned(before)
	return end, nil
}

// await waits until the mirror is as wanted.
func (m *Mirror) await(ctx context.Context, is func(Status) bool) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		st := m.Status()
		if is(st) && (st.State == StateSynced || st.State == StateSyncing) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			if st.Reason == "" {
				st.Reason = fmt.Sprintf("it lacks %d records", st.LagRecords)
			}
			return errors.New(st.Reason)
		}
	}
}

func (s *shipment) setHanding(h *handing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handing = h
}

// taken hears that the mirror is the primary.
func (s *shipment) taken() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing != nil {
		close(s.handing.taken)
		s.handing = nil
	}
}

// takeOver ends a feed whose source has handed over at end.
func (f *feed) takeOver(end aodi.Position) error {
	p, err := f.t.v.Commit()
	if err != nil {
		return f.failed(err)
	}
	if p != end {
		return refusef(wire.CodeLied, "mirror %q stands at %d, and is handed over at %d", f.t.name, p, end)
	}
	return errHanded
}

// errHanded ends a feed whose source has handed over.
var errHanded = errors.New("the source has handed over")

// taken makes the mirror the primary, when the feed is over and the connection is still there, and tells its source.
func (f *feed) taken() error {
	why := refusef(wire.CodeClosing, "%q is promoted", f.t.name)
	if err := f.t.turn(why, f.t.v.Promote); err != nil {
		return f.failed(err)
	}
	f.l.refuse(wire.AppendTaken(nil)) // and hangs up, so that the message is not lost
	return errHanded
}

package cawrm

import (
	"errors"
	"fmt"
	"time"

	"cawrm/cawrm/wire"
)

// EventKind says what has happened.
type EventKind string

// The kinds of events.
const (
	EventUp       EventKind = "link-up"     // the mirror is connected again
	EventDown     EventKind = "link-down"   // it is not any more
	EventDiverged EventKind = "diverged"    // the other side holds what this one does not: a person must decide
	EventRefused  EventKind = "refused"     // one side refuses the other for another reason that trying again does not mend
	EventLag      EventKind = "lag"         // the mirror lacks what is older than the recovery point objective
	EventLagOver  EventKind = "lag-over"    // it does not any more
	EventDegraded EventKind = "degraded"    // flushes do not wait for this mirror any more
	EventRestored EventKind = "restored"    // they do again
	EventDiffers  EventKind = "differs"     // verify has found what is not the same on both sites
	EventRepaired EventKind = "repaired"    // a chunk was mended from the other site
	EventGone     EventKind = "source-lost" // of a mirror: its source is not connected any more
	EventFed      EventKind = "source-up"   // it is
	EventPromoted EventKind = "promoted"    // a mirror has become the primary
	EventDemoted  EventKind = "demoted"     // a primary has become a mirror
	EventTail     EventKind = "tail-kept"   // what only an old primary had is a snapshot now
)

// Event is something that a person may want to be told.
type Event struct {
	Time   time.Time
	Kind   EventKind
	Volume string // its NAME, as far as who tells knows it
	Mirror string // the id, where it is about one
	Text   string
}

// tell gives an event to who wants it. No lock is held.
func (m *Mirror) tell(kind EventKind, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if kind != EventUp && kind != EventDown && kind != EventDiverged && kind != EventRefused { // those are logged as what they are
		m.log.Warn("event", "kind", kind, "text", text)
	}
	m.cfg.OnEvent(Event{Time: time.Now(), Kind: kind, Mirror: m.cfg.ID, Text: text})
}

// kindOf is what the end of a link is about.
func kindOf(err error) EventKind {
	var r *refusal
	if !errors.As(err, &r) {
		return EventDown
	}
	switch r.code {
	case wire.CodeAhead, wire.CodeDiverged:
		return EventDiverged
	case wire.CodeBusy, wire.CodeClosing:
		return EventDown
	}
	return EventRefused
}

// watchEvery is how often the lag is held against the objective.
const watchEvery = time.Second

// runWatch tells when a mirror lacks what is older than the objective, and when that is over.
func (s *Source) runWatch(objective time.Duration) {
	defer close(s.watched)
	late := map[*Mirror]bool{}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		now := map[*Mirror]bool{}
		for _, m := range s.Mirrors() {
			lag := time.Duration(m.Status().LagSeconds * float64(time.Second)).Round(time.Second / 10)
			switch now[m] = lag > objective; {
			case now[m] && !late[m]:
				m.tell(EventLag, "the mirror is %v behind, the objective is %v", lag, objective)
			case !now[m] && late[m]:
				m.tell(EventLagOver, "the mirror is within %v again", objective)
			}
		}
		late = now
	}
}

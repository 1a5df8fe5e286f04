package cawrm

import (
	"fmt"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// State is the state of a mirror's link.
type State string

// The states.
const (
	StateConnecting State = "connecting" // not reached yet, and nothing has gone wrong yet
	StateSyncing    State = "syncing"    // connected, the mirror lacks something that is durable here
	StateSynced     State = "synced"     // connected, sync_ptr = durable_ptr
	StateDown       State = "down"       // no link; see Reason. It is being retried.
	StatePaused     State = "paused"     // no link, as somebody has asked
	StateFollowing  State = "following"  // the other side is the primary, and feeds this volume over the link
)

// Status is what is known of a mirror. Lag is what the mirror lacks of everything up to end_ptr.
type Status struct {
	ID, URL     string
	Settings    Settings
	Kept        bool // it is started with the volume, whatever serve is told
	State       State
	Reason      string    // why it is down; empty while it is not
	LastError   string    // why it was down last; kept when the link is back
	LastErrorAt time.Time // zero: it never was
	Declined    string    // why the mirror does not keep the last snapshot that it was told of; empty when it does
	SyncPtr     aodi.Position
	LagRecords  uint64
	LagBytes    int64
	LagSeconds  float64     // age of the oldest record that the mirror lacks, 0 when it lacks none
	RateBps     float64     // bits of data acknowledged per second, lately
	ETASeconds  float64     // until the lag is gone at this rate; 0 when it is, -1 when nobody can tell
	SentBytes   int64       // put on the wire since Start
	DataBytes   int64       // of chunks that were shipped with that, before anything was done to them
	ZeroBytes   int64       // of DataBytes, chunks of zeroes, which are not sent
	RepeatBytes int64       // of DataBytes, chunks that the peer had just got, which are not sent again
	DeltaBytes  int64       // of DataBytes, chunks of which only the difference to what the peer had just got was sent
	PackSeconds float64     // processor time that making it smaller took
	Identity    string      // what the peer has proved to be, last: "certificate NAME, ...", "secret"; "": nothing, the link is not encrypted
	Container   format.UUID // that the mirror is; zero until it has said so
	Limit       int64       // bytes a second at most, by the settings and the time of day; 0: none
	Level       string      // of compression, of the last epoch: off, fast, default, better, best
	Commits     uint64      // acknowledged since Start, each of one epoch or several
	Links       uint64      // connections that the peer welcomed since Start
	Jump        float64     // of a jump epoch that is being shipped: how much of the volume was gone over, 0 to 1; else 0
	Loose       string      // of a loose target: filling or following; else ""

	ReferenceBytes int64 // chunks of the mirror that frames referred to, to say what is new beside them

	Flush        string    // of a mirror of a Source in flush mode: ok, blocked or degraded; else ""
	FlushSince   time.Time // since when it is blocked or degraded
	FlushWaiting int       // flushes that it has not committed yet
}

// Status says how the mirror is. It may read the disk once, when the volume has to be asked about sync_ptr.
func (m *Mirror) Status() Status {
	m.mu.Lock()
	now := time.Now()
	st := Status{ID: m.cfg.ID, URL: m.target.base(), Reason: m.reason, LastError: m.lastErr, LastErrorAt: m.lastErrAt,
		SyncPtr: m.syncPtr, RateBps: 8 * m.rate.perSecond(now), SentBytes: m.sent.Load()}
	st.Limit, st.Identity, st.Container = m.settings.limitAt(now), m.identity, m.reached
	t := &m.traffic
	st.DataBytes, st.ZeroBytes, st.RepeatBytes, st.DeltaBytes = t.data.Load(), t.zeroes.Load(), t.repeats.Load(), t.deltas.Load()
	st.ReferenceBytes = t.refs.Load()
	st.PackSeconds, st.Level = time.Duration(t.cpu.Load()).Seconds(), wire.Level(t.level.Load()).String()
	st.Commits, st.Links = m.commits.Load(), m.links.Load()
	following := m.following
	connected, mark, known := m.connected, m.mark, m.markKnown
	st.Settings, st.Kept, st.Declined = m.settings, m.cfg.Kept, m.declined
	if m.target.Loose {
		st.Loose = LooseFilling
		if m.loose.steady {
			st.Loose = LooseFollowing
		}
	}
	jump, since := m.jump, m.jumpSince
	m.mu.Unlock()

	// The pointers are asked after sync_ptr was read, so they can only be too large: never a negative lag.
	_, durable := m.v.Pointers()
	end := m.v.EndMark()
	st.State = state(connected, st.Reason != "", st.SyncPtr == durable)
	if st.Settings.Paused && !connected {
		st.State = StatePaused
	}
	if following {
		st.State, st.Reason = StateFollowing, ""
		return st // this side has nothing that the other lacks
	}
	if end.Position > st.SyncPtr {
		if !known || mark.Time.IsZero() {
			mark, known = m.refreshMark(st.SyncPtr)
		}
		st.LagRecords = aodi.Records(m.v.Info().Lineage, st.SyncPtr, end.Position)
		if known {
			st.LagBytes = max(0, end.Bytes-mark.Bytes)
			st.LagSeconds = max(0, now.Sub(mark.Time).Seconds())
		}
	}
	st.Jump = max(0, jump)
	switch {
	case st.LagRecords == 0:
	case jump > 0.01 && connected:
		st.ETASeconds = now.Sub(since).Seconds() * (1 - jump) / jump
	case jump >= 0:
		st.ETASeconds = -1
	case st.RateBps > 0 && connected:
		st.ETASeconds = float64(st.LagBytes) * 8 / st.RateBps
	default:
		st.ETASeconds = -1
	}
	return st
}

func state(connected, failed, drained bool) State {
	switch {
	case connected && drained:
		return StateSynced
	case connected:
		return StateSyncing
	case failed:
		return StateDown
	}
	return StateConnecting
}

// refreshMark asks the volume for the mark of p, which is sync_ptr: at the start, and when the first record
// beyond it came only after it had been reached.
func (m *Mirror) refreshMark(p aodi.Position) (aodi.Mark, bool) {
	mark, err := m.v.MarkAt(p)
	if err != nil || mark.Time.IsZero() {
		return mark, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.syncPtr == p {
		m.mark, m.markKnown = mark, true
	}
	return mark, true
}

// setJump says how much of a jump epoch was read, 0 to 1; -1: none is under way.
func (m *Mirror) setJump(progress float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.jump < 0 {
		m.jumpSince = time.Now()
	}
	m.jump = progress
}

// markBytes is what the volume took before sync_ptr, as far as is known.
func (m *Mirror) markBytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mark.Bytes
}

// hasRoom tells whether one more epoch may be sent.
func (m *Mirror) hasRoom() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes < m.cfg.Window
}

// launch puts an epoch in flight. Its mark is the last one's, moved on by the bytes between.
func (m *Mirror) launch(ep *epoch) {
	b := &ep.batch
	m.mu.Lock()
	defer m.mu.Unlock()
	if !ep.commit { // nothing is acknowledged before the jump epoch is whole, and what holds it back is the link itself
		m.rate.add(time.Now(), int64(len(b.Data)))
		return
	}
	before := m.mark.Bytes
	if n := len(m.flight); n > 0 {
		before = m.flight[n-1].mark.Bytes + m.flight[n-1].bytes
	}
	f := inFlight{end: b.End, jump: b.Jump, bytes: ep.logged, frame: ep.frame.Size(),
		mark: aodi.Mark{Position: b.First, Bytes: before, Time: time.Unix(0, b.Time)}}
	if b.Jump && !m.mark.Time.IsZero() {
		f.mark.Time = m.mark.Time // a cut's own time is that of its end
	}
	if len(m.flight) == 0 {
		m.mark = f.mark
		m.mark.Position = m.syncPtr
	}
	m.flight = append(m.flight, f)
	m.bytes += f.frame
}

// ack moves sync_ptr to what the peer says it has committed. A peer commits whole epochs, in order, that it was
// sent; anything else is refused (I2, I4).
func (m *Mirror) ack(p aodi.Position) (moved bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p == m.syncPtr {
		return false, nil
	}
	n, data := 0, int64(0)
	for n < len(m.flight) && m.flight[n].end <= p {
		if !m.flight[n].jump {
			data += m.flight[n].bytes
		}
		m.bytes -= m.flight[n].frame
		n++
	}
	if n == 0 || m.flight[n-1].end != p {
		return false, refusef(wire.CodeLied, "the peer acknowledges position %d, which is no epoch on its way: sync_ptr is %d and %s",
			p, m.syncPtr, m.flyingLocked())
	}
	last := m.flight[n-1]
	m.syncPtr = p
	m.mark = aodi.Mark{Position: p, Bytes: last.mark.Bytes + last.bytes} // no record there yet, as far as is known
	m.flight = m.flight[n:]
	if len(m.flight) > 0 {
		m.mark = m.flight[0].mark
	}
	m.rate.add(time.Now(), data)
	return true, nil
}

// flyingLocked describes what is in flight, for messages.
func (m *Mirror) flyingLocked() string {
	if len(m.flight) == 0 {
		return "nothing is"
	}
	return fmt.Sprintf("%d epochs are, up to %d", len(m.flight), m.flight[len(m.flight)-1].end)
}

// remember leaves a hint in the volume's table, which is only memory until the volume's next checkpoint.
func (m *Mirror) remember() {
	if m.guest {
		return
	}
	m.remembering.Lock() // two that remember do so in the order in which they looked
	defer m.remembering.Unlock()
	m.mu.Lock()
	p, settings, filled := m.syncPtr, m.settings, m.loose.filled
	m.remembered = time.Now()
	m.mu.Unlock()
	to := m.target
	to.Query = settings.Query()
	r := format.Mirror{ID: m.cfg.ID, URL: to.String(), SyncPtr: p, Kept: m.cfg.Kept}
	if filled {
		r.Lineage = m.lineageAt(p)
	}
	m.v.RememberMirror(r)
}

// rememberSometimes is remember when the last time is long ago.
func (m *Mirror) rememberSometimes() {
	m.mu.Lock()
	due := time.Since(m.remembered) >= rememberEvery
	m.mu.Unlock()
	if due {
		m.remember()
	}
}

const (
	meterSlot  = 500 * time.Millisecond
	meterSlots = 10
)

// meter counts bytes in slots of time and forgets them after five seconds.
type meter struct {
	slots [meterSlots]int64
	first int64 // number of the slot in which counting began, 0: not yet
	last  int64 // number of the current slot
}

func (r *meter) roll(now time.Time) {
	n := now.UnixNano() / int64(meterSlot)
	if r.first == 0 {
		r.first, r.last = n, n
	}
	for i := 0; r.last < n && i < meterSlots; i++ {
		r.last++
		r.slots[r.last%meterSlots] = 0
	}
	r.last = max(r.last, n)
}

func (r *meter) add(now time.Time, bytes int64) {
	r.roll(now)
	r.slots[r.last%meterSlots] += bytes
}

// perSecond is the mean since the oldest slot began.
func (r *meter) perSecond(now time.Time) float64 {
	if r.first == 0 {
		return 0
	}
	r.roll(now)
	var sum int64
	for _, s := range r.slots {
		sum += s
	}
	oldest := time.Unix(0, max(r.first, r.last-meterSlots+1)*int64(meterSlot))
	return float64(sum) / max(now.Sub(oldest), meterSlot).Seconds()
}

package cawrm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sys/unix"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// Defaults of MirrorConfig.
const (
	DefaultWindow      = 64 << 20
	DefaultKeepAlive   = 2 * time.Second
	DefaultReadTimeout = 10 * time.Second
)

const (
	dialTimeout = 5 * time.Second // the kernel asks at 0, 1 and 3 s: a healed link is found within about 2 s

	retryFirst   = 50 * time.Millisecond
	retryMax     = 2 * time.Second
	retryRefused = 10 * time.Second // a person must act first

	rememberEvery = time.Second
)

// DialFunc connects to a peer; net.Dialer's DialContext with the network left out.
type DialFunc func(ctx context.Context, addr string) (net.Conn, error)

// MirrorConfig says where a mirror is and how to talk to it. Zero values are replaced by the defaults.
type MirrorConfig struct {
	ID   string // how people call this mirror; unique among the volume's mirrors
	URL  string // cawrm://host:port/NAME, with the Settings to begin with in its query; with none, those remembered for the id count
	Kept bool   // the volume is to remember that the mirror is started with it

	Window      int64         // bytes that may be in flight, not acknowledged
	KeepAlive   time.Duration // a side that has sent nothing for so long sends a beat
	ReadTimeout time.Duration // a link on which nothing was heard for so long is dead
	Congestion  string        // TCP congestion control by name ("bbr"); "": the system's
	Trust       *Trust        // nil: nobody proves who they are, and nothing is encrypted
	Dial        DialFunc      // nil: TCP, without delay, with the kernel's autotuned buffers
	Logger      *slog.Logger  // nil: discard
	OnEvent     func(Event)   // told of what a person may want to know, from any goroutine; must return soon. nil: nobody is

	moved func() // a Source's, told when sync_ptr or the settings have moved

	// The peer that has this volume under Name, if it is to be fed where the other side turns out to be the primary.
	Peer *Peer
	Name string
}

// Mirror is one mirror of a volume, seen from its source: the sync loop and its pointer.
type Mirror struct {
	v      *aodi.Volume
	cfg    MirrorConfig
	target Target
	log    *slog.Logger

	sent           atomic.Int64
	traffic        traffic
	limiter        limiter       // runSend's
	commits, links atomic.Uint64 // acknowledged commits that moved sync_ptr; connections
	taken          uint64        // the capabilities of the session; runSync and what it starts
	container      format.UUID   // the peer's, where it says so; the same
	known          *known        // what the mirror holds; the same
	plain          time.Time     // no references before; runSync

	cancel   context.CancelFunc
	done     chan struct{}
	checkOut chan []byte // CHECK frames for runSend

	remembering sync.Mutex
	told        EventKind     // about the link; runSync
	handing     chan *handing // to the session that is under way
	guest       bool          // it came by itself: only its settings are remembered, if it was given any
	changing    sync.Mutex    // of a guest: one change of its settings at a time

	mu         sync.Mutex
	settings   Settings
	interrupt  context.CancelFunc // ends the session that is under way, or the wait for the next
	changed    chan struct{}      // closed and replaced when the settings change
	connected  bool
	identity   string      // of the peer, see link.identity
	reached    format.UUID // the container that the mirror is, when it has said so; `container`, for Status
	contacted  bool        // the peer has said where it stands, in this life
	reason     string
	following  bool // the other side is the primary and feeds this volume, over this mirror's connection
	lastErr    string
	lastErrAt  time.Time
	syncPtr    aodi.Position
	mark       aodi.Mark // of syncPtr; see markLocked
	markKnown  bool
	flight     []inFlight // sent, not acknowledged: epochs in order
	bytes      int64      // in flight
	rate       meter
	loose      loose // of a loose target
	closing    bool
	checking   sync.WaitGroup // Verify, while it reads the volume; added to with mu held
	checks     bool           // the peer can compare
	check      *check         // under way, or wanted
	nudge      func()         // lets runRead look whether one is wanted
	degraded   bool           // flushes do not wait for it; see flush.go
	degradedAt time.Time
	rejoin     rejoin
	jump       float64 // how much of a jump epoch was read, 0 to 1; -1: none is under way
	jumpSince  time.Time
	remembered time.Time
	toldOf     []string // snapshots that the mirror has answered for, at toldAt
	toldAt     aodi.Position
	declined   string // why it does not keep the last of them; "": it does
}

// inFlight is an epoch on its way.
type inFlight struct {
	end   aodi.Position
	mark  aodi.Mark // of its first record
	bytes int64     // that the log took for it
	jump  bool
	frame int64 // of the frame, for the window
}

// Start starts mirroring v. It returns at once; whether the peer can be reached is told by Status. Errors: an id that
// is missing, a URL that cannot be used.
func Start(v *aodi.Volume, cfg MirrorConfig) (*Mirror, error) {
	target, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.ID == "" {
		return nil, fmt.Errorf("mirror %q: it has no id", cfg.URL)
	}
	cfg.setDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mirror{v: v, cfg: cfg, target: target, cancel: cancel, done: make(chan struct{}),
		log: cfg.Logger.With("mirror", cfg.ID, "url", target.base()), changed: make(chan struct{}),
		handing: make(chan *handing), checkOut: make(chan []byte)}
	m.jump = -1
	m.recall()
	go m.runSync(ctx)
	return m, nil
}

func (c *MirrorConfig) setDefaults() {
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if c.KeepAlive < time.Millisecond {
		c.KeepAlive = DefaultKeepAlive
	}
	c.KeepAlive = min(c.KeepAlive, wire.MaxKeepAlive)
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = DefaultReadTimeout
	}
	if c.Dial == nil {
		c.Dial = dialTCP(c.Congestion)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	if c.moved == nil {
		c.moved = func() {}
	}
}

// dialTCP is the network. Go sets TCP_NODELAY; SO_SNDBUF is left alone, since setting it ends the kernel's autotuning.
func dialTCP(congestion string) DialFunc {
	d := net.Dialer{Timeout: dialTimeout}
	if congestion != "" {
		d.ControlContext = controlCongestion(congestion)
	}
	return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
}

// recall takes from the volume's table where the mirror was when this volume last heard of it, which serves the status until
// the peer is asked, and the settings, unless the URL names some.
func (m *Mirror) recall() {
	m.syncPtr, m.settings = start(m.v), m.target.settings()
	_, durable := m.v.Pointers()
	for _, r := range m.v.Mirrors() {
		if r.ID != m.cfg.ID {
			continue
		}
		if r.SyncPtr <= durable {
			m.syncPtr = max(r.SyncPtr, m.syncPtr)
		}
		if before, err := ParseURL(r.URL); err == nil && m.target.Query == "" {
			m.settings = before.settings()
		}
		if m.target.Loose {
			m.recallLoose(r)
		}
	}
}

// start is the position of the volume's first record.
func start(v *aodi.Volume) aodi.Position {
	if l := v.Info().Lineage; len(l) > 0 {
		return l[0].Start
	}
	return 0
}

// Close ends the loop and waits for it. The mirror is left as it is; a later Start goes on there.
func (m *Mirror) Close() {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	m.cancel()
	<-m.done
	m.checking.Wait() // who compares reads the volume
}

// runSync is the loop: connect, ship until the link ends, wait, again.
func (m *Mirror) runSync(ctx context.Context) {
	defer close(m.done)
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier = retryFirst, retryMax, 2
	for m.awaitResume(ctx) {
		round := m.begin(ctx)
		progress, err := m.session(round)
		switch {
		case ctx.Err() != nil:
			err = errClosed
		case round.Err() != nil:
			err = errPaused
		}
		m.down(err)
		if progress {
			b.Reset()
		}
		wait := b.NextBackOff()
		if slow(err) {
			wait = retryRefused
		}
		select {
		case <-time.After(wait):
		case <-round.Done():
		}
		m.interrupt()
	}
}

// begin is the context of one try: its session, and the wait after it.
func (m *Mirror) begin(ctx context.Context) context.Context {
	round, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.interrupt = cancel; m.settings.Paused {
		cancel() // since it was asked
	}
	return round
}

// awaitResume waits while the mirror is paused. It is false when the mirror was closed.
func (m *Mirror) awaitResume(ctx context.Context) bool {
	for ctx.Err() == nil {
		m.mu.Lock()
		paused, changed := m.settings.Paused, m.changed
		m.mu.Unlock()
		if !paused {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return false
}

// Settings are those in force.
func (m *Mirror) Settings() Settings {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settings
}

// Change puts other settings in force, at once: pausing ends the connection. They are durable with the volume's next checkpoint.
func (m *Mirror) Change(s Settings) {
	m.mu.Lock()
	m.settings = s
	switch {
	case s.Paused && m.interrupt != nil:
		m.interrupt()
	case !s.Paused && m.reason == errPaused.Error():
		m.reason = "" // it is connecting
	}
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	m.remember()
	m.moved()
}

// refusal is a reason that was told to the other side, or by it.
type refusal struct {
	code wire.Code
	text string
}

func (r *refusal) Error() string { return r.text }

func refusef(code wire.Code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// errClosed is the reason after Close, errPaused after a pause.
var (
	errClosed = errors.New("closed")
	errPaused = errors.New("paused")
)

// errLocal marks what is wrong on this side and needs no prompt retry.
var errLocal = errors.New("source volume")

// These pass by themselves, and may do so soon.
var (
	errNoSource = errors.New("source volume: an empty mirror itself, no source has reached it yet")
	errGrowing  = errors.New("source volume: its new size is not on stable storage yet")
)

// slow tells that trying again soon is of no use.
func slow(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.code != wire.CodeBusy && r.code != wire.CodeClosing && r.code != wire.CodeReference
	}
	return errors.Is(err, errLocal) || errors.Is(err, errTrust) || errors.Is(err, wire.ErrMagic) || errors.Is(err, wire.ErrVersion)
}

// session makes one connection and ships over it until it ends. progress tells that the mirror got on by it.
func (m *Mirror) session(ctx context.Context) (progress bool, err error) {
	if m.target.Loose {
		return m.looseSession(ctx)
	}
	l, err := m.connect(ctx)
	if err != nil {
		return false, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.closeFor(errClosed) })
	defer stop()
	r := wire.NewReader(l.stream())
	defer r.Release()
	return m.run(ctx, l, r)
}

// run is a session over a connection that is there.
func (m *Mirror) run(ctx context.Context, l *link, r *wire.Reader) (progress bool, err error) {
	from, turn, err := m.handshake(l, r)
	if err == errFollow {
		return true, m.follow(l, r)
	}
	if err != nil {
		return err == errAgain, err
	}
	log, err := m.v.ReadLog(from.Position)
	if err != nil {
		return false, fmt.Errorf("%w: read the log at %d: %w", errLocal, from.Position, err)
	}
	m.recollect(from, turn)
	if err := m.up(from.Position, l.identity()); err != nil {
		log.Close()
		return false, err
	}
	progress, err = m.ship(ctx, l, r, log, from, turn)
	m.lacked(err)
	return progress, err
}

func (m *Mirror) connect(ctx context.Context) (*link, error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := m.cfg.Dial(dctx, m.target.Addr)
	if err != nil {
		return nil, err
	}
	l := newLink(c, m.cfg.ReadTimeout, &m.sent)
	if m.cfg.Trust == nil {
		return l, nil
	}
	host, _, _ := net.SplitHostPort(m.target.Addr) // ParseURL has made it
	tctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	if err := m.cfg.Trust.dial(tctx, l, host); err != nil {
		l.Close()
		return nil, fmt.Errorf("%s: %w", m.target.Addr, err)
	}
	return l, nil
}

// up notes that the mirror is connected, to whom, and stands at p: what was in flight on the link before does not count.
func (m *Mirror) up(p aodi.Position, identity string) error {
	mark, err := m.v.MarkAt(p)
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	m.mu.Lock()
	m.connected, m.contacted, m.reason, m.identity = true, true, "", identity
	m.links.Add(1)
	m.syncPtr, m.mark, m.markKnown = p, mark, true
	m.flight, m.bytes, m.rate = m.flight[:0], 0, meter{}
	if p != m.toldAt {
		m.toldOf = nil // it may be another mirror, at that address
	}
	m.mu.Unlock()
	m.log.Info("connected", "sync_ptr", p)
	m.remember()
	m.told = EventUp
	m.tell(EventUp, "connected, sync_ptr is %d", p)
	m.moved()
	return nil
}

// down notes why there is no link, and says so when it is news.
func (m *Mirror) down(err error) {
	text := err.Error()
	m.mu.Lock()
	was := m.reason
	news := m.connected || was != text
	m.connected, m.reason = false, text
	if err != errPaused {
		m.lastErr, m.lastErrAt = text, time.Now()
	}
	m.flight, m.bytes = m.flight[:0], 0
	contacted, p := m.contacted, m.syncPtr
	m.mu.Unlock()
	if contacted {
		m.remember()
	}
	switch {
	case err == errClosed, err == errPaused:
		m.log.Info(text, "sync_ptr", p)
	case news:
		m.log.Warn("down", "reason", text, "sync_ptr", p)
		if kind := kindOf(err); kind != m.told { // not for each other reason why there is still no link
			m.told = kind
			m.tell(kind, "%s", text)
		}
	}
}

func controlCongestion(name string) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, _ string, c syscall.RawConn) error {
		var err error
		ctrl := c.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
		})
		if err != nil {
			err = fmt.Errorf("congestion control %q: %w (see /proc/sys/net/ipv4/tcp_available_congestion_control)", name, err)
		}
		return errors.Join(ctrl, err)
	}
}

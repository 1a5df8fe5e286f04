package cawrm

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

const helloTimeout = 10 * time.Second

// PeerConfig is what a peer needs to know. Zero values are replaced by defaults.
type PeerConfig struct {
	Name        string        // its own, for the other side's messages; "": the host's
	Trust       *Trust        // nil: nobody proves who they are, and nothing is encrypted
	ReadTimeout time.Duration // a source that was not heard for so long is gone; at least three of its keep-alive intervals
	Logger      *slog.Logger  // nil: discard
	OnEvent     func(Event)   // as MirrorConfig.OnEvent

	// Turned is called after the role of a volume has changed, by whatever. May be nil.
	Turned func(name string)
}

// Peer is the mirror side: it listens for sources and applies what they ship to the volumes that it was given.
type Peer struct {
	cfg PeerConfig
	log *slog.Logger

	visitors visitors
	garbage  rate.Sometimes
	wg       sync.WaitGroup

	closed    atomic.Bool
	mu        sync.Mutex
	targets   map[string]*target
	listeners map[net.Listener]struct{}
	links     map[*link]struct{}
}

// target is a volume that sources may feed.
type target struct {
	p     *Peer
	name  string
	v     *aodi.Volume
	roles chan struct{} // holds one while the role changes; before mu

	mu        sync.Mutex
	feed      *feed // the source that feeds it now; I6
	source    string
	identity  string
	container format.UUID
	next      *feed     // waits for feed to end, to take its place
	gone      bool      // removed: no feed may begin
	contact   time.Time // of the last feed, once it is over
	lastErr   string
	lastErrAt time.Time
	turning   bool // the role changes: no feed may begin
	conflicts []conflict
	tail      string // the snapshot of what only this volume had
	followers map[format.UUID]*Mirror
	led       map[*Mirror]*leading // those that are being fed
	receiving bool                 // a delta file
}

// NewPeer makes a peer without volumes.
func NewPeer(cfg PeerConfig) *Peer {
	if cfg.Name == "" {
		cfg.Name, _ = os.Hostname() // no name is no harm: it is for messages
	}
	cfg.Name = cfg.Name[:min(len(cfg.Name), wire.MaxName)]
	if cfg.ReadTimeout <= 0 {
		cfg.ReadTimeout = DefaultReadTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	return &Peer{cfg: cfg, log: cfg.Logger, visitors: newVisitors(), garbage: rate.Sometimes{First: 10, Interval: time.Second},
		targets: map[string]*target{}, listeners: map[net.Listener]struct{}{}, links: map[*link]struct{}{}}
}

// AddVolume lets sources feed v under that NAME. A primary may be added too: it is known, and refused with that reason.
// Errors: a name that is taken.
func (p *Peer) AddVolume(name string, v *aodi.Volume) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.targets[name] != nil {
		return fmt.Errorf("peer: a volume named %q is there already", name)
	}
	p.targets[name] = &target{p: p, name: name, v: v, roles: make(chan struct{}, 1), followers: map[format.UUID]*Mirror{}, led: map[*Mirror]*leading{}}
	return nil
}

// RemoveVolume ends the feed of a volume after its whole epochs are committed, and forgets the volume. When it returns the
// peer does not use it any more.
func (p *Peer) RemoveVolume(name string) {
	p.mu.Lock()
	t := p.targets[name]
	delete(p.targets, name)
	p.mu.Unlock()
	if t != nil {
		t.end()
	}
}

// Serve accepts sources until the listener fails or Close, which makes it return nil. Any number of listeners may be
// served at once.
func (p *Peer) Serve(ln net.Listener) error {
	p.mu.Lock()
	if p.closed.Load() {
		p.mu.Unlock()
		return ln.Close()
	}
	p.listeners[ln] = struct{}{}
	p.wg.Add(1)
	p.mu.Unlock()
	defer p.wg.Done()
	err := p.runAccept(ln)
	p.mu.Lock()
	delete(p.listeners, ln)
	p.mu.Unlock()
	if p.closed.Load() {
		return nil
	}
	return err
}

// runAccept accepts. Running out of descriptors is no reason to stop: it waits and goes on.
func (p *Peer) runAccept(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		var ne net.Error
		switch {
		case err == nil:
			p.admit(c)
		case errors.Is(err, net.ErrClosed) || !errors.As(err, &ne):
			return err
		default:
			p.log.Warn("peer: accept", "error", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (p *Peer) admit(c net.Conn) {
	l := newLink(c, p.cfg.ReadTimeout, new(atomic.Int64))
	if p.visitors.enter(l) {
		p.garbage.Do(func() { p.log.Warn("peer: connection dropped", "for", l.String(), "reason", errCrowded) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Load() {
		p.visitors.leave(l)
		c.Close()
		return
	}
	p.links[l] = struct{}{}
	p.wg.Go(func() {
		p.runConn(l)
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	})
}

// runConn serves one connection: a visitor until its HELLO has passed all checks, then a feed, and a visitor again
// while it is told why it was ended.
func (p *Peer) runConn(l *link) {
	defer p.visitors.leave(l)
	defer l.Close()
	l.endReads(helloTimeout) // a stranger's time does not grow by single bytes
	if err := p.prove(l); err != nil {
		p.distrust(l, err)
		return
	}
	r := wire.NewReader(l.stream())
	defer r.Release()
	h, err := hello(r)
	if err != nil {
		p.stranger(l, err)
		return
	}
	err = p.feed(l, r, &h)
	var ours *refusal
	if errors.As(err, &ours) && !errors.Is(err, errTold) {
		l.refuse(wire.AppendRefuse(nil, ours.code, ours.text))
	}
}

// feed lets a source that has said HELLO feed its volume, until the link ends.
func (p *Peer) feed(l *link, r *wire.Reader, h *wire.Hello) error {
	log := p.log.With("from", l.String(), "name", h.Name)
	f, err := p.welcome(l, r, h)
	switch {
	case err == nil:
		p.visitors.leave(l)
		log.Info("source connected", "container", h.Container, "position", f.position())
		p.tell(EventFed, h.Name, "fed by %v", l)
		err = f.run(r)
		p.gone(log, f, err)
		p.visitors.enter(l)
		if errors.Is(err, errHanded) {
			err = f.taken()
		}
	case errors.Is(err, errLed): // the mirror that it was has told
	case p.closed.Load():
		log.Info("source sent away", "reason", errClosed)
	default:
		p.garbage.Do(func() {
			log.Warn("source refused", "reason", err)
			if kind := kindOf(err); kind == EventDiverged {
				p.tell(kind, h.Name, "%v", err)
			}
		})
	}
	return err
}

// gone tells that a source is not there any more. That this side stops is no news of the source.
func (p *Peer) gone(log *slog.Logger, f *feed, err error) {
	if p.closed.Load() || err == errClosed {
		log.Info("source sent away", "reason", errClosed, "position", f.position())
		return
	}
	log.Warn("source gone", "reason", err, "position", f.position())
	p.tell(EventGone, f.hello.Name, "%v: %v", f.l, err)
}

func (p *Peer) tell(kind EventKind, volume, format string, args ...any) {
	p.cfg.OnEvent(Event{Time: time.Now(), Kind: kind, Volume: volume, Text: fmt.Sprintf(format, args...)})
}

func hello(r *wire.Reader) (wire.Hello, error) {
	if _, err := r.Next(wire.Of(wire.TypeHello)); err != nil {
		return wire.Hello{}, err
	}
	return r.Hello()
}

// stranger ends a connection that said no HELLO which this side understands. Port scans are not news.
func (p *Peer) stranger(l *link, err error) {
	code := wire.CodeGarbage
	switch {
	case err == io.EOF || errors.Is(err, net.ErrClosed) || p.closed.Load():
		return
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no HELLO within %v", helloTimeout)
	case errors.Is(err, wire.ErrVersion):
		code = wire.CodeVersion
	}
	p.garbage.Do(func() { p.log.Warn("peer: connection refused", "from", l.String(), "reason", err) })
	l.refuse(wire.AppendRefuse(nil, code, fmt.Sprintf("peer %q: %v", p.cfg.Name, err)))
}

// Close refuses new sources, ends those that are there after their whole epochs are committed, and waits for all of it.
func (p *Peer) Close() {
	p.mu.Lock()
	p.closed.Store(true)
	for ln := range p.listeners {
		ln.Close()
	}
	for l := range p.links {
		l.endReads(0)
	}
	targets := p.sortedLocked()
	p.mu.Unlock()
	for _, t := range targets {
		t.stopFeed(refusef(wire.CodeClosing, "peer %q is stopping", p.cfg.Name))
		t.endLeading()
	}
	p.wg.Wait()
}

func (p *Peer) sortedLocked() []*target {
	var all []*target
	for _, t := range p.targets {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *target) int { return strings.Compare(a.name, b.name) })
	return all
}

// FeedStatus is what a peer knows of one of its volumes' sources.
type FeedStatus struct {
	Name        string
	Connected   bool
	Identity    string      // what that source has proved to be, as in Status; "": nothing
	Source      string      // address of the source that feeds the volume, or did last; empty: none yet
	Container   format.UUID // of that source
	LastContact time.Time   // when it was heard last
	LastError   string      // why it was refused or lost last
	LastErrorAt time.Time
	Conflict    string // which other writable head was met; empty: none
	Tail        string // the snapshot that keeps what only this volume had, of this life
}

// Status tells, for each volume in the order of the names, who feeds it.
func (p *Peer) Status() []FeedStatus {
	p.mu.Lock()
	targets := p.sortedLocked()
	p.mu.Unlock()
	var all []FeedStatus
	for _, t := range targets {
		all = append(all, t.status())
	}
	return all
}

func (t *target) status() FeedStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := FeedStatus{Name: t.name, Connected: t.feed != nil, Source: t.source, Identity: t.identity, Container: t.container,
		LastContact: t.contact, Conflict: t.conflictLocked(), Tail: t.tail, LastError: t.lastErr, LastErrorAt: t.lastErrAt}
	if t.feed != nil {
		st.LastContact = time.Unix(0, t.feed.contact.Load())
	}
	return st
}

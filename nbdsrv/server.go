package nbdsrv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Config of a Server. The zero value serves without TLS and with the defaults named below.
type Config struct {
	// Finder is asked for names that were not added; nil: there are none.
	Finder Finder
	// TLS lets clients upgrade with NBD_OPT_STARTTLS; nil refuses that. Versions below 1.2 are never
	// accepted. Client certificates are asked for as it says.
	TLS *tls.Config
	// RequireTLS makes the upgrade a must ("FORCEDTLS"): until then a client learns nothing.
	RequireTLS bool
	// Logger gets one line for each connection's end and for failed handshakes; nil discards.
	Logger *slog.Logger
	// MaxConns is how many connections are served at a time; a further one is closed at once.
	// 0 means 128.
	MaxConns int
	// HandshakeTimeout is how long a client may take from connecting to the transmission phase.
	// 0 means 20 s.
	HandshakeTimeout time.Duration
	// MaxInflight is what the payloads in flight of all connections may take together, in bytes. Beyond it
	// each connection may have one payload, or piece of one, of 256 KiB. 0 means 512 MiB.
	MaxInflight int64
	// MaxHandshakes is how many connections may be in the handshake at a time, beside MaxConns. A further one
	// takes the place of the oldest from the address that has the most. 0 means 256.
	MaxHandshakes int
	// StallTimeout is how long a client may leave a request half sent, or its replies unread, without getting
	// on. A client that has nothing outstanding may be silent for ever. 0 means 60 s.
	StallTimeout time.Duration
	// Workers is how many requests of one connection may wait in the device at a time. 0 means 64.
	Workers int
}

const (
	defaultMaxConns         = 128
	defaultHandshakeTimeout = 20 * time.Second
	defaultMaxInflight      = 512 << 20
	defaultMaxHandshakes    = 256
	defaultStallTimeout     = time.Minute
	defaultWorkers          = 64
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("nbdsrv: server closed")

// Server serves exports to NBD clients. All methods may be called from any goroutine.
type Server struct {
	cfg      Config
	log      *slog.Logger
	memory   memory
	draining atomic.Bool
	running  sync.WaitGroup // one for each goroutine
	slots    chan struct{}  // one for each connection in the handshake
	noise    rate.Sometimes // log lines that anybody can cause

	mu        sync.Mutex // guards all below
	exports   []*Export  // in the order they were added
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	serving   int     // connections beyond the handshake
	young     []*conn // in the handshake and not yet dropped, oldest first
	total     Stats   // of connections that have ended
}

func (cfg *Config) setDefaults() {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultMaxConns
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	if cfg.MaxInflight == 0 {
		cfg.MaxInflight = defaultMaxInflight
	}
	if cfg.Workers == 0 {
		cfg.Workers = defaultWorkers
	}
	if cfg.MaxHandshakes == 0 {
		cfg.MaxHandshakes = defaultMaxHandshakes
	}
	if cfg.StallTimeout == 0 {
		cfg.StallTimeout = defaultStallTimeout
	}
}

// New makes a server without exports or listeners.
func New(cfg Config) *Server {
	cfg.setDefaults()
	if cfg.TLS != nil {
		cfg.TLS = cfg.TLS.Clone()
		cfg.TLS.MinVersion = max(cfg.TLS.MinVersion, tls.VersionTLS12)
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, memory: memory{max: cfg.MaxInflight},
		slots: make(chan struct{}, cfg.MaxHandshakes), noise: rate.Sometimes{First: 10, Interval: time.Second},
		listeners: map[net.Listener]struct{}{}, conns: map[*conn]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// AddExport shows e to clients that negotiate from now on. It fails if the name is taken or a
// size is not one that the protocol allows.
func (s *Server) AddExport(e Export) error {
	if err := e.prepare(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.exports, func(x *Export) bool { return x.Name == e.Name }) {
		return fmt.Errorf("nbdsrv: export %q exists", e.Name)
	}
	s.exports = append(s.exports, &e)
	return nil
}

// ReplaceExport shows e in the place of the export of that name to clients that negotiate from now on. Those that are
// connected stay with what they were told. Without such an export it does nothing.
func (s *Server) ReplaceExport(e Export) error {
	if err := e.prepare(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.exports, func(x *Export) bool { return x.Name == e.Name }); i >= 0 {
		s.exports[i] = &e
	}
	return nil
}

// RemoveExport hides the export from new clients and ends the connections of its present ones, and of its parts, as
// Shutdown does. After a nil error no call of its Device runs or will come. When ctx ends first,
// the connections are cut and ctx's error is returned.
func (s *Server) RemoveExport(ctx context.Context, name string) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.exports, func(x *Export) bool { return x.Name == name })
	if i < 0 {
		s.mu.Unlock()
		return fmt.Errorf("nbdsrv: no export %q", name)
	}
	e := s.exports[i]
	s.exports = slices.Delete(s.exports, i, i+1)
	var users []*conn
	for c := range s.conns {
		if c.using != nil && (c.using.Name == e.Name || c.using.Of == name) { // also as it was before ReplaceExport
			users = append(users, c)
		}
	}
	s.mu.Unlock()
	return drain(ctx, users)
}

// named finds the export of that name.
func (s *Server) named(name string) *Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.exports, func(e *Export) bool { return e.Name == name }); i >= 0 {
		return s.exports[i]
	}
	return nil
}

// use notes that c is about to send requests to e. Errors: errNoExport if e has been removed since lookup,
// errFull.
func (s *Server) use(c *conn, e *Export) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e != c.found && !slices.Contains(s.exports, e):
		return errNoExport
	case e == c.found && e.Of != "" && !slices.ContainsFunc(s.exports, func(x *Export) bool { return x.Name == e.Of }):
		return errNoExport
	case s.serving >= s.cfg.MaxConns:
		s.total.Refused++
		return errFull
	}
	c.using = e
	s.serving++
	s.grownLocked(c)
	return nil
}

// list is the exports as they are now.
func (s *Server) list() []Listed {
	s.mu.Lock()
	var all []Listed
	for _, e := range s.exports {
		all = append(all, Listed{Name: e.Name, Description: e.Description})
	}
	s.mu.Unlock()
	if s.cfg.Finder != nil {
		all = append(all, s.cfg.Finder.List()...)
	}
	return all
}

// Clients is the number of connections that use an export, or a part of it.
func (s *Server) Clients(name string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.using != nil && (c.using.Name == name || c.using.Of == name) {
			n++
		}
	}
	return n
}

// lookup finds an export by name that this client may know of, also one that the server's finder knows. The empty name is the export
// of that name, or else the first.
func (c *conn) lookup(name string) *Export {
	e := c.server.named(name)
	if e == nil && c.server.cfg.Finder != nil {
		e = c.find(name)
	}
	if e != nil && c.access(e) != NoAccess {
		return e
	}
	if name == "" {
		return c.first()
	}
	return nil
}

// first is the first export that this client may know of.
func (c *conn) first() *Export {
	c.server.mu.Lock()
	all := slices.Clone(c.server.exports)
	c.server.mu.Unlock()
	if i := slices.IndexFunc(all, func(e *Export) bool { return c.access(e) != NoAccess }); i >= 0 {
		return all[i]
	}
	return nil
}

// find asks the server's finder. The connection holds the last export that it has found.
func (c *conn) find(name string) *Export {
	if c.found != nil && c.found.Name == name {
		return c.found
	}
	e, release, ok := c.server.cfg.Finder.Find(name)
	if !ok {
		return nil
	}
	if err := e.prepare(); err != nil {
		c.server.log.Error("export is not shown", "export", name, "err", err)
		release()
		return nil
	}
	c.letGo()
	c.found, c.release = &e, release
	return c.found
}

// letGo gives back the export that was found.
func (c *conn) letGo() {
	if c.found != nil {
		c.release()
		c.found, c.release = nil, nil
	}
}

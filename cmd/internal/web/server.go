package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"cawrm/cmd/internal/control"
)

// Bounds of what clients can make the server hold, of which control.BoundVisitors lets in so many at a time.
const (
	maxHeader  = 16 << 10
	headTime   = 10 * time.Second
	answerTime = 2 * time.Minute // a profile takes 30 s
	idleTime   = time.Minute
)

// Config is what the server shows.
type Config struct {
	Metrics http.Handler
	Status  func() control.Status
	History func(volume string) (control.History, error)
	Name    string // of this daemon among the sites
	Version string
	Sites   []Site                         // other daemons that the page shows
	Token   string                         // lets the page act; "": it cannot
	Flight  func(io.Writer) (int64, error) // nil: nothing is recorded
	Logger  *slog.Logger

	// What the page can change.
	Mirror   func(context.Context, control.MirrorRequest) (any, error)
	Snapshot func(context.Context, control.SnapshotRequest) (any, error)
	Role     func(context.Context, control.RoleRequest) (any, error)
}

// Server serves --http. It is started by Serve and ended by Close.
type Server struct {
	http   *http.Server
	client http.Client // of other daemons
	cfg    Config
}

// New makes a server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.client.Transport = &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: idleTime}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", cfg.Metrics)
	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/pprof/", pprof.Index)
	debug.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	debug.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	debug.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	debug.HandleFunc("GET /debug/flight", s.flight)
	mux.Handle("GET /debug/", localOnly(debug))
	mux.Handle("GET /", page())
	mux.HandleFunc("GET /api/status", s.getStatus)
	mux.HandleFunc("GET /api/sites", s.getSites)
	mux.HandleFunc("GET /api/history", s.getHistory)
	mux.HandleFunc("POST /api/mirror", action(s, mayMirror, cfg.Mirror))
	mux.HandleFunc("POST /api/snapshot", action(s, maySnapshot, cfg.Snapshot))
	mux.HandleFunc("POST /api/role", action(s, mayRole, cfg.Role))
	s.http = &http.Server{
		Handler: served(mux), ReadHeaderTimeout: headTime, ReadTimeout: headTime, WriteTimeout: answerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	control.BoundVisitors(s.http)
	return s
}

// Serve answers on l until Close, which closes l; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops listening and ends what is under way after a moment.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	s.client.CloseIdleConnections()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func (s *Server) flight(w http.ResponseWriter, _ *http.Request) {
	if s.cfg.Flight == nil {
		http.Error(w, "nothing is recorded; start serve with --latency-objective", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="cawrm.trace"`)
	if _, err := s.cfg.Flight(w); err != nil {
		s.cfg.Logger.Debug("http: flight recorder", "error", err)
	}
}

// localOnly lets in who comes from this machine, by an address of this machine: a page of somewhere else that a browser here was
// lured to, and whose name was made to point here, says its own name.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) || !loopback(r.Host) {
			http.Error(w, "this is shown on the loopback only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// served lets an answer that nobody reads count as no work from its first byte on.
func served(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&answerWriter{w, r}, r)
	})
}

type answerWriter struct {
	http.ResponseWriter
	r *http.Request
}

func (a *answerWriter) Write(b []byte) (int, error) {
	control.Served(a.r)
	return a.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (a *answerWriter) Unwrap() http.ResponseWriter { return a.ResponseWriter }

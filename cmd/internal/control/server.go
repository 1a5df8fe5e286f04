package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Server answers the control socket. It is started by Serve and ended by Close.
type Server struct {
	http   *http.Server
	mux    *http.ServeMux
	status func() Status
	log    *slog.Logger
}

// Bounds of what clients can make the server hold: with these it is less than 64 KiB for each of maxVisitors.
const (
	maxHeader   = 16 << 10         // bytes; net/http adds 4 KiB
	headTime    = 10 * time.Second // for a request to arrive
	answerTime  = 10 * time.Second // for an answer to be read
	maxIdleTime = time.Minute      // between two requests
	maxRequest  = 16 << 10         // bytes of a command's
)

// NewServer makes a server that asks status, from any goroutine, for what it tells.
func NewServer(status func() Status, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	s := &Server{status: status, log: log, mux: mux}
	mux.HandleFunc("GET /v1/status", s.getStatus)
	mux.HandleFunc("/", s.unknown)
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headTime,
		MaxHeaderBytes:    maxHeader,
		IdleTimeout:       maxIdleTime,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	BoundVisitors(s.http)
	return s
}

// Handle lets do answer the command of that name: it gets the request, JSON, and returns the answer. Before Serve. do is called
// from any goroutine; its context ends when the client goes away.
func (s *Server) Handle(name string, do func(ctx context.Context, request []byte) (any, error)) {
	s.mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			s.answer(w, r, http.StatusBadRequest, failure{Error: err.Error()})
			return
		}
		v, err := do(r.Context(), body)
		if err != nil {
			s.answer(w, r, http.StatusConflict, failure{Error: err.Error()})
			return
		}
		s.answer(w, r, http.StatusOK, v)
	})
}

// Command makes what Handle takes of a function with a request of its own.
func Command[T any](do func(ctx context.Context, request T) (any, error)) func(context.Context, []byte) (any, error) {
	return func(ctx context.Context, b []byte) (any, error) {
		var request T
		if err := json.Unmarshal(b, &request); err != nil {
			return nil, fmt.Errorf("the request is not understood: %w", err)
		}
		return do(ctx, request)
	}
}

// Serve answers on l until Close, which closes l; it returns nil then.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close stops listening and lets answers that are under way finish, for a second.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, http.StatusOK, s.status().Complete())
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, http.StatusNotFound, failure{Error: "this daemon does not know " + r.Method + " " + r.URL.Path})
}

type failure struct {
	Error string `json:"error"`
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only by a number that JSON lacks, NaN or Inf
		s.log.Error("control: answer cannot be written as JSON", "error", err)
		code, b = http.StatusInternalServerError, []byte(`{"error":"the daemon's answer cannot be written as JSON"}`)
	}
	Served(r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // fails on a closed connection, as Write will
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.log.Debug("control: client went away", "error", err)
	}
}

// Complete makes every list a list: readers of JSON need not tell null from empty.
func (s Status) Complete() Status {
	s.Volumes = orEmpty(s.Volumes)
	for i := range s.Volumes {
		v := &s.Volumes[i]
		v.Lineage, v.Mirrors = orEmpty(v.Lineage), orEmpty(v.Mirrors)
		v.NBD, v.Peer = orEmpty(v.NBD), orEmpty(v.Peer)
		if r := v.Rescue; r != nil {
			v.Rescue = &Rescue{Found: orEmpty(r.Found), Lost: orEmpty(r.Lost)}
		}
	}
	return s
}

// Complete makes the list a list.
func (h History) Complete() History {
	h.Snapshots = orEmpty(h.Snapshots)
	return h
}

func orEmpty[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"cawrm/cmd/internal/control"
)

// Site is another daemon that the page shows.
type Site struct {
	Name string
	URL  string // http://host:port of its --http
}

// sites is the answer to GET /api/sites.
type sites struct {
	Version string `json:"version"`
	Sites   []site `json:"sites"`
}

// site is one daemon's status, or why there is none.
type site struct {
	Name   string          `json:"name"`
	Self   bool            `json:"self"`
	Status *control.Status `json:"status,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// Bounds of what another daemon can cost.
const (
	siteTime  = 2 * time.Second
	siteBytes = 16 << 20
	bodyBytes = 16 << 10
)

// getStatus is for the pages of other daemons.
func (s *Server) getStatus(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.cfg.Status().Complete())
}

// getSites asks all daemons beside each other.
func (s *Server) getSites(w http.ResponseWriter, r *http.Request) {
	own := s.cfg.Status().Complete()
	a := sites{Version: s.cfg.Version, Sites: make([]site, 1+len(s.cfg.Sites))}
	a.Sites[0] = site{Name: s.cfg.Name, Self: true, Status: &own}
	var wg sync.WaitGroup
	for i, other := range s.cfg.Sites {
		wg.Go(func() { a.Sites[i+1] = s.fetch(r.Context(), other) })
	}
	wg.Wait()
	answer(w, http.StatusOK, a)
}

func (s *Server) fetch(ctx context.Context, other Site) site {
	ctx, cancel := context.WithTimeout(ctx, siteTime)
	defer cancel()
	status := new(control.Status)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(other.URL, "/")+"/api/status", nil)
	if err == nil {
		err = s.get(r, status)
	}
	if err != nil {
		var at *url.Error // its text is the whole URL, which the page's reader did not type
		if errors.As(err, &at) {
			err = at.Err
		}
		return site{Name: other.Name, Error: err.Error()}
	}
	complete := status.Complete()
	return site{Name: other.Name, Status: &complete}
}

func (s *Server) get(r *http.Request, v any) error {
	resp, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", r.URL.Host, resp.Status)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, siteBytes)).Decode(v)
}

// postMirror pauses and resumes mirrors.
func (s *Server) postMirror(w http.ResponseWriter, r *http.Request) {
	var q control.MirrorRequest
	switch err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytes)).Decode(&q); {
	case err != nil:
		refuse(w, http.StatusBadRequest, "the request is not understood: "+err.Error())
		return
	case q.Op != "pause" && q.Op != "resume":
		refuse(w, http.StatusForbidden, "only pause and resume are done from here")
		return
	}
	s.cfg.Logger.Info("http: asked", "from", r.RemoteAddr, "op", q.Op, "volume", q.Volume, "mirror", q.ID)
	v, err := s.cfg.Mirror(r.Context(), q)
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	answer(w, http.StatusOK, v)
}

// withToken lets in who knows the token. It is a header that no other site's page can make a browser send.
func (s *Server) withToken(next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(s.cfg.Token))
	return func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		got := sha256.Sum256([]byte(token))
		switch {
		case s.cfg.Token == "":
			refuse(w, http.StatusForbidden, "actions are off: start serve with --http-token-file")
		case !ok || subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			refuse(w, http.StatusUnauthorized, "that is not the token of --http-token-file")
		default:
			next(w, r)
		}
	}
}

func refuse(w http.ResponseWriter, code int, text string) {
	answer(w, code, map[string]string{"error": text})
}

func answer(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // who went away does not need it
}

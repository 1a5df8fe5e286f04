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
	"slices"
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
	var status control.Status
	if err := s.ask(ctx, other, "status", &status); err != nil {
		return site{Name: other.Name, Error: err.Error()}
	}
	status = status.Complete()
	return site{Name: other.Name, Status: &status}
}

// ask gets what another daemon's page gets.
func (s *Server) ask(ctx context.Context, other Site, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, siteTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(other.URL, "/")+"/api/"+path, nil)
	if err == nil {
		err = s.get(r, v)
	}
	var at *url.Error // its text is the whole URL, which the page's reader did not type
	if errors.As(err, &at) {
		err = at.Err
	}
	return err
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

// getHistory tells what the page's time line of a volume shows, of this daemon or of another site.
func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name := q.Get("site")
	if name == "" {
		h, err := s.cfg.History(q.Get("volume"))
		if err != nil {
			refuse(w, http.StatusNotFound, err.Error())
			return
		}
		answer(w, http.StatusOK, h)
		return
	}
	i := slices.IndexFunc(s.cfg.Sites, func(other Site) bool { return other.Name == name })
	if i < 0 {
		refuse(w, http.StatusNotFound, fmt.Sprintf("there is no site %q", name))
		return
	}
	var h control.History
	if err := s.ask(r.Context(), s.cfg.Sites[i], "history?"+url.Values{"volume": {q.Get("volume")}}.Encode(), &h); err != nil {
		refuse(w, http.StatusBadGateway, err.Error())
		return
	}
	answer(w, http.StatusOK, h.Complete())
}

// action takes a request for a change, if it is one of the few that are done from here: may says why it is not, and do does it.
func action[T any](s *Server, may func(T) error, do func(context.Context, T) (any, error)) http.HandlerFunc {
	return s.withToken(func(w http.ResponseWriter, r *http.Request) {
		var q T
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, bodyBytes)).Decode(&q); err != nil {
			refuse(w, http.StatusBadRequest, "the request is not understood: "+err.Error())
			return
		}
		if err := may(q); err != nil {
			refuse(w, http.StatusForbidden, err.Error())
			return
		}
		s.cfg.Logger.Info("http: asked", "from", r.RemoteAddr, "request", fmt.Sprintf("%+v", q))
		v, err := do(r.Context(), q)
		if err != nil {
			refuse(w, http.StatusConflict, err.Error())
			return
		}
		answer(w, http.StatusOK, v)
	})
}

func mayMirror(q control.MirrorRequest) error {
	if q.Op != "pause" && q.Op != "resume" {
		return errors.New("of mirrors only pause and resume are done from here")
	}
	return nil
}

func maySnapshot(q control.SnapshotRequest) error {
	if q.Op != "create" {
		return errors.New("of snapshots only create is done from here")
	}
	return nil
}

// mayRole leaves what can make a second writable head, or gives something up, to the command.
func mayRole(q control.RoleRequest) error {
	if q.Op != "promote" || q.Force || q.Discard {
		return errors.New("of roles only promote, without force, is done from here")
	}
	return nil
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

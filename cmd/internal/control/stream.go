package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// A command that moves a file through the socket: the answer, or the request, is its bytes, and there is no bound on how long they
// take. What goes wrong in the middle of an answer is told behind it.

// errorTrailer is what comes behind an answer that broke off.
const errorTrailer = "Cawrm-Error"

// HandleSend lets do write the answer to the command of that name, which has its request in the URL. Before Serve.
func (s *Server) HandleSend(name string, do func(ctx context.Context, request url.Values, w io.Writer) error) {
	s.mux.HandleFunc("GET /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", errorTrailer)
		out := &begun{w: w}
		err := do(hurried(r.Context(), w), r.URL.Query(), out)
		switch {
		case err != nil && !out.any:
			w.Header().Del("Trailer")
			s.answer(w, r, http.StatusConflict, failure{Error: err.Error()})
		case err != nil:
			w.Header().Set(errorTrailer, url.QueryEscape(err.Error()))
		}
	})
}

type hurryKey struct{}

func hurried(ctx context.Context, w http.ResponseWriter) context.Context {
	return context.WithValue(ctx, hurryKey{}, http.NewResponseController(w))
}

// Hurry ends what reads or writes the file of a command, whose context is given, though the client does neither.
func Hurry(ctx context.Context) {
	if c, ok := ctx.Value(hurryKey{}).(*http.ResponseController); ok {
		_ = c.SetReadDeadline(time.Now()) // fails on a closed connection
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	}
}

// begun notes that something was written.
type begun struct {
	w   io.Writer
	any bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.any = true
	return b.w.Write(p)
}

// HandleReceive lets do read the request of the command of that name, and answers what it returns. Before Serve.
func (s *Server) HandleReceive(name string, do func(ctx context.Context, request url.Values, r io.Reader) (any, error)) {
	s.mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		v, err := do(hurried(r.Context(), w), r.URL.Query(), r.Body)
		if err != nil {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(answerTime)) // what is left of the file need not come
			s.answer(w, r, http.StatusConflict, failure{Error: err.Error()})
			return
		}
		s.answer(w, r, http.StatusOK, v)
	})
}

// stream is a client without a bound on time.
func (c *Client) stream() *http.Client { return &http.Client{Transport: c.http.Transport} }

func address(command string, request url.Values) string {
	return "http://daemon/v1/" + command + "?" + request.Encode()
}

// Send asks for a command's file and writes it to w. Errors: ErrNoDaemon, or what the daemon says, also in the middle.
func (c *Client) Send(ctx context.Context, command string, request url.Values, w io.Writer) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address(command, request), nil)
	if err != nil {
		return err
	}
	resp, err := c.stream().Do(r)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return decode(resp, nil)
	}
	if _, err = io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the file breaks off: %w", err)
	}
	if text, err := url.QueryUnescape(resp.Trailer.Get(errorTrailer)); err != nil || text != "" {
		return fmt.Errorf("the file breaks off: %s", text)
	}
	return nil
}

// Receive gives a command its file. Errors: ErrNoDaemon, or what the daemon says.
func (c *Client) Receive(ctx context.Context, command string, request url.Values, file io.Reader, answer any) error {
	failed := &failing{r: file}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address(command, request), io.NopCloser(failed))
	if err != nil {
		return err
	}
	resp, err := c.stream().Do(r)
	if err != nil {
		return plain(errors.Join(failed.err, err))
	}
	defer resp.Body.Close()
	return decode(resp, answer)
}

// failing notes why a file could not be read.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// decode takes an answer.
func decode(resp *http.Response, v any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("the daemon's answer broke off: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		if resp.StatusCode == http.StatusConflict {
			return errors.New(f.Error)
		}
		return fmt.Errorf("the daemon refuses: %s", f.Error)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("what answers at the control socket is not cawrm: %w", err)
	}
	return nil
}

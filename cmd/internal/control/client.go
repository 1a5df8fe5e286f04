package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// ErrNoDaemon means that nobody answers at the control socket.
var ErrNoDaemon = errors.New("no daemon answers")

// answerTimeout bounds one question; a daemon whose disk is stuck still answers status.
const answerTimeout = 10 * time.Second

// maxAnswer bounds what a client reads.
const maxAnswer = 64 << 20

// Client asks the first daemon that answers at one of its sockets.
type Client struct {
	paths []string
	http  http.Client

	// Waiting is told of each command, and its answer when that is over; nil: nobody is.
	Waiting func(command string) (over func())
}

// NewClient makes a client of the daemon at one of the sockets, tried in order at each connection, so that
// `status --watch` finds a daemon that was restarted.
func NewClient(paths ...string) *Client {
	c := &Client{paths: paths}
	c.http.Transport = &http.Transport{DialContext: c.dial, DisableCompression: true}
	c.http.Timeout = answerTimeout
	return c
}

// Close frees idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dial keeps every socket's own reason only where it helps: that nobody listens is said once.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var tried []string
	var denied error
	for _, p := range c.paths {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", p)
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, os.ErrPermission) {
			denied = fmt.Errorf("unix:%s: permission denied; the daemon there is another user's", p)
		}
		tried = append(tried, "unix:"+p)
	}
	if denied != nil {
		return nil, denied
	}
	return nil, fmt.Errorf("%w at %s; is `cawrm serve` running? (--control says where)", ErrNoDaemon, strings.Join(tried, " or "))
}

// Status asks for all volumes. Errors: ErrNoDaemon, or what the daemon says.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon"+path, nil)
	if err != nil {
		return err
	}
	return do(&c.http, r, v)
}

// Call asks for a command: request goes there as JSON, the answer comes into answer, which may be nil. Errors: ErrNoDaemon, or
// what the daemon says. It lasts as long as the command takes, or as ctx says.
func (c *Client) Call(ctx context.Context, command string, request, answer any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://daemon/v1/"+command, bytes.NewReader(b))
	if err != nil {
		return err
	}
	if answer == nil {
		answer = new(json.RawMessage)
	}
	if c.Waiting != nil {
		defer c.Waiting(command)()
	}
	patient := c.http
	patient.Timeout = 0
	return do(&patient, r, answer)
}

func do(c *http.Client, r *http.Request, v any) error {
	resp, err := c.Do(r)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	return decode(resp, v)
}

// plain takes the URL that net/http puts before an error away: it means nothing on a unix socket.
func plain(err error) error {
	for {
		inner := errors.Unwrap(err)
		if _, ok := err.(interface{ Timeout() bool }); !ok || inner == nil {
			return err
		}
		err = inner
	}
}

// Volume finds a volume by name; name "" is the only one. The error says which names there are.
func (s Status) Volume(name string) (Volume, error) {
	names := make([]string, len(s.Volumes))
	for i, v := range s.Volumes {
		if v.Name == name {
			return v, nil
		}
		names[i] = v.Name
	}
	if name == "" && len(names) == 1 {
		return s.Volumes[0], nil
	}
	return Volume{}, NoVolume(name, names)
}

// NoVolume says that there is none of that name, and which there are.
func NoVolume(name string, names []string) error {
	if len(names) == 0 {
		return fmt.Errorf("no volume %q: the daemon serves none", name)
	}
	return fmt.Errorf("no volume %q; the daemon serves: %s", name, strings.Join(names, ", "))
}

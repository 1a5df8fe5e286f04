package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"cawrm/cawrm"
)

const (
	hookTime  = time.Minute // for the command that is told of an event
	hookQueue = 256         // events that wait for it; further ones are dropped, which is logged
)

// event is what the command gets as JSON on its standard input. Its environment has the same as CAWRM_EVENT, CAWRM_VOLUME,
// CAWRM_MIRROR, CAWRM_TEXT and CAWRM_TIME.
type event struct {
	Time   string `json:"time"` // RFC 3339
	Event  string `json:"event"`
	Volume string `json:"volume"`
	Mirror string `json:"mirror"` // "": it is about the volume
	Text   string `json:"text"`
}

// hook runs a command for each event, one after the other, in the order in which they happened.
type hook struct {
	command string // of the shell; "": nobody is told
	log     *slog.Logger
	queue   chan event
	quit    context.CancelFunc
	done    sync.WaitGroup
}

func newHook(command string, log *slog.Logger) *hook {
	h := &hook{command: command, log: log, queue: make(chan event, hookQueue), quit: func() {}}
	if command != "" {
		ctx, cancel := context.WithCancel(context.Background())
		h.quit = cancel
		h.done.Go(func() { h.runHook(ctx) })
	}
	return h
}

// tell takes an event. Any goroutine; it does not wait.
func (h *hook) tell(e cawrm.Event) {
	if h.command == "" {
		return
	}
	select {
	case h.queue <- event{e.Time.UTC().Format(time.RFC3339Nano), string(e.Kind), e.Volume, e.Mirror, e.Text}:
	default:
		h.log.Warn("event not told to --on-event: it is too slow", "event", e.Kind, "text", e.Text)
	}
}

// close tells what has happened so far, and ends. Nothing may be told any more.
func (h *hook) close() {
	patience := time.AfterFunc(5*time.Second, h.quit)
	defer patience.Stop()
	close(h.queue)
	h.done.Wait()
	h.quit()
}

func (h *hook) runHook(ctx context.Context) {
	for e := range h.queue {
		if ctx.Err() != nil {
			h.log.Warn("event not told to --on-event: the daemon stops", "event", e.Event, "text", e.Text)
			continue
		}
		if out, err := h.run(ctx, e); err != nil {
			h.log.Warn("--on-event failed", "event", e.Event, "err", err, "output", string(out[:min(len(out), 1000)]))
		}
	}
}

func (h *hook) run(ctx context.Context, e event) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	input, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", h.command)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the whole of it ends when its time is over
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	c.Stdin = bytes.NewReader(append(input, '\n'))
	c.Env = append(os.Environ(), "CAWRM_EVENT="+e.Event, "CAWRM_VOLUME="+e.Volume, "CAWRM_MIRROR="+e.Mirror,
		"CAWRM_TEXT="+strings.ReplaceAll(e.Text, "\x00", "?"), "CAWRM_TIME="+e.Time)
	return c.CombinedOutput()
}

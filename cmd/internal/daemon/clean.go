package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"cawrm/cmd/internal/control"
	"cawrm/gc"
)

// cleanings is a volume's cleaning by hand, one at a time, which goes on while commands ask how far it is.
type cleanings struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil before the first
	done   chan struct{}
	closed bool
	state  control.GCState
}

// clean is the command gc.
func (d *daemon) clean(_ context.Context, r control.GCRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if v.cleaner == nil {
		return nil, fmt.Errorf("volume %s is a rescue, which is read-only: nothing in it is moved", v.cfg.Name)
	}
	c := &v.cleaned
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Op == "start" && c.closed:
		return nil, fmt.Errorf("volume %s is being closed", v.cfg.Name)
	case r.Op == "start" && c.state.Running:
		return nil, fmt.Errorf("volume %s is being cleaned by hand already", v.cfg.Name)
	case r.Op == "start":
		c.startLocked(v)
	case c.cancel == nil:
		return nil, fmt.Errorf("volume %s was not cleaned by hand since the daemon was started", v.cfg.Name)
	case r.Op == "cancel":
		c.cancel()
	case r.Op != "get":
		return nil, fmt.Errorf("gc: there is no operation %q", r.Op)
	}
	return c.state, nil
}

// startLocked begins. mu is held.
func (c *cleanings) startLocked(v *served) {
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(context.Background())
	c.done = make(chan struct{})
	c.state = control.GCState{Running: true, GarbageBefore: v.volume.Space().GarbageBytes, PhysicalBefore: v.volume.Status().PhysicalBytes}
	c.state.GarbageBytes, c.state.PhysicalBytes = c.state.GarbageBefore, c.state.PhysicalBefore
	cancel, done := c.cancel, c.done
	go func() {
		defer close(done)
		defer cancel()
		p, err := v.cleaner.Run(ctx, c.progress)
		c.progress(p)
		physical := v.volume.Status().PhysicalBytes
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state.Running, c.state.PhysicalBytes = false, physical
		switch {
		case errors.Is(err, context.Canceled):
			c.state.Error = "interrupted"
		case err != nil:
			c.state.Error = err.Error()
		}
	}()
}

func (c *cleanings) progress(p gc.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Segments, c.state.MovedBytes, c.state.GarbageBytes = p.Segments, p.Moved, p.Garbage
}

// end ends what is under way, and lets none begin any more: the volume is to be closed.
func (c *cleanings) end() {
	c.mu.Lock()
	cancel, done := c.cancel, c.done
	c.closed = true
	c.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

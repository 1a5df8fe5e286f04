package daemon

import (
	"context"
	"fmt"
	"sync"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// comparison is one of a volume with a mirror, which goes on while commands ask how far it is.
type comparison struct {
	cancel context.CancelFunc

	mu    sync.Mutex
	state control.VerifyState
}

// comparisons are a volume's, the last of each mirror.
type comparisons struct {
	mu   sync.Mutex
	last map[string]*comparison
}

// verify is the command verify.
func (d *daemon) verify(_ context.Context, r control.VerifyRequest) (any, error) {
	v, err := d.find(r.Volume)
	if err != nil {
		return nil, err
	}
	if v.source == nil {
		return nil, fmt.Errorf("volume %s is a rescue, which has no mirrors", v.cfg.Name)
	}
	m, err := v.source.Mirror(r.Mirror)
	if err != nil {
		return nil, err
	}
	v.compared.mu.Lock()
	defer v.compared.mu.Unlock()
	c := v.compared.last[r.Mirror]
	switch {
	case r.Op == "start":
		if c != nil && c.get().Running {
			return nil, fmt.Errorf("mirror %s is being compared already", r.Mirror)
		}
		c = compare(m, r.Repair)
		if v.compared.last == nil {
			v.compared.last = map[string]*comparison{}
		}
		v.compared.last[r.Mirror] = c
	case c == nil:
		return nil, fmt.Errorf("mirror %s was not compared since the daemon was started", r.Mirror)
	case r.Op == "cancel":
		c.cancel()
	case r.Op != "get":
		return nil, fmt.Errorf("verify: there is no operation %q", r.Op)
	}
	return c.get(), nil
}

// compare begins. It ends with the mirror, too.
func compare(m *cawrm.Mirror, repair bool) *comparison {
	ctx, cancel := context.WithCancel(context.Background())
	c := &comparison{cancel: cancel, state: control.VerifyState{Running: true, Different: []control.ChunkRange{}}}
	go func() {
		defer cancel()
		result, err := m.Verify(ctx, repair, c.progress)
		c.end(result, err)
	}()
	return c
}

func (c *comparison) get() control.VerifyState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func (c *comparison) progress(done, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.DoneBytes, c.state.Size = done, total
}

func (c *comparison) end(r *cawrm.Verification, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.state
	s.Running = false
	if err != nil {
		s.Error = err.Error()
	}
	if r == nil {
		return
	}
	s.Position, s.Size, s.DataBytes, s.Same = uint64(r.Position), r.Size, r.DataBytes, err == nil && r.OK()
	for _, d := range r.Different {
		s.Different = append(s.Different, control.ChunkRange{First: d.First, Count: d.Count, Why: string(d.Why), Mended: d.Mended, Error: d.Error})
	}
}

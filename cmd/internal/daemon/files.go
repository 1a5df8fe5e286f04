package daemon

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"sync"

	"cawrm/cawrm"
	"cawrm/cmd/internal/control"
)

// files are the delta files of a volume that are under way. They end before the volume does.
type files struct {
	mu      sync.Mutex
	ended   bool
	last    int
	running map[int]context.CancelFunc
	sent    map[string]float64 // how far those are that have an id
	wg      sync.WaitGroup

	receiving sync.Mutex // one at a time
}

// begin is called where a file begins; done where it ends. ok is false when the volume is being closed.
func (f *files) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { control.Hurry(ctx) })
	if f.running == nil {
		f.running = map[int]context.CancelFunc{}
	}
	f.last++
	id := f.last
	f.running[id] = cancel
	f.wg.Add(1)
	return ctx, func() {
		stop()
		cancel()
		f.mu.Lock()
		delete(f.running, id)
		f.mu.Unlock()
		f.wg.Done()
	}, true
}

// end breaks off what is under way and lets nothing more begin.
func (f *files) end() {
	f.mu.Lock()
	f.ended = true
	for _, cancel := range f.running {
		cancel()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// fileOf finds the volume of a command that moves a file.
func (d *daemon) fileOf(ctx context.Context, name string) (*served, context.Context, func(), error) {
	v, err := d.find(name)
	if err != nil {
		return nil, nil, nil, err
	}
	if v.cfg.Rescue || v.base != nil {
		return nil, nil, nil, fmt.Errorf("volume %s is a %s: it sends and receives no files", v.cfg.Name, map[bool]string{true: "rescue", false: "clone"}[v.cfg.Rescue])
	}
	ctx, done, ok := v.files.begin(ctx)
	if !ok {
		return nil, nil, nil, fmt.Errorf("volume %s is being closed", v.cfg.Name)
	}
	return v, ctx, done, nil
}

// sendFile is the command send.
func (d *daemon) sendFile(ctx context.Context, q url.Values, w io.Writer) error {
	v, ctx, done, err := d.fileOf(ctx, q.Get("volume"))
	if err != nil {
		return err
	}
	defer done()
	what := cawrm.Send{From: q.Get("from"), To: q.Get("to")}
	if token := q.Get("resume"); token != "" {
		if what.Resume, err = cawrm.ParseResume(token); err != nil {
			return err
		}
	}
	if id := q.Get("id"); id != "" {
		what.Progress = func(part float64) { v.files.tell(id, part) }
		defer v.files.forget(id)
	}
	d.log.Info("sending a file", "volume", v.cfg.Name, "from", what.From, "to", what.To)
	if err := cawrm.WriteDelta(ctx, v.volume, what, w); err != nil {
		d.log.Warn("a file was not sent", "volume", v.cfg.Name, "reason", err)
		return err
	}
	return nil
}

// sentFile is the command sent.
func (d *daemon) sentFile(_ context.Context, q control.SentRequest) (any, error) {
	v, err := d.find(q.Volume)
	if err != nil {
		return nil, err
	}
	v.files.mu.Lock()
	defer v.files.mu.Unlock()
	return control.SentState{Progress: v.files.sent[q.ID]}, nil
}

func (f *files) tell(id string, part float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sent == nil {
		f.sent = map[string]float64{}
	}
	f.sent[id] = part
}

func (f *files) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sent, id)
}

// receiveFile is the command receive.
func (d *daemon) receiveFile(ctx context.Context, q url.Values, r io.Reader) (any, error) {
	v, _, done, err := d.fileOf(ctx, q.Get("volume"))
	if err != nil {
		return nil, err
	}
	defer done()
	if !v.files.receiving.TryLock() {
		return nil, fmt.Errorf("volume %s is receiving another file", v.cfg.Name)
	}
	defer v.files.receiving.Unlock()
	file, err := cawrm.OpenDelta(r)
	if err != nil {
		return nil, err
	}
	var got cawrm.Received
	if d.peer != nil {
		got, err = d.peer.Receive(v.cfg.Name, file)
	} else {
		got, err = cawrm.ReadDelta(v.volume, file)
	}
	if err != nil {
		d.log.Warn("a file was not received", "volume", v.cfg.Name, "reason", err)
		return nil, err
	}
	d.log.Info("file received", "volume", v.cfg.Name, "snapshot", got.Snapshot, "position", got.Position, "bytes", got.Bytes)
	return control.Received{Volume: v.cfg.Name, Snapshot: got.Snapshot, Position: uint64(got.Position), Bytes: got.Bytes,
		Chunks: got.Chunks, Nothing: got.Nothing}, nil
}

package paper

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/baseline"
	"cawrm/cawrm"
	"cawrm/wan"
)

// The architectures.
const (
	Traditional = "traditional"
	Loose       = "loose"
	Tight       = "tight"
	PlainPlace  = "in place, no mirror"
	PlainLog    = "log, no mirror"
)

// Rig is one architecture, running: two sites and the line between them.
type Rig struct {
	Name   string
	Volume baseline.Volume // what the client writes to
	Link   *wan.Link       // nil without a mirror

	remote  *baseline.Mirror // of traditional and loose
	mirror  *cawrm.Mirror    // of tight
	source  *aodi.Volume     // of tight and loose
	target  *aodi.Volume     // of tight
	begin   func() error     // starts mirroring
	closers []func()
}

// rigConfig says what to build.
type rigConfig struct {
	dir   string // of the containers
	size  int64
	link  wan.Profile
	mode  wan.Mode
	fill  int64 // bytes written before the mirror is there
	equal bool  // the baselines begin as equals: their initial synchronisation is not what is measured
	later bool  // mirroring begins with begin

	settings string // of tight's mirror, as in its URL
}

// newRig builds an architecture; dir is emptied.
func newRig(name string, c rigConfig) (r *Rig, err error) {
	c.dir = filepath.Join(c.dir, name)
	if err := os.RemoveAll(c.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	r = &Rig{Name: name}
	defer func() {
		if err != nil {
			r.Close()
			err = fmt.Errorf("%s: %w", name, err)
		}
	}()
	r.onClose(func() { os.RemoveAll(c.dir) })
	local, err := r.local(c)
	if err != nil {
		return r, err
	}
	r.Volume = local
	if err := fill(local, c.fill); err != nil {
		return r, err
	}
	if err := r.attach(c, local); err != nil || c.later || r.begin == nil {
		return r, err
	}
	return r, r.begin()
}

func (r *Rig) onClose(f func()) { r.closers = append(r.closers, f) }

// Close ends all of it and removes its files.
func (r *Rig) Close() {
	for i := len(r.closers) - 1; i >= 0; i-- {
		r.closers[i]()
	}
}

func (r *Rig) inPlace(path string, size int64) (*baseline.InPlace, error) {
	d, err := r.file(path)
	if err != nil {
		return nil, err
	}
	return baseline.NewInPlace(d, size)
}

func (r *Rig) file(path string) (disk.Disk, error) {
	d, err := disk.CreateFile(path)
	if err == nil {
		r.onClose(func() { d.Close() })
	}
	return d, err
}

func (r *Rig) log(path string, o aodi.CreateOptions) (*aodi.Volume, error) {
	if err := aodi.Create(path, o); err != nil {
		return nil, err
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err == nil {
		r.onClose(func() { v.Close() })
	}
	return v, err
}

// local makes the source's volume. A volume in place has been written all over: the blocks of a user's disk have, and
// the first write of a block costs the file system more.
func (r *Rig) local(c rigConfig) (baseline.Volume, error) {
	path := filepath.Join(c.dir, "source")
	if r.Name == Traditional || r.Name == PlainPlace {
		v, err := r.inPlace(path, c.size)
		if err != nil {
			return nil, err
		}
		return v, sweep(v, c.size)
	}
	v, err := r.log(path, aodi.CreateOptions{Size: c.size})
	r.source = v
	return baseline.Log{Volume: v}, err
}

// attach makes the other site.
func (r *Rig) attach(c rigConfig, local baseline.Volume) error {
	if r.Name == PlainPlace || r.Name == PlainLog {
		return nil
	}
	ln := wan.NewMemory()
	r.onClose(func() { ln.Close() })
	l, err := wan.NewIn(context.Background(), c.mode, ln.Dial, c.link)
	if err != nil {
		return err
	}
	r.Link = l
	r.onClose(func() { l.Close() })
	path := filepath.Join(c.dir, "mirror")
	if r.Name == Tight {
		return r.attachTight(path, ln, c.settings)
	}
	var backup *baseline.Backup
	if r.Name == Traditional {
		v, err := r.inPlace(path, c.size)
		if err != nil {
			return err
		}
		if err := sweep(v, c.size); err != nil {
			return err
		}
		journal, err := r.file(path + ".journal")
		if err != nil {
			return err
		}
		if err := journal.Reserve(0, baseline.JournalSize); err != nil {
			return err
		}
		if backup, err = baseline.NewBackup(v, journal); err != nil {
			return err
		}
	} else {
		v, err := r.log(path, aodi.CreateOptions{Size: c.size})
		if err != nil {
			return err
		}
		if backup, err = baseline.NewBackup(baseline.Log{Volume: v}, nil); err != nil {
			return err
		}
	}
	go backup.Serve(ln)
	r.onClose(backup.Close)
	r.begin = func() error {
		r.remote = baseline.Start(local, baseline.Config{Dial: l.Dial, Equal: c.equal})
		r.onClose(r.remote.Close)
		r.Volume = r.remote
		return nil
	}
	return nil
}

func (r *Rig) attachTight(path string, ln *wan.Memory, settings string) error {
	var err error
	if r.target, err = r.log(path, aodi.CreateOptions{Mirror: true}); err != nil {
		return err
	}
	peer := cawrm.NewPeer(cawrm.PeerConfig{})
	if err := peer.AddVolume("bench", r.target); err != nil {
		return err
	}
	go peer.Serve(ln)
	r.onClose(peer.Close)
	r.begin = func() (err error) {
		r.mirror, err = cawrm.Start(r.source, cawrm.MirrorConfig{
			ID: "bench", URL: "cawrm://backup/bench?" + settings,
			Dial: func(ctx context.Context, _ string) (net.Conn, error) { return r.Link.Dial(ctx) },
		})
		if err == nil {
			r.onClose(r.mirror.Close)
		}
		return err
	}
	return nil
}

// Wait waits until the mirror has everything.
func (r *Rig) Wait(ctx context.Context) error {
	switch {
	case r.remote != nil:
		return r.remote.Wait(ctx)
	case r.mirror != nil:
		if err := r.source.Flush(); err != nil {
			return err
		}
		for r.Lag() > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("waited for the mirror: %w; it is %+v", ctx.Err(), r.mirror.Status())
			case <-time.After(time.Millisecond):
			}
		}
	}
	return nil
}

// Lag is how many bytes the mirror lacks; without a mirror nothing.
func (r *Rig) Lag() int64 {
	switch {
	case r.remote != nil:
		return r.remote.Lag()
	case r.mirror != nil:
		end, _ := r.source.Pointers()
		return int64(end-r.mirror.Status().SyncPtr) * baseline.Chunk
	}
	return 0
}

// Usable says whether the mirror is, just now, a state that the source once had.
func (r *Rig) Usable() bool {
	if r.remote != nil {
		return r.remote.Consistent()
	}
	return true
}

// onLine is how many bytes the line has taken for the mirror.
func (r *Rig) onLine() int64 { return r.Link.Counters().TakenTo }

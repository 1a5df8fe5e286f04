package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/oracle"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// world is both sites, the line between them, the load and its record. One goroutine; the load has its own.
type world struct {
	ctx            context.Context
	source, mirror *site.Site
	link           *wan.Link
	lineUp         bool
	oracle         *oracle.Oracle
	load           *oracle.Load
	rng            *rand.Rand
	j              *journal

	stop  chan struct{} // ends the load
	ended chan error
	conns []*nbdclient.Client

	lives map[*site.Site]int
	life  map[*site.Site][]sample // of the present one
}

// The line: a metro's round trip, and no limit that the load would reach.
var line = wan.Profile{Delay: 2 * time.Millisecond, Rate: 60 << 20}

func newWorld(ctx context.Context, c config, dir string, j *journal) (*world, error) {
	w := &world{ctx: ctx, j: j, rng: rand.New(rand.NewPCG(c.seed, 0)), oracle: oracle.New(c.size << 20 / oracle.BlockSize),
		lives: map[*site.Site]int{}, life: map[*site.Site][]sample{}, lineUp: true}
	w.load = &oracle.Load{Oracle: w.oracle, Depth: 8, Pace: rate.NewLimiter(rate.Limit(c.rate<<20), 1<<20)}
	for name, to := range map[string]**site.Site{"source": &w.source, "mirror": &w.mirror} {
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
		var err error
		if *to, err = site.New(c.bin, d, "vol"); err != nil {
			return nil, err
		}
	}
	var err error
	if w.mirror.Peer, err = site.FreeAddr(); err != nil {
		return nil, err
	}
	p := line
	p.Seed = c.seed
	if w.link, err = wan.Listen(ctx, "127.0.0.1:0", w.mirror.Peer, p); err != nil {
		return nil, err
	}
	// At one level of compression: the encoders of the others take up to 37 MiB, as the link asks for them, and would hide a leak.
	w.source.Mirrors = []string{site.MirrorURL(w.link.Addr(), "vol") + "?compress=fast"}
	return w, errors.Join(w.mirror.CreateMirror(), w.source.Create(fmt.Sprintf("%dM", c.size)))
}

// close ends what still runs.
func (w *world) close() {
	w.source.Kill()
	w.mirror.Kill()
	w.link.Close()
}

// start begins a new life of a site.
func (w *world) start(s *site.Site) error {
	w.lives[s]++
	w.life[s] = nil
	return s.Start(w.ctx)
}

// begin connects the load and lets it run.
func (w *world) begin() error {
	w.conns = nil
	for range 2 {
		conn, err := w.source.Dial(w.ctx)
		if err != nil {
			return err
		}
		w.conns = append(w.conns, conn)
	}
	w.stop, w.ended = make(chan struct{}), make(chan error, 1)
	seed := w.rng.Uint64()
	go func(stop chan struct{}, ended chan error, conns []*nbdclient.Client) {
		ended <- w.load.Run(stop, seed, conns...)
	}(w.stop, w.ended, w.conns)
	return nil
}

// end stops the load and waits for its answers.
func (w *world) end() error {
	close(w.stop)
	return w.died()
}

// died waits for the load's end. That its connections failed is no error; a wrong answer is.
func (w *world) died() error {
	var err error
	select {
	case err = <-w.ended:
	case <-time.After(2 * time.Minute):
		return errors.New("the load did not end within two minutes: requests hang")
	}
	for _, c := range w.conns {
		c.Close()
	}
	return err
}

// checkSource holds the source to what its clients were promised.
func (w *world) checkSource() error {
	im, err := w.image(w.source)
	if err == nil {
		err = w.oracle.CheckSource(im.Blocks)
	}
	if err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	return nil
}

// checkMirror reads the mirror while nothing is sent to it. What the line still held may arrive under the reader,
// so the reading counts only if the mirror stood still for it.
func (w *world) checkMirror() error {
	for range 100 {
		before, err := w.mirror.Status(w.ctx)
		if err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		im, err := w.image(w.mirror)
		if err != nil {
			return fmt.Errorf("the mirror: %w", err)
		}
		after, err := w.mirror.Status(w.ctx)
		if err != nil {
			return err
		}
		if before.EndPtr == after.EndPtr {
			if err := w.oracle.CheckMirror(im.Blocks); err != nil {
				return fmt.Errorf("the mirror: %w", err)
			}
			return nil
		}
	}
	return errors.New("the mirror goes on committing although nobody writes")
}

func (w *world) image(s *site.Site) (oracle.Image, error) {
	c, err := s.Dial(w.ctx)
	if err != nil {
		return oracle.Image{}, err
	}
	defer c.Close()
	return oracle.ReadImage(c)
}

// sample looks at both daemons.
func (w *world) sample() error {
	for name, s := range map[string]*site.Site{"source": w.source, "mirror": w.mirror} {
		x, err := look(w.ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, s.Log())
		}
		x.Seconds, x.Site, x.Life, x.LineUp, x.Written = w.j.seconds(), name, w.lives[s], w.lineUp, w.load.Written.Load()
		w.life[s] = append(w.life[s], x)
		if err := w.j.write(x); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"cawrm/bench/internal/site"
	"cawrm/wan"
)

const (
	volumeSize = "256M"
	firstData  = 24 << 20
	moreData   = 16 << 20
)

// The line of the demonstration: 40 ms round trip and 40 Mbit/s, slow enough
// that one can watch the mirror follow.
var line = wan.Profile{Delay: 20 * time.Millisecond, Rate: 5_000_000}

// play runs the whole demonstration in dir.
func play(ctx context.Context, bin, dir string) error {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "cawrm-demo"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	s, err := build(ctx, bin, dir)
	if err != nil {
		return err
	}
	defer s.close()
	for _, scene := range []func(context.Context) error{s.write, s.cut, s.heal, s.compare} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	s.epilogue()
	return nil
}

// stage holds the two sites and the line between them.
type stage struct {
	amsterdam, berlin *site.Site
	link              *wan.Link
	screen            screen
	written           int64 // bytes, so far
}

// build creates both containers and starts both daemons.
func build(ctx context.Context, bin, dir string) (*stage, error) {
	s := &stage{screen: newScreen(os.Stdout)}
	s.screen.title("two sites, a line of %s between them", line)
	var err error
	for _, x := range []struct {
		name string
		to   **site.Site
	}{{"amsterdam", &s.amsterdam}, {"berlin", &s.berlin}} {
		d := filepath.Join(dir, x.name)
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
		if *x.to, err = site.New(bin, d, "db"); err != nil {
			return nil, err
		}
	}
	if s.berlin.Peer, err = site.FreeAddr(); err != nil {
		return nil, err
	}
	if s.link, err = wan.Listen(ctx, "127.0.0.1:0", s.berlin.Peer, line); err != nil {
		return nil, err
	}
	s.amsterdam.Mirrors = []string{"berlin=" + site.MirrorURL(s.link.Addr(), "db")}
	steps := []func() error{
		func() error { s.screen.command("create", s.berlin.Path, "--mirror"); return s.berlin.CreateMirror() },
		func() error { s.screen.command(s.berlin.Args()...); return s.berlin.Start(ctx) },
		func() error {
			s.screen.command("create", s.amsterdam.Path, "--size", volumeSize)
			return s.amsterdam.Create(volumeSize)
		},
		func() error { s.screen.command(s.amsterdam.Args()...); return s.amsterdam.Start(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// close ends whatever still runs.
func (s *stage) close() {
	s.amsterdam.Kill()
	s.berlin.Kill()
	s.link.Close()
}

// write writes the first data and watches the mirror follow for a while.
func (s *stage) write(ctx context.Context) error {
	s.screen.title("a client writes %d MiB to amsterdam over NBD; no write waits for the line", firstData>>20)
	if err := s.put(ctx, firstData); err != nil {
		return err
	}
	return s.show(ctx, 2*time.Second)
}

// cut breaks the line and writes on.
func (s *stage) cut(ctx context.Context) error {
	s.screen.title("the line is cut, and the client writes %d MiB more", moreData>>20)
	s.link.Cut()
	if err := s.put(ctx, moreData); err != nil {
		return err
	}
	return s.show(ctx, 4*time.Second)
}

// heal repairs the line and waits until the mirror holds everything.
func (s *stage) heal(ctx context.Context) error {
	s.screen.title("the line is healed; the same loop goes on from sync_ptr, nothing is copied again")
	s.link.Heal()
	return s.await(ctx)
}

// compare reads both sites through NBD.
func (s *stage) compare(ctx context.Context) error {
	s.screen.title("both sites read through NBD")
	var sums [2]string
	for i, x := range []*site.Site{s.amsterdam, s.berlin} {
		c, err := x.Dial(ctx)
		if err != nil {
			return err
		}
		h := sha256.New()
		err = c.Sum(h)
		c.Close()
		if err != nil {
			return err
		}
		sums[i] = hex.EncodeToString(h.Sum(nil))
		s.screen.line("sha256 %s  %s", sums[i], [2]string{"amsterdam", "berlin"}[i])
	}
	if sums[0] != sums[1] {
		return fmt.Errorf("the sites differ")
	}
	n := s.link.Counters()
	s.screen.line("identical: %.1f MiB written, %.1f MiB crossed the line, cuts included",
		mib(s.written), mib(n.ToTarget))
	for _, x := range []*site.Site{s.amsterdam, s.berlin} {
		if err := x.Stop(); err != nil {
			return err
		}
	}
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// epilogue says how to do the same for good.
func (s *stage) epilogue() {
	s.screen.title("the same with two machines of your own")
	for _, l := range []string{
		"berlin$     cawrm create /srv/db.cawrm --mirror",
		"berlin$     cawrm serve  /srv/db.cawrm --name db --peer :10810 --peer-secret FILE --nbd 127.0.0.1:10809",
		"amsterdam$  cawrm create /srv/db.cawrm --size 100G",
		"amsterdam$  cawrm serve  /srv/db.cawrm --name db --nbd 127.0.0.1:10809 --peer-secret FILE --mirror cawrm://berlin:10810/db",
		"amsterdam$  cawrm attach db /dev/nbd0 && mkfs.ext4 /dev/nbd0 && mount /dev/nbd0 /mnt",
		"amsterdam$  cawrm status --watch",
	} {
		s.screen.line("%s", l)
	}
}

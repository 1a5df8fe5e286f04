package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/oracle"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

func killCycles(t *testing.T) int {
	t.Helper()
	env := os.Getenv("CAWRM_KILL_CYCLES")
	if env == "" {
		return 15
	}
	n, err := strconv.Atoi(env)
	if err != nil || n < 1 {
		t.Fatalf("CAWRM_KILL_CYCLES=%s is no number of cycles", env)
	}
	return n
}

// crash is a pair of sites under load, and the record of what they may hold.
type crash struct {
	*pair
	t      *testing.T
	rng    *rand.Rand
	oracle *oracle.Oracle
	load   *oracle.Load

	stop  chan struct{} // ends the load
	ended chan error    // how it ended
	conns []*nbdclient.Client
}

// Both daemons are killed at random moments, alone and together, with and
// without a cut of the line, under a load whose every answer is recorded.
// After each kill, what each site shows must be what the promises allow.
func TestKilledDaemonsLoseNothing(t *testing.T) {
	const blocks = 16 << 20 / oracle.BlockSize
	s := seed(t)
	cycles := killCycles(t)
	c := &crash{
		pair:   newPair(t, "16M", wan.Profile{Delay: time.Millisecond, Seed: s}),
		t:      t,
		rng:    rand.New(rand.NewPCG(s, 0)),
		oracle: oracle.New(blocks),
	}
	c.load = &oracle.Load{Oracle: c.oracle, Depth: 16}
	c.synced(t)
	c.begin()
	kills := map[string]int{}
	for i := range cycles {
		time.Sleep(time.Duration(20+c.rng.IntN(600)) * time.Millisecond)
		what := c.strike()
		kills[what]++
		if t.Failed() {
			t.Fatalf("in cycle %d of %d: %s", i+1, cycles, what)
		}
	}
	c.end()
	c.link.Heal()
	ok(t, dial(t, c.source).Flush())
	c.synced(t)
	c.checkMirror()
	c.checkSource()
	c.identical(t)
	c.closed(t)
	t.Logf("%d cycles, %d requests answered: %v", cycles, c.load.Requests.Load(), kills)
}

// strike does one random cruelty and says which.
func (c *crash) strike() string {
	switch n := c.rng.IntN(10); {
	case n < 4:
		c.source.Kill()
		c.loadDied()
		c.checkMirror()
		c.revive(c.source)
		c.checkSource()
		c.begin()
		return "source"
	case n < 6: // the load goes on meanwhile
		c.mirror.Kill()
		time.Sleep(time.Duration(c.rng.IntN(200)) * time.Millisecond)
		c.revive(c.mirror)
		return "mirror"
	case n < 8:
		c.mirror.Kill()
		c.source.Kill()
		c.loadDied()
		c.revive(c.mirror)
		c.checkMirror()
		c.revive(c.source)
		c.checkSource()
		c.begin()
		return "both"
	case n < 9:
		c.link.CutAfter(wan.ToTarget, 1+c.rng.Int64N(1<<20))
		time.Sleep(time.Duration(c.rng.IntN(300)) * time.Millisecond)
		c.source.Kill()
		c.loadDied()
		c.checkMirror()
		c.link.Heal()
		c.revive(c.source)
		c.checkSource()
		c.begin()
		return "source after a cut of the line"
	default:
		c.end()
		ok(c.t, c.source.Stop()) // in order: then nothing may be missing
		ok(c.t, c.source.Check())
		c.checkMirror()
		c.revive(c.source)
		c.oracle.Flushed(c.oracle.BeginFlush())
		c.checkSource()
		c.begin()
		return "stop in order"
	}
}

// begin connects the load and lets it run.
func (c *crash) begin() {
	c.conns = nil
	for range 2 {
		conn, err := c.source.Dial(context.Background())
		ok(c.t, err)
		c.conns = append(c.conns, conn)
	}
	c.stop, c.ended = make(chan struct{}), make(chan error, 1)
	seed := c.rng.Uint64()
	go func(stop chan struct{}, ended chan error, conns []*nbdclient.Client) {
		ended <- c.load.Run(stop, seed, conns...)
	}(c.stop, c.ended, c.conns)
}

// end stops the load and waits for its answers.
func (c *crash) end() {
	close(c.stop)
	c.loadDied()
}

// loadDied waits for the load's end. That its connections failed is no error;
// a wrong answer is.
func (c *crash) loadDied() {
	c.t.Helper()
	select {
	case err := <-c.ended:
		if errors.Is(err, oracle.ErrWrong) {
			c.t.Error(err)
		}
	case <-time.After(time.Minute):
		c.t.Fatal("the load did not end within a minute: requests hang")
	}
	for _, conn := range c.conns {
		conn.Close()
	}
}

func (c *crash) revive(s *site.Site) {
	c.t.Helper()
	ok(c.t, s.Start(context.Background()))
}

func (c *crash) checkSource() {
	c.t.Helper()
	if err := c.oracle.CheckSource(c.image(c.source)); err != nil {
		c.t.Errorf("the source: %v", err)
	}
}

// checkMirror reads the mirror's image while its source is dead. What the line
// still held may arrive and be committed under the reader, so the reading
// counts only if the mirror stood still for it.
func (c *crash) checkMirror() {
	c.t.Helper()
	for range 50 {
		before := c.committed()
		time.Sleep(50 * time.Millisecond)
		if c.committed() != before {
			continue
		}
		image := c.image(c.mirror)
		if c.committed() != before {
			continue
		}
		if err := c.oracle.CheckMirror(image); err != nil {
			c.t.Errorf("the mirror: %v", err)
		}
		return
	}
	c.t.Error("the mirror goes on committing although its source is dead")
}

// committed is the mirror's position.
func (c *crash) committed() uint64 {
	c.t.Helper()
	v, err := c.mirror.Status(context.Background())
	ok(c.t, err)
	return v.EndPtr
}

func (c *crash) image(s *site.Site) []uint64 {
	c.t.Helper()
	conn, err := s.Dial(context.Background())
	ok(c.t, err)
	defer conn.Close()
	im, err := oracle.ReadImage(conn)
	ok(c.t, err)
	return im.Blocks
}

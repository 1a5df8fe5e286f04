package e2e

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// In flush mode the source is killed under a stamped workload, again and again, and is never heard of
// again: of what its clients were told is flushed, nothing is missing at the
// mirror.
func TestFlushModeLosesNothingWithItsSource(t *testing.T) {
	const rounds, writers, block = 4, 4, 4096
	s := seed(t)
	rng := rand.New(rand.NewPCG(s, 0))
	w := newPair(t, "16M", wan.Profile{Delay: 2 * time.Millisecond, Seed: s})
	_, err := w.source.Run("mirror", "set", "vol", "127.0.0.1", "mode=flush", "--control", w.source.Control)
	ok(t, err)
	next := uint64(1)
	for round := range rounds {
		var acked [writers]atomic.Uint64
		var wg sync.WaitGroup
		from := next
		for i := range writers {
			c, err := w.source.Dial(t.Context())
			ok(t, err)
			wg.Go(func() {
				defer c.Close()
				p := make([]byte, block)
				for stamp := from; ; stamp++ {
					binary.LittleEndian.PutUint64(p, stamp)
					var flags nbdclient.Flags
					if i%2 == 0 {
						flags = nbdclient.FUA
					}
					err := c.Write(int64(i)*block, p, flags)
					if err == nil && i%2 == 1 {
						err = c.Flush()
					}
					if err != nil {
						return // the source was killed
					}
					acked[i].Store(stamp)
				}
			})
		}
		time.Sleep(time.Duration(200+rng.IntN(600)) * time.Millisecond)
		w.source.Kill()
		wg.Wait()
		c := dial(t, w.mirror)
		total := uint64(0)
		for i := range writers {
			p := make([]byte, block)
			ok(t, c.Read(int64(i)*block, p))
			told, has := acked[i].Load(), binary.LittleEndian.Uint64(p)
			if told > 0 && has < told {
				t.Errorf("round %d: writer %d was told that %d is flushed, the mirror has %d", round, i, told, has)
			}
			total += told - min(told, from-1)
			next = max(next, has+1, told+1)
		}
		t.Logf("round %d: %d flushes were acknowledged before the kill", round, total)
		if total == 0 {
			t.Error("nothing was acknowledged: this round has shown nothing")
		}
		ok(t, w.source.Start(t.Context()))
	}
	w.synced(t)
	w.identical(t)
	w.closed(t)
}

// A lost link blocks flushes, or lets them go after the timeout, as it was set; status says
// which, the volume can be stopped all the same, and a command is told of each event.
func TestFlushModeWithoutLink(t *testing.T) {
	w := newPair(t, "16M", wan.Profile{})
	w.synced(t)
	ok(t, w.source.Stop())
	told := filepath.Join(t.TempDir(), "told")
	w.source.Extra = []string{"--rpo", "1s", "--on-event", "printf '%s %s %s: %s\\n' $CAWRM_EVENT $CAWRM_VOLUME $CAWRM_MIRROR \"$CAWRM_TEXT\" >> " + told}
	ok(t, w.source.Start(t.Context()))
	set := func(settings ...string) {
		t.Helper()
		_, err := w.source.Run(append([]string{"mirror", "set", "vol", "127.0.0.1", "--control", w.source.Control}, settings...)...)
		ok(t, err)
	}
	set("mode=flush", "timeout=300ms", "on-timeout=degrade")
	c := dial(t, w.source)
	ok(t, c.Write(0, noise(4096, 1), nbdclient.FUA))
	w.link.Cut()
	ok(t, c.Write(0, noise(4096, 2), nbdclient.FUA))
	state(t, w.source, "degraded")
	set("on-timeout=block")
	w.link.Heal()
	state(t, w.source, "ok")
	ok(t, c.Flush())

	w.link.Cut()
	ok(t, c.Write(0, noise(4096, 3), 0))
	done := make(chan *nbdclient.Request, 1)
	c.Start(&nbdclient.Request{Command: nbdclient.Flush, Done: done})
	state(t, w.source, "blocked")
	ok(t, c.Read(0, make([]byte, 4096))) // nothing else waits
	w.link.Heal()
	ok(t, (<-done).Err)
	state(t, w.source, "ok")

	w.link.Cut()
	ok(t, c.Write(0, noise(4096, 4), 0))
	c.Start(&nbdclient.Request{Command: nbdclient.Flush, Done: done})
	state(t, w.source, "blocked")
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if b, _ := os.ReadFile(told); strings.Contains(string(b), "lag vol") {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("no event of the lag: %s", b)
		}
	}
	ok(t, w.source.Stop())
	if r := <-done; r.Err == nil {
		t.Error("a flush that the mirror has not committed was answered as done when the volume was stopped")
	}
	b, err := os.ReadFile(told)
	ok(t, err)
	for _, want := range []string{"link-up vol 127.0.0.1", "link-down vol 127.0.0.1", "degraded vol 127.0.0.1: a flush has waited", "restored vol 127.0.0.1"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%q was not told; told were\n%s", want, b)
		}
	}
	ok(t, w.mirror.Stop())
}

// state waits until flush mode is in that state.
func state(t *testing.T, s *site.Site, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ok(t, s.Wait(ctx, "to be "+want, func(v site.Volume) bool { return v.Mirrors[0].Flush == want }))
}

package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// TestBoot ensures that a machine boots from a volume, by its BIOS, and runs on while the line to the mirror is cut and healed; and
// that it boots from the mirror when the source has been lost, and finds there all files of which fsync had returned before the
// mirror had everything for the last time.
func TestBoot(t *testing.T) {
	need(t, "no machine was booted from a volume", "nbdcopy", "syslinux", "mformat", "mcopy", "sfdisk")
	s := seed(t)
	p := newPromotion(t, s, bootLine, "256M")
	image := filepath.Join(p.dir, "image")
	maker := newMachine(t, "boot.sh", 60*time.Second).withProgram().withTold().with("--image", image)
	maker.start(strconv.FormatUint(s, 10))
	maker.finish()
	_, err := site.Run(t.Context(), "nbdcopy", image, p.source.URI())
	p.check(err)

	m := newMachine(t, "boot.sh", 300*time.Second).withProgram().withTold().with("--boot", "--disk", p.source.URI())
	m.start()
	w := follow(m)
	w.wait(t, 20)
	p.link.Cut()
	p.link.Refuse(true)
	w.wait(t, 40) // it runs on
	p.link.Refuse(false)
	p.link.Heal()
	w.wait(t, 20)
	durable := w.count() // the mirror has these when it is where the source is now
	p.made()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p.promote(ctx)
	m.kill()
	_ = m.wait() // killed
	w.reading.Wait()

	list := filepath.Join(p.dir, "told")
	p.check(os.WriteFile(list, []byte(strings.Join(append(w.lines[:durable], ""), "\n")), 0o600))
	p.check(os.Truncate(list, 1<<20))
	after := newMachine(t, "boot.sh", 300*time.Second).withProgram().withTold().with("--boot", "--disk", p.mirror.URI(), "--disk", list)
	after.start()
	follow(after)
	after.finish()
	p.check(errors.Join(p.mirror.Stop(), p.mirror.Check()))
	t.Logf("%d files were told durable, %d of them when the mirror was asked for", w.count(), durable)
}

// bootLine carries a boot disk in some seconds.
var bootLine = wan.Profile{Delay: 5 * time.Millisecond, Rate: 16 << 20}

// follower reads what a machine tells.
type follower struct {
	reading sync.WaitGroup
	mu      sync.Mutex
	lines   []string
}

func follow(m *machine) *follower {
	f := &follower{}
	f.reading.Go(func() {
		for line := range m.told {
			if line != "begin" {
				f.mu.Lock()
				f.lines = append(f.lines, line)
				f.mu.Unlock()
			}
		}
	})
	return f
}

func (f *follower) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lines)
}

// wait waits until n more lines have come.
func (f *follower) wait(t *testing.T, n int) {
	t.Helper()
	for n, end := f.count()+n, time.Now().Add(3*time.Minute); f.count() < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the machine told of %d files only, %d were waited for", f.count(), n)
		}
	}
}

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cawrm/bench/internal/build"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// TestPromote ensures that a mirror of a disk on which a kernel writes ext4 can take over at any moment: while it is far behind and
// catches up, while the line is cut, and when it is synced. At random moments a clone of what it shows is checked by e2fsck, as
// the disk of a machine that lost its power; at the end the source is killed and the mirror promoted, and the files are there of
// which fsync had returned.
func TestPromote(t *testing.T) {
	need(t, "no mirror of an ext4 was promoted", append([]string{"nbdcopy"}, filesystems.programs...)...)
	moments := number(t, "CAWRM_PROMOTIONS", 5)
	s := seed(t)
	p := newPromotion(t, s, promotionLine, "192M")
	m := newMachine(t, "promote.sh", 1200*time.Second).withGuest().withTold().with("--disk", p.source.URI())
	m.start(strconv.FormatUint(s, 10), "write")
	var told []string
	var reading sync.WaitGroup
	begun := make(chan struct{})
	reading.Go(func() {
		for line := range m.told {
			if line == "begin" {
				close(begun)
			} else {
				told = append(told, line)
			}
		}
	})
	select {
	case <-begun:
	case <-time.After(3 * time.Minute):
		t.Fatalf("the machine wrote nothing: %s", m.out.Bytes())
	}
	p.made()
	for i := range moments {
		p.moment(i)
	}
	m.kill()
	_ = m.wait() // killed
	reading.Wait()
	p.takeOver()
	list := filepath.Join(t.TempDir(), "told")
	if err := os.WriteFile(list, []byte(strings.Join(append(told, ""), "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	after := newMachine(t, "promote.sh", 300*time.Second).withGuest().with("--add", list+":lab/told", "--disk", p.mirror.URI())
	after.start("0", "check")
	after.finish()
	p.check(p.mirror.Stop())
	p.check(p.mirror.Check())
	t.Logf("%d of %d moments usable, %d of them with a mirror that lacked something, up to %.1f s and %d bytes; %d files were told durable",
		moments, moments, p.behind, p.mostSeconds, p.mostBytes, len(told))
}

// promotion is two sites and the line between them.
type promotion struct {
	t              *testing.T
	rng            *rand.Rand
	dir            string
	source, mirror *site.Site
	link           *wan.Link

	behind      int // moments at which the mirror lacked something
	mostSeconds float64
	mostBytes   int64
}

// promotionLine is slower than the machine writes.
var promotionLine = wan.Profile{Delay: 5 * time.Millisecond, Rate: 512 << 10}

func newPromotion(t *testing.T, seed uint64, line wan.Profile, size string) *promotion {
	p := &promotion{t: t, rng: newRand(seed, 0), dir: t.TempDir()}
	bin, err := build.Binary(p.dir)
	p.check(err)
	for name, to := range map[string]**site.Site{"source": &p.source, "mirror": &p.mirror} {
		d := filepath.Join(p.dir, name)
		p.check(os.Mkdir(d, 0o700))
		*to, err = site.New(bin, d, "vol")
		p.check(err)
	}
	p.mirror.Peer, err = site.FreeAddr()
	p.check(err)
	p.link, err = wan.Listen(t.Context(), "127.0.0.1:0", p.mirror.Peer, line)
	p.check(err)
	t.Cleanup(func() { p.link.Close(); p.source.Kill(); p.mirror.Kill() })
	p.source.Mirrors = []string{site.MirrorURL(p.link.Addr(), "vol")}
	p.check(errors.Join(p.source.Create(size), p.mirror.CreateMirror(), p.mirror.Start(t.Context()), p.source.Start(t.Context())))
	return p
}

func (p *promotion) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// made waits until the mirror has the file system that was made.
func (p *promotion) made() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	st, err := p.source.Status(ctx)
	p.check(err)
	p.check(p.mirror.Wait(ctx, "to have the file system", func(v site.Volume) bool { return v.EndPtr >= st.DurablePtr }))
}

// moment lets time pass and the line change, and looks at what the mirror shows then.
func (p *promotion) moment(i int) {
	p.t.Helper()
	switch p.rng.IntN(6) {
	case 0:
		p.link.Cut()
		p.link.Refuse(true)
	case 1:
		p.link.CutAfter(wan.ToTarget, p.rng.Int64N(1<<20))
	default:
		p.link.Refuse(false)
		p.link.Heal()
	}
	time.Sleep(time.Duration(p.rng.Int64N(int64(800 * time.Millisecond))))
	st, err := p.source.Status(p.t.Context())
	p.check(err)
	if lag := st.Mirrors[0]; lag.LagRecords > 0 {
		p.behind++
		p.mostSeconds, p.mostBytes = max(p.mostSeconds, lag.LagSeconds), max(p.mostBytes, lag.LagBytes)
	}
	name := fmt.Sprintf("moment-%d", i)
	_, err = p.mirror.Run("clone", "vol", name, "--control", p.mirror.Control)
	p.check(err)
	p.sound(name)
	_, err = p.mirror.Run("clone", "--delete", name, "--control", p.mirror.Control)
	p.check(err)
}

// sound lets e2fsck look at an export: the journal is all that it needs, as after a power cut.
func (p *promotion) sound(export string) {
	p.t.Helper()
	image := filepath.Join(p.dir, "image")
	defer os.Remove(image)
	uri := strings.TrimSuffix(p.mirror.URI(), "/vol") + "/" + export
	_, err := site.Run(p.t.Context(), "nbdcopy", uri, image)
	p.check(err)
	out, err := exec.Command("e2fsck", "-fp", image).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !(errors.As(err, &ended) && ended.ExitCode() == 1) { // 1: the journal was replayed
		p.t.Fatalf("%s: e2fsck -fp: %v\n%s", export, err, out)
	}
	if out, err := exec.Command("e2fsck", "-fn", image).CombinedOutput(); err != nil {
		p.t.Fatalf("%s: e2fsck -fn: %v\n%s", export, err, out)
	}
}

// takeOver lets the mirror have all that is durable, kills the source and promotes the mirror.
func (p *promotion) takeOver() {
	p.t.Helper()
	p.link.Refuse(false)
	p.link.Heal()
	ctx, cancel := context.WithTimeout(p.t.Context(), 3*time.Minute)
	defer cancel()
	p.check(p.source.WaitSynced(ctx))
	p.promote(ctx)
}

// promote kills the source and makes the mirror the primary, as soon as it takes its source for lost.
func (p *promotion) promote(ctx context.Context) {
	p.t.Helper()
	p.source.Kill()
	for {
		_, err := p.mirror.Run("promote", "vol", "--control", p.mirror.Control)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			p.t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

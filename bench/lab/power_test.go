package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cawrm/aodi/disk"
)

const diskSize = 4 << 30

// TestPowerCut ensures that files whose fsync had returned are there, whole,
// after the machine's power was cut at any write or flush of its disks, on
// each file system; that the container opens and `cawrm check` agrees, and
// that the file system's own checker finds nothing.
func TestPowerCut(t *testing.T) {
	need(t, "no power was cut", filesystems.programs...)
	fs := words("CAWRM_POWER_FS", "ext4 xfs btrfs")
	cuts := number(t, "CAWRM_POWER_CUTS", 1)
	s := seed(t)
	p := &power{t: t, fs: fs, seed: s, mems: newDisks(t, len(fs), diskSize), told: filepath.Join(t.TempDir(), "told")}
	if err := os.WriteFile(p.told, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.live(0, "first")
	for life := 1; life < cuts; life++ {
		p.live(life, "again")
	}
	p.live(cuts, "last")
	t.Logf("%d power cuts on each of %s: %d files were told durable", cuts, strings.Join(fs, ", "), p.files)
}

// power is a machine that loses its power again and again.
type power struct {
	t     *testing.T
	fs    []string
	seed  uint64
	mems  []*disk.Memory
	told  string // the file with all lines told so far
	files int
}

// live boots the machine on the disks as they are, and cuts its power unless
// this life is the last.
func (p *power) live(life int, kind string) {
	t := p.t
	rng := newRand(p.seed, uint64(life))
	bus, uris := serveDisks(t, p.mems)
	m := newMachine(t, "power-cut.sh", 300*time.Second).withGuest().withTold().with("--add", p.told+":lab/told")
	for _, uri := range uris {
		m.with("--disk", uri)
	}
	// Mostly the power goes while files are written, sometimes while the last cut is being recovered from.
	early, ops := life > 0 && rng.IntN(4) == 0, 50+rng.IntN(2500)
	if early {
		ops = 1 + rng.IntN(150)
	}
	if early && kind != "last" {
		bus.cutAfter(ops)
	}
	m.start(append([]string{strconv.FormatUint(p.seed+uint64(life), 10), kind}, p.fs...)...)
	var lines []string
	told, cut := m.told, bus.cut
	for told != nil {
		select {
		case line, open := <-told:
			switch {
			case !open:
				told = nil
			case line == "begin" && kind != "last":
				bus.cutAfter(ops)
			default:
				lines = append(lines, line)
			}
		case <-cut:
			m.kill()
			cut = nil
		}
	}
	if kind == "last" {
		m.finish()
		return
	}
	if cut != nil {
		t.Logf("life %d ended before its power was cut", life)
		m.finish()
		t.FailNow()
	}
	_ = m.wait() // killed
	t.Logf("life %d: power cut at write or flush %d (early: %v), %d files told\n%s", life, ops, early, len(lines), m.out.Bytes())
	p.keep(lines)
	p.mems = crash(rng, p.mems)
}

// keep adds lines to those that every later life must find true.
func (p *power) keep(lines []string) {
	p.t.Helper()
	p.files += len(lines)
	f, err := os.OpenFile(p.told, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprint(f, strings.Join(append(lines, ""), "\n")); err != nil {
		p.t.Fatal(err)
	}
}

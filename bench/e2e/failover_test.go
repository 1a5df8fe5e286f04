package e2e

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cawrm/bench/internal/nbdclient"
	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// promotions is how many failovers a run makes.
func promotions(t *testing.T) int {
	t.Helper()
	env := os.Getenv("CAWRM_PROMOTIONS")
	if env == "" {
		return 4
	}
	n, err := strconv.Atoi(env)
	if err != nil || n < 1 {
		t.Fatalf("CAWRM_PROMOTIONS=%s is no number", env)
	}
	return n
}

const (
	failoverBlocks = 4096 // of 4 KiB
	failoverBlock  = 4096
)

// duo is two sites that take turns as the primary, and what was written.
type duo struct {
	*pair
	t       *testing.T
	rng     *rand.Rand
	primary *site.Site
	other   *site.Site

	writes []write // in the order of the log
	first  uint64  // position of writes[base]
	base   int
	stamp  uint64
}

type write struct {
	block int
	stamp uint64
}

// roleOf is what a site's volume is.
type roleOf struct {
	Role    string
	EndPtr  uint64 `json:"end_ptr"`
	Lineage []struct {
		ID    string
		Start uint64
	}
	Mirrors []struct {
		ID, State  string
		SyncPtr    uint64 `json:"sync_ptr"`
		LagRecords uint64 `json:"lag_records"`
	}
	Conflict string
	KeptTail string `json:"kept_tail"`
}

func roleAt(t *testing.T, s *site.Site) roleOf {
	t.Helper()
	out, err := s.Run("status", "--control", s.Control, "--json")
	ok(t, err)
	var st struct{ Volumes []roleOf }
	ok(t, json.Unmarshal([]byte(out), &st))
	return st.Volumes[0]
}

// until waits for a state of a site.
func until(t *testing.T, s *site.Site, what string, is func(roleOf) bool) roleOf {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(30 * time.Millisecond) {
		v := roleAt(t, s)
		if is(v) {
			return v
		}
		if time.Now().After(end) {
			t.Fatalf("never %s: %+v\n%s", what, v, s.Log())
		}
	}
}

// load writes stamped blocks, one after the other, until told to stop or until the site is gone.
func (d *duo) load(s *site.Site, stop <-chan struct{}) error {
	c, err := s.Dial(context.Background())
	if err != nil {
		return err
	}
	defer c.Close()
	p := make([]byte, failoverBlock)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		d.stamp++
		w := write{d.rng.IntN(failoverBlocks), d.stamp}
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], w.stamp)
		}
		d.writes = append(d.writes, w) // one that is not answered may be there, as the last
		if err := c.Write(int64(w.block)*failoverBlock, p, 0); err != nil {
			return err
		}
	}
}

// holds ensures that a site shows exactly the first n writes.
func (d *duo) holds(s *site.Site, n int) {
	d.t.Helper()
	want := map[int]uint64{}
	for _, w := range d.writes[:n] {
		want[w.block] = w.stamp
	}
	c := dial(d.t, s)
	defer c.Close()
	bad := errors.New("")
	if err := c.Sweep(func(off int64, piece []byte) error {
		for i := 0; i < len(piece); i += failoverBlock {
			block := int((off + int64(i)) / failoverBlock)
			if got := binary.LittleEndian.Uint64(piece[i:]); got != want[block] {
				bad = fmt.Errorf("block %d holds write %d, not %d, with %d of %d writes", block, got, want[block], n, len(d.writes))
				return bad
			}
		}
		return nil
	}); err != nil {
		d.t.Fatal(err)
	}
}

// failover loses the primary at a random moment and promotes the other.
func (d *duo) failover(kill bool) {
	t := d.t
	t.Helper()
	ended := make(chan error, 1)
	stop := make(chan struct{})
	go func() { ended <- d.load(d.primary, stop) }()
	time.Sleep(time.Duration(d.rng.IntN(400)) * time.Millisecond)
	reported := uint64(0)
	if kill {
		d.primary.Kill()
		<-ended
	} else { // the line is cut, so that what is lost can be compared with what the primary says
		d.link.Cut()
		time.Sleep(time.Duration(d.rng.IntN(200)) * time.Millisecond)
		close(stop)
		ok(t, <-ended)
		v := until(t, d.primary, "told that the line is cut", func(v roleOf) bool {
			return v.Mirrors[len(v.Mirrors)-1].State == "down" || v.Mirrors[0].State == "down"
		})
		for _, m := range v.Mirrors {
			reported = max(reported, m.LagRecords)
		}
		d.primary.Kill()
		d.link.Heal()
	}
	out, err := d.other.Run("promote", "vol", "--control", d.other.Control)
	ok(t, err)
	if !strings.Contains(out, "is a primary now") {
		t.Errorf("promote says %q", out)
	}
	v := roleAt(t, d.other)
	fork := v.Lineage[len(v.Lineage)-1].Start
	if fork < d.first {
		t.Fatalf("promoted at %d, before what was synced, up to %d", fork, d.first)
	}
	n := d.base + int(fork-d.first)
	if n > len(d.writes) {
		t.Fatalf("promoted with %d writes, of %d", n, len(d.writes))
	}
	if lost := uint64(len(d.writes) - n); !kill && lost > reported {
		t.Errorf("%d writes are lost, the lag was %d records", lost, reported)
	}
	d.holds(d.other, n)
	d.writes, d.base, d.first = d.writes[:n], n, v.EndPtr
	d.primary, d.other = d.other, d.primary
}

// comeBack starts the old primary, which becomes the mirror, and waits until it has all.
func (d *duo) comeBack() {
	t := d.t
	t.Helper()
	c := dial(t, d.primary)
	for range 50 {
		d.stamp++
		w := write{d.rng.IntN(failoverBlocks), d.stamp}
		p := make([]byte, failoverBlock)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], w.stamp)
		}
		ok(t, c.Write(int64(w.block)*failoverBlock, p, nbdclient.FUA))
		d.writes = append(d.writes, w)
	}
	c.Close()
	ok(t, d.other.Start(t.Context()))
	d.follows()
}

// follows waits until the mirror has what the primary has.
func (d *duo) follows() {
	t := d.t
	t.Helper()
	end := roleAt(t, d.primary).EndPtr
	until(t, d.other, "the primary's mirror", func(v roleOf) bool { return v.Role == "mirror" && v.EndPtr == end })
	until(t, d.primary, "synced", func(v roleOf) bool {
		for _, m := range v.Mirrors {
			if m.State == "synced" && m.LagRecords == 0 && m.SyncPtr == end {
				return true
			}
		}
		return false
	})
	d.holds(d.other, len(d.writes))
}

func newDuo(t *testing.T) *duo {
	s := seed(t)
	d := &duo{pair: newPair(t, "16M", wan.Profile{Delay: time.Millisecond, Seed: s}), t: t, rng: rand.New(rand.NewPCG(s, 1))}
	d.primary, d.other = d.source, d.mirror
	c := dial(t, d.primary)
	p := make([]byte, failoverBlock)
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], 1)
	}
	d.stamp++
	ok(t, c.Write(0, p, nbdclient.FUA))
	d.writes = append(d.writes, write{0, 1})
	c.Close()
	d.synced(t)
	return d
}

// A chain of failovers and failbacks under load: each time the primary is lost
// at a random moment, with its process or with the line, its mirror is promoted
// and is exactly a cut of what was written, with no more lost than the lag
// said; and the old primary comes back as the mirror of the new one, keeps what
// it had not sent as a snapshot, and ends identical.
func TestFailoversAndFailbacks(t *testing.T) {
	d := newDuo(t)
	tails := 0
	for i := range promotions(t) {
		d.failover(i%2 == 0)
		d.comeBack()
		if roleAt(t, d.other).KeptTail != "" {
			tails++
		}
	}
	d.identical(t)
	d.closed(t)
	t.Logf("%d writes, %d of %d old primaries had a tail", len(d.writes), tails, promotions(t))
}

// followerIsSet: the mirror that came by itself takes settings where it is fed, but none that need an address.
func (d *duo) followerIsSet(t *testing.T) {
	t.Helper()
	tell := func(words ...string) (string, error) {
		return d.other.Run(append(words, "--control", d.other.Control)...)
	}
	out, err := tell("status", "--json")
	ok(t, err)
	id := regexp.MustCompile(`follower-[0-9a-f]{4}`).FindString(out)
	_, err = tell("mirror", "set", "vol", id, "limit=10M")
	ok(t, err)
	if out, err := tell("mirror", "remove", "vol", id); err == nil || !strings.Contains(out, "came by itself") {
		t.Errorf("remove: %v %s", err, out)
	}
	if out, err := tell("mirror", "set", "vol", id, "mode=flush"); err == nil || !strings.Contains(out, "mirror add") {
		t.Errorf("flush mode: %v %s", err, out)
	}
	out, err = tell("status", "--json")
	if ok(t, err); !regexp.MustCompile(`"limit_bytes": ?10485760`).MatchString(out) {
		t.Errorf("the status does not tell the limit: %s", out)
	}
}

// A planned switch of roles, to and fro under load, loses no write that was answered.
func TestSwitchoverUnderLoad(t *testing.T) {
	d := newDuo(t)
	for range 4 {
		ended := make(chan error, 1)
		go func() { ended <- d.load(d.primary, nil) }()
		time.Sleep(time.Duration(d.rng.IntN(300)) * time.Millisecond)
		if out, err := d.primary.Run("switchover", "vol", "--control", d.primary.Control); err != nil || !strings.Contains(out, "is handed over to") {
			t.Fatalf("switchover: %v %s", err, out)
		}
		var refused nbdclient.Error
		if err := <-ended; !errors.As(err, &refused) {
			t.Fatalf("the load ended with %v, not with a refusal", err)
		}
		d.writes = d.writes[:len(d.writes)-1] // the one that was refused
		d.holds(d.other, len(d.writes))
		d.primary, d.other = d.other, d.primary
		d.follows()
	}
	d.identical(t)
	d.closed(t)
}

// Two primaries of one volume, after a promotion that was forced, are refused on both sides, until one is chosen by hand;
// its rival becomes its mirror.
func TestTwoWritableHeads(t *testing.T) {
	d := newDuo(t)
	if out, err := d.other.Run("promote", "vol", "--control", d.other.Control); err == nil || !strings.Contains(out, "its source is alive") {
		t.Errorf("promote beside a source that is alive: %v %s", err, out)
	}
	d.link.Cut()
	_, err := d.other.Run("promote", "vol", "--force", "--control", d.other.Control)
	ok(t, err)
	for i, s := range []*site.Site{d.primary, d.other} {
		c := dial(t, s)
		ok(t, c.Write(int64(1+i)*failoverBlock, make([]byte, failoverBlock), nbdclient.FUA))
		ok(t, c.Write(int64(3)*failoverBlock, []byte(strings.Repeat(string(rune('a'+i)), failoverBlock)), nbdclient.FUA))
		c.Close()
	}
	d.link.Heal()
	for _, s := range []*site.Site{d.primary, d.other} {
		v := until(t, s, "aware of the other head", func(v roleOf) bool { return v.Conflict != "" })
		if !strings.Contains(v.Conflict, "two writable heads") || !strings.Contains(v.Conflict, "they agree up to position 1") {
			t.Errorf("the status says %q", v.Conflict)
		}
		if out, err := s.Run("demote", "vol", "--control", s.Control); err == nil || !strings.Contains(out, "--force-discard") {
			t.Errorf("demote: %v %s", err, out)
		}
	}
	_, err = d.primary.Run("demote", "vol", "--force-discard", "--control", d.primary.Control)
	ok(t, err)
	v := until(t, d.primary, "the other's mirror", func(v roleOf) bool { return v.Role == "mirror" && v.EndPtr == roleAt(t, d.other).EndPtr })
	if !strings.HasPrefix(v.KeptTail, "unsent-") {
		t.Errorf("the branch that was given up is not kept: %+v", v)
	}
	d.followerIsSet(t)
	d.identical(t)
	d.closed(t)
}

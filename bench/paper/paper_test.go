package paper

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("BENCH_CRASH"); path != "" {
		panic(Crash(path, 2*mib))
	}
	goleak.VerifyTestMain(m)
}

// tiny is enough to go through everything.
var tiny = scale{
	sizes: []int64{2 * mib, 4 * mib}, stored: 4 * mib, volume: 8 * mib,
	turn: 20 * time.Millisecond, rounds: 1, budget: time.Hour,
	ks:     []int{1, 64},
	before: 50 * time.Millisecond, after: 50 * time.Millisecond, outage: 100 * time.Millisecond, dirty: 2 * mib, rate: 200, resumeIn: 1, written: [2]int64{1 * mib, 2 * mib},
}

// TestEveryExperiment ensures that each figure of the paper is measured for each architecture, on its line, with its claim
// beside it, and that what must hold whatever the machine does: tight ships what is stored, once, and is always usable.
func TestEveryExperiment(t *testing.T) {
	b := &bench{Config: Config{Dir: t.TempDir(), Progress: func(string) {}}, scale: tiny, ctx: t.Context()}
	list, err := b.run()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string][]string{
		"paper/7-size":         {Traditional, Loose, Tight},
		"paper/7-stored":       {Traditional, Tight},
		"paper/8-9":            {PlainPlace, PlainLog, Traditional, Loose, Tight},
		"paper/10":             {Traditional, Loose, Tight},
		"paper/formula-rate":   {"W", "R", "W' by formula", "W' measured"},
		"paper/formula-ratio":  {"measured / formula"},
		"paper/resume-latency": {Traditional, Loose, Tight},
		"paper/resume":         {Traditional, Loose, Tight},
	}
	for _, e := range list {
		for _, s := range series[e.Name] {
			found := false
			for _, p := range e.Points {
				found = found || p.Series == s
				if p.Median < 0 {
					t.Errorf("%s: %s at %s is %g", e.Name, p.Series, p.X, p.Median)
				}
			}
			if !found {
				t.Errorf("%s has nothing of %s", e.Name, s)
			}
		}
		if e.Claim == "" || e.Machine.Kernel == "" || !strings.Contains(e.Name, "formula") && (e.Link == "" || e.Congestion == "") {
			t.Errorf("%s lacks its claim, machine or line: %+v", e.Name, e)
		}
		delete(series, e.Name)
		if e.Name == "paper/resume" {
			if v, _ := e.Get(Tight, "mirror not usable, share of the time"); v != 0 {
				t.Errorf("the mirror of tight was not usable for %g of the time", v)
			}
			if v, ok := e.Get(Tight, "bytes on the line over unique dirty bytes"); !ok || v < 1 || v > 1.1 {
				t.Errorf("tight shipped %g times what was dirty", v)
			}
		}
	}
	for name := range series {
		t.Errorf("%s is missing", name)
	}
}

// TestEveryGoal ensures that each ratio is measured, with its goal beside it.
func TestEveryGoal(t *testing.T) {
	b := &bench{Config: Config{Dir: t.TempDir(), Progress: func(string) {}}, scale: tiny, ctx: t.Context()}
	b.Crasher = func(ctx context.Context, path string, _ int64) *exec.Cmd {
		c := exec.CommandContext(ctx, os.Args[0])
		c.Env = append(os.Environ(), "BENCH_CRASH="+path)
		return c
	}
	if _, err := b.take(b.goals()); err != nil {
		t.Fatal(err)
	}
	if len(b.list) != 9 {
		t.Errorf("%d experiments", len(b.list))
	}
	for _, e := range b.list[1:] {
		found := 0
		for _, p := range e.Points {
			if strings.HasPrefix(p.X, "ratio") {
				if found++; p.Median <= 0 {
					t.Errorf("%s: %s is %g", e.Name, p.X, p.Median)
				}
			}
		}
		if found == 0 || e.Claim == "" {
			t.Errorf("%s has %d ratios, and the goal %q", e.Name, found, e.Claim)
		}
	}
}

// TestEverySeed ensures that each headline result of the related systems is measured, with their claim beside it.
func TestEverySeed(t *testing.T) {
	b := &bench{Config: Config{Dir: t.TempDir(), Progress: func(string) {}}, scale: tiny, ctx: t.Context()}
	list, err := b.take(b.seeds())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 5 {
		t.Errorf("%d experiments", len(list))
	}
	for _, e := range list {
		if len(e.Points) == 0 || e.Claim == "" {
			t.Errorf("%s has %d points, and the claim %q", e.Name, len(e.Points), e.Claim)
		}
		if e.Name == "seeds/delta" {
			plain, _ := e.Get("compression off", "new random data")
			text, _ := e.Get("compression best", "new text")
			if plain < 1 || plain > 1.2 || text > 0.7*plain {
				t.Errorf("random data cost %g, text compressed %g", plain, text)
			}
		}
	}
}

// TestLatenciesAreCorrectedForOmission ensures that a stall counts for all writes that would have been asked for in it.
func TestLatenciesAreCorrectedForOmission(t *testing.T) {
	h := newHistogram()
	for range 80 {
		record(h, 100*time.Microsecond, 10*time.Millisecond)
	}
	record(h, 200*time.Millisecond, 10*time.Millisecond)
	if n := h.TotalCount(); n != 100 {
		t.Errorf("%d latencies are counted, want 81 and 19 that the stall hid", n)
	}
	if p90 := time.Duration(h.ValueAtQuantile(90)); p90 < 90*time.Millisecond {
		t.Errorf("the 90th percentile is %s: the stall counts once", p90)
	}
	record(h, time.Hour, time.Hour)
	if worst := time.Duration(h.Max()); worst < 59*time.Second {
		t.Errorf("a latency beyond the range is lost: the worst is %s", worst)
	}
}

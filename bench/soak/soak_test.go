package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lifeOf makes a life of n samples, each changed by f.
func lifeOf(n int, f func(i int, s *sample)) []sample {
	l := make([]sample, n)
	for i := range l {
		l[i] = sample{Site: "source", LineUp: true, RSSAnon: 64 << 20, Heap: 20 << 20, Goroutines: 40, Threads: 9, FDs: 20,
			Written: int64(i) << 20, Container: int64(i) << 20}
		f(i, &l[i])
	}
	return l
}

func TestJudgeFindsEachGrowth(t *testing.T) {
	for _, c := range []struct {
		what string
		say  string // "" when it is none
		n    int
		f    func(i int, s *sample)
	}{
		{"steady", "", 60, func(int, *sample) {}},
		{"caches that fill first", "", 60, func(i int, s *sample) { s.RSSAnon = int64(min(i, 10)) * 16 << 20 }},
		{"a saw", "", 60, func(i int, s *sample) { s.RSSAnon += int64(i%6) * 8 << 20 }},
		{"memory", "rss_anon grows", 60, func(i int, s *sample) { s.RSSAnon += int64(i) << 20 }},
		{"heap", "heap grows", 60, func(i int, s *sample) { s.Heap += int64(i) << 20 }},
		{"a goroutine each two samples", "goroutines grows", 60, func(i int, s *sample) { s.Goroutines += int64(i / 2) }},
		{"threads", "threads grows", 60, func(i int, s *sample) { s.Threads += int64(i) }},
		{"descriptors", "fds grows", 60, func(i int, s *sample) { s.FDs += int64(i) }},
		{"lag with the line up", "lag_bytes grows", 60, func(i int, s *sample) { s.LagBytes = int64(i) << 20 }},
		{"lag with the line down", "", 60, func(i int, s *sample) {
			if s.LineUp = i%2 == 0; !s.LineUp {
				s.LagBytes = int64(i) << 30
			}
		}},
		{"a container beyond what was written", "the container takes", 60, func(i int, s *sample) { s.Container = int64(i) << 24 }},
		{"one sample with too much memory", "rss_anon is", 3, func(i int, s *sample) { s.RSSAnon = 1 << 30 }},
		{"growth in too few samples", "", 5, func(i int, s *sample) { s.Goroutines += int64(50 * i) }},
	} {
		_, wrong := judge(lifeOf(c.n, c.f))
		all := strings.Join(wrong, "\n")
		if c.say == "" && all != "" || !strings.Contains(all, c.say) {
			t.Errorf("%s: judged %q, want %q in it", c.what, all, c.say)
		}
	}
}

// A few seconds of the real thing: kills, cuts, audits, and a journal that ends with a summary.
func TestSoakOfSeconds(t *testing.T) {
	out := filepath.Join(t.TempDir(), "soak.jsonl")
	c := config{bin: os.Getenv("CAWRM_BIN"), dir: t.TempDir(), out: out, hours: 5.0 / 3600, rate: 8, size: 16, seed: 1}
	if err := run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var last summary
	kinds := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		last = summary{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatalf("%v in %s", err, lines.Bytes())
		}
		kinds[last.Kind]++
	}
	if last.Kind != "summary" || !last.OK || last.Kills["both"] < 2 || last.Cuts == 0 || last.Written == 0 || last.SHA256 == "" {
		t.Errorf("the summary is %+v", last)
	}
	if kinds["head"] != 1 || kinds["sample"] != 2*last.Samples || last.Samples < 4 || kinds["event"] == 0 {
		t.Errorf("the journal holds %v, and %d samples of each site", kinds, last.Samples)
	}
}

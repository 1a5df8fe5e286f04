package report

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func example(name string, at time.Time, values map[string][]float64) *Experiment {
	e := &Experiment{Name: name, Title: "A <title> & more", Time: at, Commit: "abc", X: "case", Unit: "MB/s", Claim: "more is better"}
	for _, s := range []string{"ours", "theirs"} {
		for _, v := range values[s] {
			e.Add(s, "write", 1, v)
		}
	}
	return e
}

func TestMedian(t *testing.T) {
	for want, v := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := Median(v); got != want {
			t.Errorf("Median(%v) = %g, want %g", v, got, want)
		}
	}
}

// TestResultsComeBack ensures that what is written is read, a run of bench/nbd too, and that the newest counts.
func TestResultsComeBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r", "x.jsonl")
	old := example("x/1", time.Unix(1, 0), map[string][]float64{"ours": {1}})
	young := example("x/1", time.Unix(2, 0), map[string][]float64{"ours": {3, 2, 4}})
	if err := Append(path, old); err != nil {
		t.Fatal(err)
	}
	if err := Append(path, young); err != nil {
		t.Fatal(err)
	}
	nbd := `{"time":"2026-11-21T04:52:53Z","commit":"c","size":"1G","cases":[{"case":"randread","unit":"IOPS","median":{"cawrm":20,"other":5},"repetitions":{"cawrm":[{"iops":10},{"iops":30},{"iops":20}],"other":[{"iops":5}]}}]}`
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "nbd.jsonl"), []byte(nbd+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := Load(filepath.Dir(path))
	if err != nil || len(all) != 3 {
		t.Fatalf("%d experiments, %v", len(all), err)
	}
	list := Newest(all)
	if len(list) != 2 {
		t.Fatalf("%d are newest", len(list))
	}
	for _, e := range list {
		want, series, x := 3.0, "ours", "write"
		if e.Name == "nbd/randread" {
			want, series, x = 20, "cawrm", "randread"
		}
		if v, ok := e.Get(series, x); !ok || v != want || e.Rounds() == 0 {
			t.Errorf("%s: %g, %v", e.Name, v, ok)
		}
	}
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a line of nothing: %v", err)
	}
}

// TestDiffPassesNoVerdictOnNoise ensures that only runs that do not overlap are called different.
func TestDiffPassesNoVerdictOnNoise(t *testing.T) {
	for _, c := range []struct {
		a, b  []float64
		lower bool
		want  string
	}{
		{[]float64{10, 11, 12}, []float64{13, 14, 15}, false, "better"},
		{[]float64{10, 11, 12}, []float64{13, 14, 15}, true, "worse"},
		{[]float64{10, 11, 12}, []float64{7, 8, 9}, false, "worse"},
		{[]float64{10, 11, 12}, []float64{7, 8, 9}, true, "better"},
		{[]float64{10, 11, 12}, []float64{12, 14, 15}, false, "same"},
	} {
		a, b := example("x", time.Unix(1, 0), map[string][]float64{"ours": c.a}), example("x", time.Unix(2, 0), map[string][]float64{"ours": c.b})
		a.Lower, b.Lower = c.lower, c.lower
		got := Diff([]*Experiment{a}, []*Experiment{b})
		if len(got) != 1 || got[0].Verdict != c.want {
			t.Errorf("%v and %v, lower %v: %+v, want %s", c.a, c.b, c.lower, got, c.want)
		}
	}
}

// TestPageNeedsNoNetwork ensures that the page holds its charts, well formed, and refers to nothing outside.
func TestPageNeedsNoNetwork(t *testing.T) {
	e := example("paper/x", time.Unix(1, 0), map[string][]float64{"ours": {10}, "theirs": {7}})
	lines := example("paper/y", time.Unix(1, 0), map[string][]float64{"ours": {10}})
	lines.Lines = true
	var b bytes.Buffer
	if err := HTML(&b, "title", []string{"a caveat"}, []*Experiment{e, lines}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"<svg", "A &lt;title&gt; &amp; more", "The paper", "more is better", "a caveat", "<td>7.00</td>"} {
		if !strings.Contains(strings.ReplaceAll(text, "the paper", "The paper"), want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if found := regexp.MustCompile(`(src|href)=|url\(|@import`).FindString(text); found != "" {
		t.Errorf("the page refers to something: %s", found)
	}
	long := example("paper/z", time.Unix(1, 0), map[string][]float64{"ours": {10}, "theirs": {7}})
	for i := range 9 {
		long.Add("ours", strings.Repeat("a long & <name> ", 4)+string(rune('a'+i)), 0, float64(i))
	}
	if !long.longLabels() || e.longLabels() {
		t.Error("long names are not told from short ones")
	}
	for _, e := range []*Experiment{e, lines, long, {Name: "empty"}} {
		d := xml.NewDecoder(strings.NewReader(e.SVG()))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v in\n%s", e.Name, err, e.SVG())
			}
		}
	}
}

// TestReaches ensures that a figure is called reached only when its median is on the right side, and otherwise named.
func TestReaches(t *testing.T) {
	slow := &Experiment{Name: "goal/slow-link"}
	slow.Add("tight", "ratio", 0, 0.97)
	resume := &Experiment{Name: "goal/resume-bytes"}
	resume.Add("tight", "ratio, wan", 0, 1.03)
	nbd := &Experiment{Name: "nbd/randwrite-4k-qd32-f64"}
	nbd.Add("cawrm", "randwrite-4k-qd32-f64", 0, 70)
	nbd.Add("nbdkit-file", "randwrite-4k-qd32-f64", 0, 10)
	nbd.Add("qemu-none", "randwrite-4k-qd32-f64", 0, 35)
	var b bytes.Buffer
	if err := Document(&b, []*Experiment{slow, resume, nbd}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"over without a mirror | at least 0.95 | 0.970 | reached |",
		"uncompressed (wan) | at most 1.02 | 1.03 | **not reached** |",
		"over nbdkit file | at least 6 | 7.00 | reached |",
		"over qemu-nbd cache=none | at least 3 | 2.00 | **not reached** |",
		"in time | at most 1.2 | not measured yet |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	var verdicts bytes.Buffer
	if err := Verdicts(&verdicts, []*Experiment{slow, resume}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(verdicts.String()), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "reached      0.970, wanted at least 0.95") || !strings.HasPrefix(lines[1], "not reached  1.03, wanted at most 1.02") {
		t.Errorf("the verdicts are\n%s", verdicts.String())
	}
}

// TestSectionsOfTheDocument ensures that what was measured in a virtual machine is not among what was measured on the machine itself, and
// that nothing is shown twice.
func TestSectionsOfTheDocument(t *testing.T) {
	inside, outside := &Experiment{Name: "peers/vm-wan", Title: "inside"}, &Experiment{Name: "peers/wan", Title: "outside"}
	for _, e := range []*Experiment{inside, outside} {
		e.Add("cawrm", "lag", 0, 1)
	}
	var b bytes.Buffer
	if err := Document(&b, []*Experiment{outside, inside}); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	vm, in, own, out := strings.Index(text, "## Beside DRBD"), strings.Index(text, "### inside"), strings.Index(text, "## Beside other systems"), strings.Index(text, "### outside")
	if vm < 0 || !(vm < in && in < own && own < out) || strings.Count(text, "### inside") != 1 {
		t.Errorf("%d %d %d %d in\n%s", vm, in, own, out, text)
	}
}

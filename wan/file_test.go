package wan

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestProfileFile ensures that each key reaches the profile, over a base.
func TestProfileFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "office.toml")
	text := `
base = "bad"
rtt = "40ms"
jitter = "2ms"
rate = "50Mbit"
queue = "256K"
reorder = "0.5%"
congestion = "cubic"
seed = 7
repeat = "30s"
[[step]]
at = "10s"
do = "stall"
[[step]]
at = "12s"
do = "heal"
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Find(path)
	if err != nil {
		t.Fatal(err)
	}
	want := Profile{
		Name: "office", Delay: 20 * time.Millisecond, Jitter: 2 * time.Millisecond, Rate: 6_250_000, Queue: 256 << 10,
		Loss: 0.005, Reorder: 0.005, Congestion: "cubic", Seed: 7, Repeat: 30 * time.Second,
		Script: []Step{{10 * time.Second, "stall"}, {12 * time.Second, "heal"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestWrongProfileFiles ensures that what is wrong in a file is named, and where.
func TestWrongProfileFiles(t *testing.T) {
	for text, want := range map[string]string{
		"rate = \"fast\"":                      `rate: "fast" is not a rate`,
		"rtt = \"-1ms\"":                       `rtt: "-1ms" is not a duration`,
		"loss = \"100%\"":                      `loss: "100%" is not a share`,
		"loss = \"0.5\"":                       `loss: "0.5" is not a share`,
		"\nspeed = 1":                          "line 2: there is no key speed",
		"seed = -1":                            "line 1",
		"base = \"moon\"":                      `base: no link profile "moon"`,
		"[[step]]\nat = \"1s\"\ndo = \"jump\"": `step 1: "jump" is nothing that happens to a line`,
		"[[step]]\nat = \"2s\"\ndo = \"cut\"\n[[step]]\nat = \"1s\"\ndo = \"heal\"": "step 2 at 1s comes before",
		"repeat = \"1s\"": "repeat 1s does not cover",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := Find("moon"); err == nil || !strings.Contains(err.Error(), "or give a file") {
		t.Errorf("Find(moon): %v", err)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]int64{"100Mbit": 12_500_000, "1 gbit": 125_000_000, "64kbit/s": 8000, "2.5Mbit": 312_500, "unlimited": 0} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "100", "0Mbit", "-1Mbit", "NaNMbit", "infgbit", "1e300gbit", "100MB"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %d", text, got)
		}
	}
}

// FuzzProfile ensures that no file makes the reader panic, and that what it accepts can be a line.
func FuzzProfile(f *testing.F) {
	f.Add([]byte("base = \"wan\"\nrtt = \"40ms\"\n[[step]]\nat = \"1s\"\ndo = \"cut-after 1M\"\n"))
	f.Add([]byte("rate = \"1Gbit\"\nloss = \"1%\"\nqueue = \"1G\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if err := p.validate(); err != nil {
			t.Errorf("%q was accepted: %v", text, err)
		}
	})
}

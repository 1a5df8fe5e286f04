package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/metric"
)

// freePort is one that nobody listens at just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(t *testing.T, url string, change func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

var metricName = regexp.MustCompile(`\b(?:cawrm|go|process)_[a-z0-9_]+\b`)

// base is the metric's name without what a histogram adds.
func base(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if b, ok := strings.CutSuffix(name, suffix); ok && strings.HasSuffix(b, "_seconds") {
			return b
		}
	}
	return name
}

// TestMetrics: what a live daemon tells is what the reference says, with the values of its status; promtool has nothing to say
// against it; and the alert rules and the dashboard speak only of what is there.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	httpA, httpB, nbd := freePort(t), freePort(t), filepath.Join(dir, "nbd")
	b := serve(t, create(t, filepath.Join(dir, "copy"), "--mirror"), "--name", "db", "--peer", "127.0.0.1:0", "--http", httpB)
	a := serve(t, create(t, filepath.Join(dir, "disk"), "--size", "16M"), "--name", "db", "--nbd", "unix:"+nbd,
		"--mirror", "m=cawrm://"+b.volume().Peer[0]+"/db", "--http", httpA)
	client := dialNBD(t, nbd, "db")
	for i := range uint64(32) {
		client.write(i*4096, bytes.Repeat([]byte{byte(i + 1)}, 4096))
	}
	client.flush()
	client.read(0, make([]byte, 4096))
	v := a.until("synced", func(v control.Volume) bool { return v.Mirrors[0].State == "synced" && v.EndPtr >= 32 })
	_, atA := get(t, "http://"+httpA+"/metrics", nil)
	_, atB := get(t, "http://"+httpB+"/metrics", nil)

	told := map[string]bool{}
	for line := range strings.Lines(atA + atB) {
		if !strings.HasPrefix(line, "#") {
			told[base(metricName.FindString(line))] = true
		}
	}
	known := map[string]bool{}
	for _, m := range metric.Reference() {
		known[m.Name] = true
		if !told[m.Name] {
			t.Errorf("%s is in the reference and not told", m.Name)
		}
	}
	for name := range told {
		if strings.HasPrefix(name, "cawrm_") && !known[name] {
			t.Errorf("%s is told and not in the reference", name)
		}
	}
	for _, want := range []string{
		fmt.Sprintf(`cawrm_end_ptr{volume="db"} %d`, v.EndPtr),
		fmt.Sprintf(`cawrm_durable_ptr{volume="db"} %d`, v.DurablePtr),
		fmt.Sprintf(`cawrm_sync_ptr{mirror="m",volume="db"} %d`, v.Mirrors[0].SyncPtr),
		`cawrm_mirror_lag_records{mirror="m",volume="db"} 0`,
		`cawrm_mirror_lag_seconds{mirror="m",volume="db"} 0`,
		`cawrm_mirror_up{mirror="m",volume="db"} 1`,
		`cawrm_request_duration_seconds_count{operation="write",volume="db"} 32`,
		`cawrm_request_duration_seconds_count{operation="flush",volume="db"} 1`,
		`cawrm_request_duration_seconds_count{operation="read",volume="db"} 1`,
		`cawrm_nbd_connections 1`,
		`cawrm_nbd_written_bytes_total 131072`,
	} {
		if !strings.Contains(atA, want+"\n") {
			t.Errorf("%s is not told; but\n%s", want, grep(atA, strings.FieldsFunc(want, func(r rune) bool { return r == '{' || r == ' ' })[0]))
		}
	}
	if !strings.Contains(atB, `cawrm_source_connected{volume="db"} 1`) {
		t.Errorf("the mirror's side:\n%s", grep(atB, "cawrm_source"))
	}
	checkMetricsWithPromtool(t, atA, atB)
	for _, file := range []string{"prometheus/cawrm-alerts.yaml", "grafana/cawrm.json"} {
		text, err := os.ReadFile(filepath.Join("..", "packages", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metricName.FindAllString(string(text), -1) {
			if !told[base(name)] {
				t.Errorf("%s speaks of %s, which no daemon tells", file, name)
			}
		}
	}
	client.Close()
	a.stop()
	b.stop()
}

func grep(text, part string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func checkMetricsWithPromtool(t *testing.T, scrapes ...string) {
	t.Helper()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("SKIPPED: promtool is missing (Debian's package prometheus)")
		return
	}
	for _, text := range scrapes {
		c := exec.Command(promtool, "check", "metrics")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool check metrics: %v\n%s", err, out)
		}
	}
	for _, args := range [][]string{{"check", "rules", "cawrm-alerts.yaml"}, {"test", "rules", "cawrm-alerts-test.yaml"}} {
		c := exec.Command(promtool, args...)
		c.Dir = filepath.Join("..", "packages", "prometheus")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDebugIsLocal: profiles are for this machine, spoken of by its own address.
func TestDebugIsLocal(t *testing.T) {
	addr := freePort(t)
	s := serve(t, create(t, filepath.Join(t.TempDir(), "a"), "--size", "1M"), "--http", addr)
	for host, want := range map[string]int{"": 200, "localhost:1": 200, "evil.example": 403, "10.0.0.1:80": 403} {
		code, body := get(t, "http://"+addr+"/debug/pprof/goroutine?debug=1", func(r *http.Request) { r.Host = host })
		if code != want {
			t.Errorf("host %q: %d, want %d: %.80s", host, code, want, body)
		}
	}
	if code, body := get(t, "http://"+addr+"/debug/flight", nil); code != 404 || !strings.Contains(body, "--latency-objective") {
		t.Error(code, body)
	}
	s.stop()
}

// TestFlightRecorder: a request that breaks the objective leaves a trace that Go's own tool can read.
func TestFlightRecorder(t *testing.T) {
	dir := t.TempDir()
	nbd, traces, addr := filepath.Join(dir, "nbd"), filepath.Join(dir, "traces"), freePort(t)
	s := serve(t, create(t, filepath.Join(dir, "disk"), "--size", "1M"), "--nbd", "unix:"+nbd, "--latency-objective", "1ns", "--trace-dir", traces, "--http", addr)
	client := dialNBD(t, nbd, "disk")
	for range 8 {
		client.write(0, make([]byte, 4096))
		client.flush()
	}
	s.until("written down", func(control.Volume) bool { return strings.Contains(s.log.String(), "longer than --latency-objective") })
	files, err := filepath.Glob(filepath.Join(traces, "cawrm-slow-*.trace"))
	if err != nil || len(files) != 1 {
		t.Fatal("one a minute: ", files, err)
	}
	readTrace(t, files[0])
	code, body := get(t, "http://"+addr+"/debug/flight", nil)
	if code != 200 {
		t.Fatal(code, body)
	}
	readTrace(t, writeFile(t, filepath.Join(dir, "asked"), body))
	client.Close()
	s.stop()
}

func readTrace(t *testing.T, file string) {
	t.Helper()
	out, err := exec.Command("go", "tool", "trace", "-d=footprint", file).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%.300s", file, err, out)
	}
}

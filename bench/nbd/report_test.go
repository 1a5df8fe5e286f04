package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What fio 3.33 prints, cut down to what is read, behind a warning.
const fioJSON = `fio: this is a warning
{"fio version": "fio-3.33", "jobs": [{"jobname": "x", "error": 0,
 "read": {"iops": 0, "bw_bytes": 0, "total_ios": 0, "lat_ns": {"max": 0, "mean": 0}, "clat_ns": {"max": 0, "mean": 0}},
 "write": {"iops": 1000.5, "bw_bytes": 4098048, "total_ios": 3000, "lat_ns": {"max": 9000000, "mean": 31000},
   "clat_ns": {"max": 8900000, "mean": 30000, "percentile": {"50.000000": 25000, "99.000000": 81000}}},
 "sync": {"total_ios": 46, "lat_ns": {"mean": 2000000}}}]}`

func TestParseFio(t *testing.T) {
	got, err := parseFio([]byte(fioJSON))
	if err != nil {
		t.Fatal(err)
	}
	want := result{IOPS: 1000.5, BytesPerSecond: 4098048, MeanUs: 31, P50us: 25, P99us: 81, MaxUs: 9000, SyncMeanUs: 2000}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "no JSON", `{"jobs": []}`, strings.Replace(fioJSON, `"error": 0`, `"error": 5`, 1), strings.Replace(fioJSON, "3000", "0", 1)} {
		if _, err := parseFio([]byte(bad)); err == nil {
			t.Errorf("no error for %.40q", bad)
		}
	}
}

func TestReportShowsMediansAndRatios(t *testing.T) {
	list := cases(false)
	rate, latency := list[0], list[2]
	if rate.lower || !latency.lower {
		t.Fatalf("%s and %s are not a rate and a time", rate.name, latency.name)
	}
	ours, theirs := &server{name: "cawrm"}, &server{name: "other"}
	r := newReport(config{dir: t.TempDir(), size: "1G", rounds: 3}, []*server{ours, theirs})
	for i := range 3 {
		r.add(rate, ours, result{BytesPerSecond: float64(100+100*i) * 1e6})
		r.add(rate, theirs, result{BytesPerSecond: 100e6})
		r.add(latency, ours, result{P50us: float64(10 + i)})
		r.add(latency, theirs, result{P50us: 22})
	}
	text := r.table([]workload{rate, latency})
	for _, want := range []string{"200", "100 (2.00)", "11.0", "22.0 (2.00)"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	path := filepath.Join(t.TempDir(), "results", "nbd.jsonl")
	for range 2 {
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines after two runs", len(lines))
	}
	var back report
	if err := json.Unmarshal([]byte(lines[1]), &back); err != nil {
		t.Fatal(err)
	}
	if n := len(back.Cases[0].Repetitions["cawrm"]); n != 3 || back.Cases[0].Median["cawrm"] != 200 {
		t.Errorf("read back %d repetitions and the median %v", n, back.Cases[0].Median)
	}
}

func TestChooseRefusesUnknownNames(t *testing.T) {
	if _, err := choose(contenders(false), []string{"cawrm", "nbdkit"}); err == nil {
		t.Error("a server that there is not was accepted")
	}
	got, err := choose(contenders(false), []string{"qemu-none", "cawrm"})
	if err != nil || len(got) != 2 || got[0].name != "qemu-none" {
		t.Errorf("got %v, %v", names(got), err)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// result is what one turn measured. Latencies are from submission to
// completion; with --fsync they leave out the flushes, which are apart.
type result struct {
	IOPS           float64 `json:"iops"`
	BytesPerSecond float64 `json:"bytes_per_second"`
	MeanUs         float64 `json:"mean_us"`
	P50us          float64 `json:"p50_us"`
	P99us          float64 `json:"p99_us"`
	MaxUs          float64 `json:"max_us"`
	SyncMeanUs     float64 `json:"sync_mean_us,omitempty"`
	CPUBusy        float64 `json:"cpu_busy"`                // share of all processors, all processes
	ServerCPUus    float64 `json:"server_cpu_us,omitempty"` // processor time of the server, for each read or write
}

// fioArgs is the command line of one turn.
func fioArgs(c config, k workload, uri string) []string {
	args := []string{
		"--name=" + k.name, "--ioengine=nbd", "--uri=" + uri, "--size=" + fioSize(c.size),
		"--randrepeat=0", "--norandommap", "--output-format=json",
	}
	if !k.once {
		args = append(args, "--time_based", fmt.Sprintf("--runtime=%dms", c.seconds.Milliseconds()))
	}
	return append(args, k.args...)
}

// fioSize is a size as fio writes it; its G is 2^30, as ours.
func fioSize(s string) string { return strings.ToLower(s) }

func runFio(ctx context.Context, c config, k workload, s *server) (result, error) {
	args := fioArgs(c, k, s.uri)
	cmd := exec.CommandContext(ctx, "fio", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	before, spent := readCPU(), s.cpu()
	out, err := cmd.Output()
	after, spent := readCPU(), s.cpu()-spent
	if err != nil {
		return result{}, fmt.Errorf("fio %s: %w\n%s%s", strings.Join(args, " "), err, stderr.Bytes(), out)
	}
	r, err := parseFio(out)
	r.CPUBusy = after.busySince(before)
	if requests := r.IOPS * c.seconds.Seconds(); !k.once && requests > 0 {
		r.ServerCPUus = spent * 1e6 / requests
	}
	return r, err
}

// parseFio reads fio's JSON, before which it may print warnings.
func parseFio(out []byte) (result, error) {
	if i := bytes.IndexByte(out, '{'); i > 0 {
		out = out[i:]
	}
	type latency struct {
		Mean, Max  float64
		Percentile map[string]float64
	}
	type side struct {
		IOPS    float64 `json:"iops"`
		BW      float64 `json:"bw_bytes"`
		Total   int64   `json:"total_ios"`
		Clat    latency `json:"clat_ns"`
		Latency latency `json:"lat_ns"`
	}
	var doc struct {
		Jobs []struct {
			Error       int
			Read, Write side
			Sync        side
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return result{}, fmt.Errorf("fio's output: %w", err)
	}
	if len(doc.Jobs) != 1 || doc.Jobs[0].Error != 0 {
		return result{}, fmt.Errorf("fio says error: %s", out)
	}
	d := doc.Jobs[0].Read
	if d.Total == 0 {
		d = doc.Jobs[0].Write
	}
	if d.Total == 0 {
		return result{}, fmt.Errorf("fio did no I/O: %s", out)
	}
	return result{
		IOPS: d.IOPS, BytesPerSecond: d.BW,
		MeanUs: d.Latency.Mean / 1e3, MaxUs: d.Latency.Max / 1e3,
		P50us: d.Clat.Percentile["50.000000"] / 1e3, P99us: d.Clat.Percentile["99.000000"] / 1e3,
		SyncMeanUs: doc.Jobs[0].Sync.Latency.Mean / 1e3,
	}, nil
}

// cpu is the processor time of the server's process so far, in seconds.
func (s *server) cpu() (seconds float64) {
	pid := 0
	switch {
	case s.cmd != nil:
		pid = s.cmd.Process.Pid
	case s.source != nil:
		pid = s.source.PID()
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name may hold spaces and parentheses; user and system time are the 12th and 13th field behind it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	for _, ticks := range f[11:13] {
		var v float64
		fmt.Sscan(ticks, &v)
		seconds += v / 100
	}
	return seconds
}

// cpu is the time of all processors so far, in ticks.
type cpu struct{ total, idle float64 }

func readCPU() (c cpu) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return c
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:] {
		var v float64
		fmt.Sscan(f, &v)
		if i < 8 { // guest time is part of user time
			c.total += v
		}
		if i == 3 || i == 4 {
			c.idle += v
		}
	}
	return c
}

func (c cpu) busySince(before cpu) float64 {
	if c.total == before.total {
		return 0
	}
	return 1 - (c.idle-before.idle)/(c.total-before.total)
}

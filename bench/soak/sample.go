package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"cawrm/bench/internal/site"
)

// sample is one look at one daemon. Its fields are compared over time by judge.go.
type sample struct {
	Kind       string  `json:"kind"`
	Seconds    float64 `json:"t"`
	Site       string  `json:"site"`
	Life       int     `json:"life"` // how often the daemon was started
	LineUp     bool    `json:"line_up"`
	RSSAnon    int64   `json:"rss_anon"` // its own memory; map pages of the checkpoint are the kernel's to reclaim, and in RSSFile
	RSSFile    int64   `json:"rss_file"`
	Heap       int64   `json:"heap"`
	Goroutines int64   `json:"goroutines"`
	Threads    int64   `json:"threads"`
	FDs        int64   `json:"fds"`
	Container  int64   `json:"container"` // bytes that it takes of the disk
	EndPtr     uint64  `json:"end_ptr"`
	DurablePtr uint64  `json:"durable_ptr"`
	LagBytes   int64   `json:"lag_bytes"` // of the source's mirror; 0 at the mirror
	LagSeconds float64 `json:"lag_seconds"`
	Written    int64   `json:"written"` // by the clients, over all lives
}

// look takes a sample of a daemon that runs.
func look(ctx context.Context, s *site.Site) (sample, error) {
	v, err := s.Status(ctx)
	if err != nil {
		return sample{}, err
	}
	x := sample{Kind: "sample", Heap: v.Process.HeapBytes, Goroutines: v.Process.Goroutines, Container: v.PhysicalBytes,
		EndPtr: v.EndPtr, DurablePtr: v.DurablePtr}
	if v.DurablePtr > v.EndPtr {
		return x, fmt.Errorf("durable_ptr %d is beyond end_ptr %d", v.DurablePtr, v.EndPtr)
	}
	for _, m := range v.Mirrors {
		x.LagBytes, x.LagSeconds = m.LagBytes, m.LagSeconds
		if m.SyncPtr > v.DurablePtr {
			return x, fmt.Errorf("sync_ptr %d is beyond durable_ptr %d", m.SyncPtr, v.DurablePtr)
		}
	}
	return x, x.proc(s.PID())
}

// proc reads what the kernel knows of the process.
func (x *sample) proc(pid int) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		return err
	}
	x.FDs = int64(len(fds))
	f, err := os.Open(dir + "status")
	if err != nil {
		return err
	}
	defer f.Close()
	want := map[string]*int64{"RssAnon:": &x.RSSAnon, "RssFile:": &x.RSSFile, "Threads:": &x.Threads}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 2 || want[w[0]] == nil {
			continue
		}
		n, err := strconv.ParseInt(w[1], 10, 64)
		if err != nil {
			return fmt.Errorf("%sstatus: %w", dir, err)
		}
		if len(w) == 3 { // "kB"
			n <<= 10
		}
		*want[w[0]] = n
	}
	return nil
}

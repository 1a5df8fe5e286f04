// Package flight keeps the last seconds of the program's execution in memory, and writes them down when a request has taken
// longer than it may: what the scheduler, the collector and the system calls did then is seen with `go tool trace FILE`.
package flight

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/trace"
	"slices"
	"sync/atomic"
	"time"
)

const (
	window   = 5 * time.Second // of what is kept
	maxBytes = 16 << 20        // and its bound in memory
	between  = time.Minute     // two files
	maxFiles = 8               // older ones are removed
	pattern  = "cawrm-slow-*.trace"
)

// Recorder records. Make it with Start.
type Recorder struct {
	dir  string
	log  *slog.Logger
	rec  *trace.FlightRecorder
	busy atomic.Bool // a file is being written, or the last one is not old enough
	stop chan struct{}
}

// Start starts recording; files go to dir. Errors: dir cannot be written to; something else traces.
func Start(dir string, log *slog.Logger) (*Recorder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("--trace-dir: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return nil, fmt.Errorf("--trace-dir: %w", err)
	}
	probe.Close()
	os.Remove(probe.Name())
	r := &Recorder{dir: dir, log: log, stop: make(chan struct{}),
		rec: trace.NewFlightRecorder(trace.FlightRecorderConfig{MinAge: window, MaxBytes: maxBytes})}
	return r, r.rec.Start()
}

// Close ends recording.
func (r *Recorder) Close() {
	close(r.stop)
	r.rec.Stop()
}

// Slow notes that a request took too long. It does not wait: the file is written beside the requests, one a minute at most.
func (r *Recorder) Slow(op string, took time.Duration) {
	if !r.busy.CompareAndSwap(false, true) {
		return
	}
	go func() { // ends with Close
		defer r.busy.Store(false)
		path, err := r.write()
		r.log.Warn("a request took longer than --latency-objective", "operation", op, "took", took, "trace", path, "error", err)
		select {
		case <-time.After(between):
		case <-r.stop:
		}
	}()
}

func (r *Recorder) write() (string, error) {
	path := filepath.Join(r.dir, "cawrm-slow-"+time.Now().UTC().Format("20060102-150405.000")+".trace")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = r.rec.WriteTo(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return "", err
	}
	return path, r.prune()
}

// prune keeps the newest files: their names are in the order of time.
func (r *Recorder) prune() error {
	files, err := filepath.Glob(filepath.Join(r.dir, pattern))
	if err != nil || len(files) <= maxFiles {
		return err
	}
	slices.Sort(files)
	for _, f := range files[:len(files)-maxFiles] {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// WriteTo writes what is kept, for whoever asks.
func (r *Recorder) WriteTo(w io.Writer) (int64, error) { return r.rec.WriteTo(w) }

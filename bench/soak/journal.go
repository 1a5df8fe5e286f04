package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journal writes the JSON lines.
type journal struct {
	f     *os.File
	start time.Time
}

// head is the first line.
type head struct {
	Kind    string    `json:"kind"`
	Time    time.Time `json:"time"`
	Commit  string    `json:"commit"`
	Version string    `json:"version"` // of the binary
	Command []string  `json:"command"`
	Seed    uint64    `json:"seed"`
	CPUs    int       `json:"cpus"`
	Kernel  string    `json:"kernel"`
	Hours   float64   `json:"hours"`
	Rate    int64     `json:"rate_bytes_per_second"`
	Size    int64     `json:"size"`
	Bounds  bounds    `json:"bounds"`
}

func newJournal(c config) (*journal, error) {
	f, err := os.Create(c.out)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, start: time.Now()}
	return j, j.write(head{
		Kind: "head", Time: j.start.UTC().Truncate(time.Second), Commit: output("git", "describe", "--always", "--dirty", "--abbrev=12"),
		Version: output(c.bin, "version"), Command: append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...), Seed: c.seed,
		CPUs: runtime.NumCPU(), Kernel: kernel(), Hours: c.hours, Rate: c.rate << 20, Size: c.size << 20, Bounds: limits,
	})
}

func (j *journal) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = j.f.Write(append(b, '\n'))
	return err
}

// seconds is the time since the soak began.
func (j *journal) seconds() float64 { return float64(time.Since(j.start).Milliseconds()) / 1000 }

// event notes what was done to the sites, also on the terminal.
func (j *journal) event(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintf(os.Stderr, "%8.1f s  %s\n", j.seconds(), text)
	return j.write(struct {
		Kind    string  `json:"kind"`
		Seconds float64 `json:"t"`
		What    string  `json:"what"`
	}{"event", j.seconds(), text})
}

// output is what a program says, "" when it cannot be asked.
func output(program string, args ...string) string {
	out, _ := exec.Command(program, args...).Output()
	return strings.TrimSpace(string(out))
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is one run: its JSON is one line of the results file.
type report struct {
	Time    time.Time     `json:"time"`
	Commit  string        `json:"commit"`
	Machine machine       `json:"machine"`
	Command []string      `json:"command"`
	Size    string        `json:"size"`
	Seconds float64       `json:"seconds"`
	Servers []serverInfo  `json:"servers"`
	Cases   []*caseReport `json:"cases"`
	byCase  map[string]*caseReport
	rounds  int
}

type machine struct {
	CPUs       int    `json:"cpus"`
	CPU        string `json:"cpu"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the images
	Fio        string `json:"fio"`
}

type serverInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Command string `json:"command"`
}

type caseReport struct {
	Case        string              `json:"case"`
	Fio         []string            `json:"fio"`
	Unit        string              `json:"unit"`
	Median      map[string]float64  `json:"median"`
	Repetitions map[string][]result `json:"repetitions"` // by server, in order
}

func newReport(c config, running []*server) *report {
	r := &report{
		Time:    time.Now().UTC().Truncate(time.Second),
		Commit:  output("git", "describe", "--always", "--dirty", "--abbrev=12"),
		Machine: thisMachine(c.dir),
		Command: append([]string{filepath.Base(os.Args[0])}, os.Args[1:]...),
		Size:    c.size,
		Seconds: c.seconds.Seconds(),
		byCase:  map[string]*caseReport{},
		rounds:  c.rounds,
	}
	for _, s := range running {
		r.Servers = append(r.Servers, serverInfo{s.name, s.version, s.command})
	}
	return r
}

func output(args ...string) string {
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func thisMachine(dir string) machine {
	m := machine{CPUs: runtime.NumCPU(), Kernel: output("uname", "-r"), Fio: output("fio", "--version"), FileSystem: fileSystem(dir)}
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			m.CPU = strings.TrimSpace(v)
			break
		}
	}
	return m
}

func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("type %#x", st.Type)
}

func (r *report) add(k workload, s *server, f result) {
	c := r.byCase[k.name]
	if c == nil {
		c = &caseReport{Case: k.name, Fio: k.args, Unit: k.unit, Median: map[string]float64{}, Repetitions: map[string][]result{}}
		r.byCase[k.name] = c
		r.Cases = append(r.Cases, c)
	}
	c.Repetitions[s.name] = append(c.Repetitions[s.name], f)
	var figures []float64
	for _, x := range c.Repetitions[s.name] {
		figures = append(figures, k.figure(x))
	}
	c.Median[s.name] = median(figures)
}

func median(v []float64) float64 {
	v = append([]float64(nil), v...)
	sort.Float64s(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// table shows the medians, and how much better the first server is than each
// of the others: above 1 it is faster, whether the figure is a rate or a time.
func (r *report) table(list []workload) string {
	first := r.Servers[0].Name
	var b strings.Builder
	fmt.Fprintf(&b, "medians of %d turns of %gs; (x) is how much better %s is\n\n", r.rounds, r.Seconds, first)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "case\tunit\t")
	for _, s := range r.Servers {
		fmt.Fprintf(t, "%s\t", s.Name)
	}
	fmt.Fprintln(t)
	for _, k := range list {
		c := r.byCase[k.name]
		fmt.Fprintf(t, "%s\t%s\t", k.name, k.unit)
		for _, s := range r.Servers {
			fmt.Fprint(t, number(c.Median[s.Name]))
			if s.Name != first {
				fmt.Fprintf(t, " (%.2f)", ratio(k, c.Median[first], c.Median[s.Name]))
			}
			fmt.Fprint(t, "\t")
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	return b.String()
}

// number has three digits or more, and no more than one that is not sure.
func number(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func ratio(k workload, ours, theirs float64) float64 {
	if k.lower {
		return theirs / ours
	}
	return ours / theirs
}

// save appends the run to the file.
func (r *report) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	return f.Close()
}

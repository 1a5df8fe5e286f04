package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Append adds experiments to a results file, one line each.
func Append(path string, list ...*Experiment) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, e := range list {
		b, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := f.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	return f.Close()
}

// maxLine bounds a line of a results file.
const maxLine = 16 << 20

// Load reads a results file, or all of a directory. Lines that hold no experiment are an error, but for those of the soak
// test, whose files begin otherwise.
func Load(path string) ([]*Experiment, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return loadFile(path)
	}
	names, err := filepath.Glob(filepath.Join(path, "*.jsonl"))
	if err != nil {
		return nil, err
	}
	var all []*Experiment
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "soak") {
			continue
		}
		list, err := loadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func loadFile(path string) (all []*Experiment, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for nr := 1; lines.Scan(); nr++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		list, err := decode(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, nr, err)
		}
		all = append(all, list...)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// decode reads a line: an experiment, or a run of bench/nbd.
func decode(line []byte) ([]*Experiment, error) {
	var run nbdRun
	if err := json.Unmarshal(line, &run); err != nil {
		return nil, fmt.Errorf("not a line of results: %w", err)
	}
	if run.Name != "" && len(run.Points) > 0 {
		e := run.Experiment
		return []*Experiment{&e}, nil
	}
	if len(run.Cases) == 0 {
		return nil, fmt.Errorf("not a line of results: neither points nor cases")
	}
	var all []*Experiment
	for _, c := range run.Cases {
		e := run.Experiment
		kind := "nbd"
		if _, mirrored := c.Median["cawrm+mirror"]; mirrored {
			kind = "nbd-mirror"
		}
		e.Name, e.Title, e.X, e.Unit = kind+"/"+c.Case, "fio over NBD: "+c.Case, "case", c.Unit
		e.Lower = strings.HasPrefix(c.Unit, "us")
		field := map[string]string{"IOPS": "iops", "MB/s": "bytes_per_second", "us p50": "p50_us", "us p99": "p99_us"}[c.Unit]
		for server := range c.Median {
			for _, r := range c.Repetitions[server] {
				var v float64
				if json.Unmarshal(r[field], &v) != nil {
					return nil, fmt.Errorf("case %s has no %s", c.Case, field)
				}
				if c.Unit == "MB/s" {
					v /= 1e6
				}
				e.Add(server, c.Case, 0, v)
			}
		}
		bySeries(&e)
		all = append(all, &e)
	}
	if cpu := run.cpu(); cpu != nil {
		all = append(all, cpu)
	}
	return all, nil
}

func bySeries(e *Experiment) {
	sort.SliceStable(e.Points, func(i, j int) bool { return e.Points[i].Series < e.Points[j].Series })
}

// cpu is the processor time of each server for a request, of those runs that have noted it.
func (r *nbdRun) cpu() *Experiment {
	e := r.Experiment
	e.Name, e.Title, e.X, e.Unit, e.Lower = "cpu/request", "Server's processor time for a request of 4 KiB", "requests", "microseconds", true
	e.Note = "user and system time of the server's process, at depth 32; what the kernel does for it elsewhere is not in it"
	for _, c := range r.Cases {
		x := map[string]string{"randwrite-4k-qd32": "random write", "randread-4k-qd32": "random read"}[c.Case]
		if x == "" {
			continue
		}
		for server, list := range c.Repetitions {
			for _, rep := range list {
				var v float64
				if json.Unmarshal(rep["server_cpu_us"], &v) == nil && v > 0 {
					e.Add(server, x, 0, v)
				}
			}
		}
	}
	if len(e.Points) == 0 {
		return nil
	}
	bySeries(&e)
	return &e
}

// nbdRun is a line of bench/nbd.
type nbdRun struct {
	Experiment
	Cases []struct {
		Case        string                                  `json:"case"`
		Unit        string                                  `json:"unit"`
		Repetitions map[string][]map[string]json.RawMessage `json:"repetitions"`
		Median      map[string]float64                      `json:"median"`
	} `json:"cases"`
}

// Newest returns of each name the experiment that was measured last, in the order of the names' first appearance.
func Newest(list []*Experiment) (newest []*Experiment) {
	at := map[string]int{}
	for _, e := range list {
		i, ok := at[e.Name]
		switch {
		case !ok:
			at[e.Name] = len(newest)
			newest = append(newest, e)
		case !e.Time.Before(newest[i].Time):
			newest[i] = e
		}
	}
	return newest
}

// day is for people.
func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

// Package doctor looks at a machine as cawrm will use it, and says what to mend. Nothing is changed but for files that it makes
// beside a container and removes again.
package doctor

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Grade is how bad a finding is.
type Grade string

// The grades.
const (
	OK   Grade = "ok"
	Note Grade = "note" // it works, and could be better or is not known
	Fail Grade = "fail" // it will not work
)

// Finding is the result of one look.
type Finding struct {
	What  string `json:"what"`  // kernel, disk, limits, ...
	Grade Grade  `json:"grade"` // ok, note, fail
	Says  string `json:"says"`
	Mend  string `json:"mend,omitempty"` // what to do; not with ok
}

// Subject is what to look at.
type Subject struct {
	Paths []string // containers, there or to be made; none: only the machine
	Addrs []string // host:port that are to be listened at
}

// Examine looks at everything.
func Examine(s Subject) []Finding {
	all := kernel()
	all = append(all, limits()...)
	all = append(all, clock()...)
	all = append(all, network()...)
	for _, a := range s.Addrs {
		all = append(all, port(a))
	}
	for _, p := range s.Paths {
		all = append(all, disk(p)...)
	}
	return all
}

// Failed tells whether something will not work.
func Failed(all []Finding) bool {
	for _, f := range all {
		if f.Grade == Fail {
			return true
		}
	}
	return false
}

// Print writes a line for each finding, and a second one where there is something to do.
func Print(w io.Writer, all []Finding) error {
	for _, f := range all {
		line := fmt.Sprintf("%-4s  %-8s %s\n", f.Grade, f.What, f.Says)
		if f.Mend != "" {
			line += fmt.Sprintf("               -> %s\n", f.Mend)
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

// word reads a file of /proc or /sys; "" when it is not there.
func word(path ...string) string {
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

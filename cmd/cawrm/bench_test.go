package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cawrm/bench/report"
)

// TestBenchDiff ensures that two files are compared, for people and for programs, and that wrong ones are said.
func TestBenchDiff(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for i, values := range [][]float64{{10, 11, 12}, {20, 21, 22}} {
		e := &report.Experiment{Name: "x/write", Title: "x", Time: time.Unix(int64(i), 0), X: "case", Unit: "MB/s"}
		for _, v := range values {
			e.Add("cawrm", "write", 0, v)
		}
		files = append(files, filepath.Join(dir, string(rune('a'+i))+".jsonl"))
		if err := report.Append(files[i], e); err != nil {
			t.Fatal(err)
		}
	}
	runProgram(t, "bench", "diff", files[0], files[1]).want(t, 0, "better")
	r := runProgram(t, "bench", "diff", files[1], files[0], "--json")
	var changes []report.Change
	if err := json.Unmarshal([]byte(r.out), &changes); err != nil || len(changes) != 1 || changes[0].Verdict != "worse" {
		t.Errorf("%v, %+v", err, changes)
	}
	runProgram(t, "bench", "diff", files[0], filepath.Join(dir, "none")).want(t, 1, "no such file")
}

// TestBenchWrongUsage: exit code 2, and what is wrong.
func TestBenchWrongUsage(t *testing.T) {
	for line, want := range map[string]string{
		"bench":                       "a command of cawrm bench is missing",
		"bench fast":                  `unknown command "fast" of cawrm bench`,
		"bench diff a":                "B is missing",
		"bench paper now":             "one too many",
		"bench paper --disk /not/one": "--disk /not/one is not a directory",
	} {
		runProgram(t, strings.Fields(line)...).want(t, 2, want)
	}
}

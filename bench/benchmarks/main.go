// Command benchmarks writes BENCHMARKS.md from the results that are kept in bench/results.
package main

import (
	"bytes"
	"fmt"
	"os"

	"cawrm/bench/report"
)

func main() {
	if err := write("bench/results", "BENCHMARKS.md"); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func write(results, path string) error {
	text, err := generate(results)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

func generate(results string) ([]byte, error) {
	all, err := report.Load(results)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = report.Document(&b, all)
	return b.Bytes(), err
}

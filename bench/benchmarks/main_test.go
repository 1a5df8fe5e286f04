package main

import (
	"bytes"
	"os"
	"testing"
)

// TestDocumentIsThatOfTheResults ensures that no figure in BENCHMARKS.md is other than what was measured and kept.
func TestDocumentIsThatOfTheResults(t *testing.T) {
	want, err := generate("../results")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../BENCHMARKS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("BENCHMARKS.md is not what bench/results says: run make benchmarks")
	}
}

package main

import (
	"testing"

	"cawrm/bench/sim/overlay"
)

// TestFaultsApply ensures that every planted fault still finds the lines that it changes; make sim-mutants shows that
// each of them is found.
func TestFaultsApply(t *testing.T) {
	all, err := load("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if _, err := overlay.Apply("../../..", f.change); err != nil {
			t.Errorf("fault %s: %v", f.name, err)
		}
	}
}

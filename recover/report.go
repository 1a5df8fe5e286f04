package recovery

import "io"

// Report is what a check found.
type Report struct{}

// OK tells whether every rule holds.
func (r *Report) OK() bool { return false }

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error { return nil }

// Package report keeps what benchmarks measure and shows it: JSON lines, tables, one HTML page, comparisons.
//
// A results file has one Experiment in each line: what was measured, with which command, of which commit, on which machine,
// and all repetitions. Tables and charts are made from that alone, so a figure can be traced back to its runs. Load also
// reads the lines that bench/nbd wrote, one run in each.
package report

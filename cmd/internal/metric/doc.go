// Package metric tells what the daemon knows in Prometheus' words, and counts how long requests take.
//
// What is told is a table (table.go): name, help and where the value stands in control.Status, so the reference of the metrics is
// printed from what is served. Names carry their units: seconds, bytes; ratios are 0 to 1; what only grows ends in _total.
// Pointers keep their names: cawrm_end_ptr, cawrm_durable_ptr, cawrm_sync_ptr.
//
// Nothing is registered globally, and nothing moves because somebody looks. A scrape costs one status.
package metric

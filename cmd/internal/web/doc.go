// Package web is what the daemon serves at --http: metrics for Prometheus for whoever reaches the address, and for this machine
// alone what looks into the program.
//
//	GET /metrics              Prometheus
//	GET /debug/pprof/...      profiles: from the loopback only
//	GET /debug/flight         the last seconds of execution, for `go tool trace`: from the loopback only
package web

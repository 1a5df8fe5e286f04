// Package web is what the daemon serves at --http: a page and metrics for whoever reaches the address, actions for whoever knows
// the token, and for this machine alone what looks into the program.
//
//	GET /                     the page (page/): volumes, mirrors, pointers, charts; all of it is in the binary
//	GET /api/status           control.Status
//	GET /api/sites            the same of this and of other daemons, which are asked beside each other
//	GET /api/history          ?volume=&site=: control.History, of this daemon or of a site that the page shows
//	POST /api/mirror          pause and resume; "Authorization: Bearer TOKEN"
//	POST /api/snapshot        create; with the token
//	POST /api/role            promote, without force; with the token
//	GET /metrics              Prometheus
//	GET /debug/pprof/...      profiles: from the loopback only
//	GET /debug/flight         the last seconds of execution, for `go tool trace`: from the loopback only
package web

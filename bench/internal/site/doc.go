// Package site runs one cawrm daemon as a real process, for whole-system
// tests, demonstrations and benchmarks.
//
// A Site is a directory with a container, the addresses of its daemon and, at
// times, a process. It uses the binary as a user does: cawrm create, cawrm
// serve, cawrm status --json, SIGTERM and SIGKILL. Nothing of the volume or
// the mirror is linked in.
//
// A Site is used by one goroutine, except for Status and Log.
package site

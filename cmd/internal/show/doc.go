// Package show renders a daemon's status for people: bytes, times, tables, progress. It is text in, text out;
// only Watch writes to a terminal.
package show

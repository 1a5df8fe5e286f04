// Package show renders a daemon's status for people: bytes, times, tables, progress. It is text in, text out;
// only Watch and Meter write to a terminal.
package show

// Package e2e tests the built binary as a whole: real daemons as processes,
// third-party NBD clients, two sites with an emulated line between them, and
// SIGKILL at any moment.
//
// The tests use cawrm only as a user can: its command line and its sockets.
// CAWRM_BIN names a binary to test; without it one is built from this tree.
// Tests of a client that is not installed say that they were skipped.
//
// A run prints its seeds; CAWRM_SEED repeats one. CAWRM_KILL_CYCLES is how
// often the crash test kills (200 is a thorough run).
package e2e

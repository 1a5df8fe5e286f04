// Package daemon is `cawrm serve`: it puts volumes, NBD server, mirrors, peer and control socket together, changes them while
// it runs, and takes them apart again in an order that loses nothing.
//
//	NBD clients --> nbdsrv --> device --> aodi.Volume <-- cawrm.Mirror --> the other site      one served a volume
//	                                      aodi.Volume <-- cawrm.Peer  <-- the source, on a mirror site
//	commands ----> control --> status, AddVolume, RemoveVolume, Reload ----^
//
// Start: addresses are bound first, so that a port in use is told before a long recovery; then the volumes are
// opened, which recovers them; then everything is served, and systemd is told.
//
// Change: one at a time, under daemon.change. A volume is hidden before it is closed: NBD answers what its clients had asked
// for, its mirrors and its feed end, and nobody uses it any more. A reload finds what is wrong before it changes anything:
// the file is read whole, new addresses are bound, certificates are loaded. Connections belong to servers, not to
// listeners, so closing an address drops nobody.
//
// Stop: NBD answers what is in flight and closes; mirrors and peer end; the volumes write checkpoints and are
// closed. Each step needs the one after it to be still there.
//
// Locks: daemon.change before daemon.mu. change is held over opening and closing volumes, mu never, so that
// status is always answered.
//
// Goroutines: runServe, one a listener; ended by stop. All others belong to the packages that are put together.
package daemon

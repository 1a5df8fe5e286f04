// Package daemon is `cawrm serve`: it puts volume, NBD server, mirrors, peer and control socket together, and
// takes them apart again in an order that loses nothing.
//
//	NBD clients --> nbdsrv --> device --> aodi.Volume <-- cawrm.Mirror --> the other site
//	                                      aodi.Volume <-- cawrm.Peer  <-- the source, on a mirror site
//	commands ----> control --> status ----^
//	                   '-----> mirror --> cawrm.Source, the list of the volume's mirrors
//
// Start: addresses are bound first, so that a port in use is told before a long recovery; then the volume is
// opened, which recovers it; then everything is served, and systemd is told.
//
// Stop: NBD answers what is in flight and closes; mirrors and peer end; the volume writes a checkpoint and is
// closed. Each step needs the one after it to be still there.
//
// Goroutines: runServe, one a listener; ended by stop. All others belong to the packages that are put together.
//
// Absences: no configuration file.
package daemon

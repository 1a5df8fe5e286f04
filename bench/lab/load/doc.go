// Package load is what the programs in the virtual machine write and what the
// tests outside expect to find after a power cut.
//
// Both loads can be checked by whoever knows their seed or the names, without
// a copy of the data:
//
//	Files   whole files under few names, each version replacing the one before
//	        by fsync and rename. A file's content follows from its name and
//	        version, so any version that is found can be told from a torn one.
//	Blocks  stamped blocks in a fixed order, one after the other, with trims
//	        and flushes between: what is found must be what the first n steps
//	        leave, for one n that is at least what was flushed.
//
// A load tells each thing that it knows to be durable, after the call that
// made it so has returned and before it goes on. What it told must be found.
package load

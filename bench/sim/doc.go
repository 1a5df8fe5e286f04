// Package sim runs whole systems through random histories: a source, two mirrors of it, and a mirror of one of the
// mirrors, on disks that lose power and fail, over a network that is cut and stalls, in virtual time. The code that
// runs is the code that ships.
//
// A history follows from one seed. Its driver, one goroutine, takes operations from a table (ops.go): clients write,
// trim, zero, flush and read; the volume grows, and containers get another bound (sizes.go); it becomes what it was some time ago
// (past.go); clones are made of it, written and deleted (clones.go); files bring a mirror what it lacks, whole, broken off or
// damaged (files.go); machines lose power, processes die, at a moment or at the n-th operation of their disk, also while they
// recover; lines are cut; disks fill up and fail. After each step and each recovery the oracle
// (oracle.go) compares what it sees with a model (model.go) that keeps every version of every chunk by position:
//
//	flushed   what a flush, FUA or durable_ptr has promised is there after any crash
//	prefix    a volume's content is the model's at its position: a prefix of the writes, no byte else
//	cut       a mirror's content, and its size, is the model's at the mirror's position
//	back      a mirror's position never goes back
//	ahead     no mirror is beyond what its source has durable; sync_ptr is not beyond what the mirror holds
//	twice     recovering twice gives what recovering once gave
//	meta      a copy that has lost its newest meta chunk comes up with the same, or refuses
//	checker   recovery.Check agrees with every disk that a crash or a close has left
//	read      clients read what they wrote, extents say what is a hole
//	rot       a bit that flips at rest leaves what is right, or a refusal
//	refused   a source that is another volume, or an old copy, is refused, and the mirror stays as it was
//	verify    a comparison of two sites calls nothing different that is the same
//	drained   when all is well again, every mirror gets to the end
//	moment    what is read of some time ago is the model at a position that the source had then
//	history   nothing in the window of time is given up where space is not short
//	clone     a clone is what its base was at the cut, and what was written to it; it is there, and its snapshot too, until it is deleted
//	receive   a file is taken whole, on the right base, or the mirror stays where it was; one that is good is taken
//	capacity  a container comes up with the bound that it was told last, or while that was answered not, the one before
//	space     nothing is written to a full disk but where space was reserved
//	error     an operation fails only when its disk has failed it, or what is live really fills its container (clean.go)
//	hang      everything ends
//
// In half of the histories roles change (roles.go): mirrors are promoted, primaries demoted, handed over, or left to go on as an old head
// that clients still write to; members are attached elsewhere. The history has a branch then for each primary, with a model of its
// own (reign.go), and a position tells the branch. The oracle says of it (heads.go):
//
//	heads     only who was promoted is a primary; no two primaries have one lineage; two heads name each other; nobody who was written to
//	          steps down by himself, and who was demoted takes no writes
//	lineage   a promotion begins a link where the mirror stood, at positions that nobody has used
//	lost      what was handed over is there, and whoever said that he has taken over is the primary
//	tail      what only an old primary had is a snapshot, once it is a mirror
//
// # Virtual time
//
// Each history is a bubble of testing/synctest. Time passes only when every goroutine waits for it, for a channel or a
// condition; one that waits for a mutex stops it. So the disk sleeps only where no lock is held over it: where a
// checkpoint of the driver could wait for another checkpoint, it yields the processor instead (simDisk.calm).
//
// # Replay
//
// The driver, the disks, the network and the identities follow from the seed. So does the order of goroutines, when the
// tests are built with package overlay (make sim, make test): Go's scheduler draws lots, for a select with several ready
// cases, for timers of one instant and for the order of a map, and the overlay takes them from the seed, for goroutines of
// the bubble alone. It also keeps goroutines from losing their processor because real time has passed. Together with
// one processor and no garbage collection within a history, two runs of a seed are the same to the last operation of
// each disk: TestReplay compares. A plain go test runs the same histories with lots of its own.
//
// # More operations
//
// What is built into the volume and the mirror later comes in as a line of the table in ops.go.
package sim

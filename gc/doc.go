// Package gc cleans a volume: it chooses the segments whose live chunks are moved away so that they are free, and the time
// for that. It knows nothing of mirrors, and how chunks are moved is the volume's business (aodi, cold.go).
//
// # Which
//
// Moving the live chunks of a segment costs reading it and writing u of it, and gains 1-u, where u is the share that is live.
// What is young and half dead soon is more so; what is old stays as it is. CostBenefit, after Rosenblum and Ousterhout, takes
// the segment with the most free space for the cost, weighted by its age; Greedy, for comparison, the one with the least that is live.
// Survivors go to segments of their own, so what is cold comes to lie with what is cold.
//
// # When
//
// A container that is bounded keeps some segments free: fewer, and the cleaner works, in slices of less than a megabyte between
// which it rests as long as it worked; fewer still, and it does not rest, while the volume lets the log take segments more slowly
// (aodi, space.go). One that only the file system bounds is kept at least half live. Dead segments come back with a checkpoint,
// so the cleaner writes one when enough of them have come together.
//
// # Contract
//
// Start runs one goroutine, runClean, until Close, which comes before the volume's. Run cleans by hand, beside it.
package gc

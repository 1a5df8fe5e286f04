// Package baseline is the remote mirroring that the paper compares CAWRM with, built so that it is correct: the
// measure of the benchmark, not a part of the product.
//
//	traditional   Mirror over InPlace    ---link--->   Backup over InPlace, with a journal
//	loose         Mirror over aodi       ---link--->   Backup over aodi, which is a log already
//
// # The remote module
//
// A Mirror stands in the write path of a volume. A write is intercepted: it goes to the local volume and a clone of it into
// the remote queue, which is FIFO and bounded; when it is full the writer waits. runSend takes the queue in batches
// to the backup, which commits each atomically, and runAcks hears of it.
//
//	write --> in the hash table --> clone into the queue, else bit set --> local volume --> out of the table
//	queue --> runSend --> [ batch ] --> Backup: journal, sync, in place --> ack
//
// While the link is down nothing is queued: the incremental bitmap marks the chunks that were written, and those that were
// queued or not acknowledged. When it is back, runResync goes over the volume from its start and copies what is marked. Its
// position pos parts the volume, and a write is one of three cases (III.C of the paper), chunk by chunk:
//
//	i)   before pos:   cloned into the queue, behind the copy of its chunk
//	ii)  at pos:       runResync waits until it is written locally and its bit is set, and copies then
//	iii) after pos:    in the hash table while it is under way, so that runResync finds it there when it comes by; its
//	                   bit is set when it is written
//
// So pos = 0 means that the link is down, and pos = the volume's end that all is replicated. Initial synchronisation is a
// resync with every bit set: a volume in place has no idea which of its blocks hold something.
//
// # Invariants
//
//	B1  a chunk in which source and mirror may differ is in the queue, not acknowledged, in the hash table, or marked
//	B2  two writes of one chunk are never under way at the same time, so the queue has them in the local volume's order
//	B3  while pos = end, and since all that the last resync queued is acknowledged, the mirror is a prefix of the writes
//
// B3 fails during every resync: chunks arrive in the order of the disk. That is what CAWRM does away with.
//
// The bitmap is in memory: after a restart of the source all is copied.
package baseline

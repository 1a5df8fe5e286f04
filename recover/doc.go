// Package recovery goes from bytes to state: it finds the newest checkpoint of a container, rolls the log
// forward from there, checks a closed container, shows a container to people, and derives again what is damaged.
//
// It stands below the volume and never imports it. Newest, Roll and Check only read; what Roll finds is applied by
// the volume (package aodi) through the same code that applies live writes. Repair and Rescue (repair.go) do not use
// the volume's maps either: they work on an overlay in memory, which only Repair puts on the disk, and only after
// Check has found it better. Import it as
//
//	recovery "cawrm/recover"
//
// since a package called recover would hide the builtin.
//
// # What follows what
//
// The log after a checkpoint is the longest chain of batches in which each one
//
//	R1  stands where the one before it ends, or at the start of that one's next segment when fewer than two
//	    chunks are left for batches in the segment,
//	R2  has the next sequence number, the container's tag and the checkpoint's incarnation,
//	R3  names the checksum of the header before it,
//	R4  has data that match the checksums in its entries.
//
// A batch that fails any of them was not completely written when the crash came, and since batches may
// reach the disk in any order, so may have been all after it: none of them was part of an acknowledged flush,
// because a flush waits for every batch before it. R2 and R3 keep out what an earlier life of the container
// wrote to the same place. A batch that follows in all but its incarnation, which is newer, was written after
// a newer checkpoint than the one at hand had become durable: Roll then refuses (ErrLostCheckpoint).
//
// Of the chain, the records up to the last batch with the commit flag are shown. On a source that is every
// batch; on a mirror it ends an epoch, so a mirror comes up at its last whole epoch.
//
// # What a check compares
//
// Check reads a container with nothing but package format's description in hand, so it is a second opinion
// on what the volume wrote. Heads are the open segments that the checkpoint names: of the log, of pages, of what cleaning moves, reserved the ones that it
// says come next. A referenced chunk is one that the forward map, that of a jump epoch, a snapshot, the segment tree or the
// checkpoint itself leads to.
//
// The checkpoint
//
//	C1   the newest one, n, is in chunk 1 + n%2; the other chunk holds an older one, or a torn or no one
//	C2   its heads and reserved segments are distinct, and heads that hold something are below its number of
//	     segments, with their place within the segment; the trees are high enough; floors <= position; the container is within its
//	     capacity; without identity it has no content
//	C3   the catalog matches its checksum and decodes; lineages start one after the other, and there
//	     is one unless the container has no identity or was never opened; sync_ptr <= durable_ptr for mirrors; snapshots are at or below the position
//
// The trees
//
//	C4   each page matches the checksum in the reference that leads to it
//	C5   each reference leads to a chunk of a segment below the number of segments, not to a summary
//	C6   that segment is not free, and holds data for the map's leaves and pages for all others
//	C7   no chunk has two references, but from the same place of two snapshots
//	C8   nothing is mapped beyond the logical size, no row is beyond the number of segments
//
// The segment table
//
//	C9   a row's state and kind exist, and a free row is zero
//	C10  heads are open (free while empty), reserved ones free or open and without live chunks, and no other log or page segment
//	     is open
//	C11  a row's live count is the number of referenced chunks of the segment
//	C12  the checkpoint's count of mapped chunks is the number of references that are not zero
//	C13  the checkpoint's count of free segments is the number of free rows, and its count of live data that of the rows
//
// The inverse map
//
//	C14  a sealed segment has a valid summary that names the segment, the container and the row's kind
//	C15  batches stand one behind the other from chunk 0 on, up to the head in an open segment; each batch of
//	     the log has the sequence, the checksum and the position that follow from the one before; a cold batch names the checksum of the one before
//	C16  a summary says what the headers of the segment's batches say
//	C17  births: in a log batch in [first, end) and, but in a jump epoch, strictly growing; in a segment below the maximum of the
//	     row and of the summary, which are at most the position; a cold batch's in [first, end), below the maximum of the row
//	C18  the entry of a referenced chunk names the place in the tree that refers to it, and its checksum
//	C19  a mapped chunk's birth < position; a page's birth <= checkpoint sequence
//	C20  the data of a mapped chunk match the checksum in its entry (not looked at by a quick check)
//
// The log
//
//	C21  the batch before the checkpoint's place in the log has the sequence, checksum, end and count of
//	     logged chunks that the checkpoint says come before
//	C22  the log rolls forward from there (R1 to R4), within the logical size, into segments that the table has
//	     reserved or free; after a clean close a source has nothing to
//	     roll
//
// Counts (C11, C12) are not compared when a page was not read, because it is damaged or out of
// place: then nobody knows them.
package recovery

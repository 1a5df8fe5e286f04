// Package cawrm keeps mirrors of log-structured volumes: copy-after-write remote mirroring.
//
// A volume's log holds every write in order, so a mirror is only a pointer into it. One loop a mirror ships
// what is durable beyond the pointer; initial sync, live replication and resume after a lost link are that same
// loop, and the write path knows nothing of it.
//
//	position   0 ............................................................>
//	source     [ log ................. sync_ptr ...... durable_ptr ... end_ptr )
//	                                      |  in flight  |  never shipped  |
//	peer       [ committed cut .......... )[ staged     )
//
// A mirror that is far behind (ship.go: farBehind), or below history_floor, where the log is not complete any more, is
// brought up by a jump epoch: runRead opens a Cut of the volume and ships each chunk that the mirror lacks once, as of
// the cut's end, and what was discarded; then it reads the log on from there. The peer's volume takes it into a coming map
// and shows it when it is whole; until then sync_ptr stays. WELCOME says how far an interrupted one has got, and it goes on there.
//
// Where a snapshot of the source stands, an epoch ends, and the mirror makes one too before anything above is shipped (carry.go).
//
//	source                                                peer
//	  runSync     dials, says HELLO, backs off              runAccept, runConn   HELLO, checks, WELCOME
//	  runRead     log or cut -> epoch buffers               runReceive   frames -> Stage
//	  runPack     epoch buffers -> frames
//	  runSend     frames  ----------> RECORDS, BEAT ----->  runCommit    Commit: one fdatasync for all that is staged
//	  runReceive  sync_ptr                <-------  ACK     runAnswer    ACK, BEAT
//
// # Invariants
//
//	I1  sync_ptr <= durable_ptr <= end_ptr at the source, and what is shipped is below durable_ptr
//	I2  the mirror's position is the end of an epoch, and the mirror's content is the source's at that position
//	I3  sync_ptr at the source <= the mirror's position: the peer acknowledges only what it has committed
//	I4  sync_ptr never goes back within a session; between sessions the peer is the authority
//	I5  bytes on the wire in flight < Window + one epoch, not counting a jump epoch's before its end: those only the link holds back
//	I6  at most one source feeds a mirror at a time
//	I7  a snapshot of the source that lies between a mirror's first and present position was told to the mirror, durably here
//
// I1 is why a crash of the source can never leave the mirror ahead of it. I2 needs no bookkeeping here: an epoch, also one
// that jumps, is staged invisibly and shown as a whole after it is durable, so either side may die at any instruction.
//
// # Who may call what
//
// Methods of Mirror and Peer may be called from any goroutine. Close them before their volumes. Each Mirror owns
// runSync; each of its sessions owns runRead, runPack and runSend, and runs runReceive itself; all end with Close. Each Peer
// owns one runAccept a listener and one runConn a connection; a connection that feeds a volume (a feed) owns
// runCommit and runAnswer, and runs runReceive itself.
//
// Locks: target.roles, which is held while the role changes, also over the network, before all others; Peer.mu before link.mu and visitors.mu; Source.change before Mirror.remembering before Mirror.mu, the first two also over
// calls of the volume, which itself may ask for Mirror.mu while it goes over its snapshots. Every other one (target.mu, feed.mu, shipment.mu, Source.mu) is taken alone. None is held across the network
// or a commit.
//
// # What goes on the wire
//
// A chunk of zeroes, or one that was sent lately (wire: the window), is only named; of one that is much like what was sent of its
// place lately, the difference goes; the rest is compressed with zstd, frame by frame, the differences with it. From the level "default" on,
// where the link is the limit, a frame also refers to chunks that the mirror holds, wherever they are, and which look like what is to be
// sent: they are the dictionary. Which these are the source knows from what it has sent in this life (refer.go, wire: Known), in at most some 80 MiB a mirror,
// for the last 2 GiB of chunks; their content it reads from its volume, from the newest snapshot, or cut of the history, at or below sync_ptr,
// or from where it stood when it was replaced, if it stands there still.
// A reference that does not hold at the mirror is found by a digest before anything is made of it, and ends the session: for an hour the mirror is told
// everything in full.
// How hard it is tried follows from whether the link or the processors are short: adapt.go has the rule. Data that does not
// shrink goes as it is, and costs a sample of each frame. Status says bytes before (DataBytes) and after (SentBytes).
//
// With a limit (Settings: limit, burst, schedule) runSend asks a token bucket before each piece of a tenth of a second, so that a
// change of the settings, or the time of day, is obeyed within that.
//
// # Loose targets
//
// A mirror whose URL is nbd://... is a plain NBD server: loose.go has its invariants, L1 to L3. I2 and I3 hold for it only as L3 says.
//
// # One source at a time
//
// A valid HELLO from the container that already feeds the volume means that the old connection is dead and only
// this side has not noticed: the old one is closed, its whole epochs are committed, what was staged beyond is
// forgotten, and then the new one is welcomed. Another container is refused as long as the first one is heard.
//
// # Strangers
//
// With a Trust both sides prove who they are before a byte of this protocol is read, by TLS 1.3: trust.go. Without one, whoever
// reaches the port and knows the names and ids may feed a mirror. What a stranger can cost is bounded in visitors.go:
// 64 connections that feed nothing, of which the oldest of the busiest address goes for a new one; one that waits to
// replace a feed; an epoch of so many records, unless it jumps, since such a one is not kept in memory. No length that a stranger
// gives allocates anything: a HELLO has at most 64 KiB, RECORDS are not read before one has passed. What arrives and is
// not a whole epoch is never shown.
//
// # Units
//
// Status.RateBps is bits per second, as "bps" is in networking: 8 times the data bytes that the mirror acknowledged
// in the last five seconds, a second. All sizes are bytes. Lag is measured against end_ptr.
//
// # Roles
//
// Who is the primary is the volume's, and changes by Promote, Demote, Switchover (role.go, handover.go). A primary that meets
// another one (meet.go, admit.go) is in one of two positions. If the other has this one's lineage and more, it was promoted in its
// place; and if nobody has written here since the volume was opened, this one steps down, and is fed over the connection that is there
// (lead.go). Else both say that there are two writable heads, until that container is met as a mirror (conflict.go), and a person decides. A mirror follows a source that has what it
// has, or that has succeeded the head which it stands on, or, told so by hand, any; what only it has is a snapshot before the first
// record of the source comes.
//
// Without TLS, whoever reaches the port and knows the volume can therefore also be fed, and can make a returning primary step down, by saying
// that it has succeeded it. See Strangers.
//
// Absences: no election, no quorum, no fencing of clients elsewhere.
package cawrm

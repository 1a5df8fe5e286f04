// Package aodi is the volume: an append-only log of chunks with a forward and an inverse map, after the AoDI
// volume of the CAWRM paper (section IV.A).
//
// # Flow
//
//	write   WriteAt -> open batch + forward map (write.go, mapping.go) -> queue -> runAppend -> disk (append.go)
//	flush   close the batch, wait until all before is written, one shared fdatasync (durable.go)
//	read    forward map -> batch still in memory, or disk; verified (read.go)
//	mirror  out: ReadLog (logreader.go), or OpenCut, each chunk once (cut.go)
//	        in: Stage, Commit (epoch.go); a jump epoch goes into the coming map, which then becomes main (jump.go, head.go)
//	map     radix tree of pages, in memory when newer than the checkpoint (tree.go, pages.go) -> Checkpoint (checkpoint.go)
//	space   dead segment -> freed by a checkpoint (freeze.go) -> used again, or punched when the volume rests (reclaim.go)
//	        half-dead segment -> Relocate, to the cold head -> dead (cold.go); who waits for space, and how long (space.go)
//	snapshot a checkpoint's root is kept (snapshots.go), read (view.go), and deleted leaf by leaf (reap.go)
//	clone    a volume of its own over a snapshot of another one (clone.go)
//	history  snapshots that nobody named, and the log behind them (history.go)
//	open    newest checkpoint + roll-forward (package recover) applied by the code of live writes (open.go)
//
// # Positions
//
//	V1  durable_ptr <= end_ptr
//	V2  the forward map is the result of exactly the records below end_ptr
//	V3  a checkpoint at P is valid only when the log is durable up to P
//	V4  a physical chunk that a durable checkpoint, a cut, or the map refers to is never overwritten,
//	    but with the same content where it was found damaged (Mend)
//	V5  all records from history_floor on are in the log
//
// # Contract
//
// All methods may be called from any goroutine unless they say otherwise. WriteAt returns when its records are
// accepted, not when they are on the disk; Flush makes them durable. A crash leaves a prefix of the accepted
// records that holds at least all that was flushed.
//
// # Locks
//
// mu (the log's head) before mapMu (the maps) before those of pages.go, ready.go, durable.go. No lock is held
// over a sync or over writes; mapMu can be held over the first read of a map page.
//
// # Goroutines
//
// runAppend (3), runDurable, runReady, runCheckpoint, runReaper; started by Open, ended by Close.
//
// # Absences
//
// No mirroring state: a mirror only reads the log, or a cut. No read cache: the kernel's page cache is it. No policy of cleaning:
// which segments, and when, is for whoever calls Relocate.
package aodi

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cawrm/aodi/disk"
	"cawrm/aodi/format"

	"github.com/edsrzf/mmap-go"
)

// Position numbers a record; see format.Position.
type Position = format.Position

// ErrWouldBlock is returned by TryReadAt and TryWriteAt.
var ErrWouldBlock = disk.ErrWouldBlock

// ErrClosed is returned by a volume that was closed.
var ErrClosed = errors.New("the volume is closed")

// Role tells who writes to a volume.
type Role string

// A primary takes writes from clients, a mirror takes epochs from its source.
const (
	RolePrimary Role = "primary"
	RoleMirror  Role = "mirror"
)

const noSegment = ^uint32(0)

// Volume is an open container.
type Volume struct {
	d     disk.Disk
	geo   format.Geometry
	super format.Super
	tag   uint64
	opt   Options
	log   *slog.Logger
	now   func() time.Time

	mirror      atomic.Bool // the role; changes under mu and mapMu, see role.go
	yields      atomic.Bool // a mirror may leave its own branch for any other
	incarnation uint32      // fixed while open, like the next

	capacity atomic.Int64 // bound of the container, 0: none; changes under mu and mapMu, see capacity.go
	promised int64        // the bound that checkpoints say, which may be more; guarded by mapMu

	mu           sync.Mutex // the head of the log
	room         *sync.Cond // on mu: a buffer was written, a segment is ready, the map shrank
	line         line       // of the writes that wait for it
	batch        *batch     // open; nil when the next record opens one
	spare        []*batch
	buffers      mmap.MMap       // the memory of all batches
	head         format.LogPlace // where the next batch goes, and what it follows
	slots        []format.Entry  // summary of the head's segment so far
	logEnd       Position        // position of the next record that is appended
	logged       uint64          // data chunks appended in the volume's life
	loggedAtOpen uint64
	ticket       uint64        // of the last write that was queued
	restart      bool          // the next batch voids what was staged before it
	void         bool          // what stands before the head was given up, and nothing was written since
	staged       []stagedBatch // a mirror's batches that are not shown yet
	stagedSize   int64         // logical, that these bring; less than the volume's: they bring none
	commit       turn          // one Commit at a time
	clean        turn          // one Relocate at a time; after commit, before ckpt.run
	relief       relief
	taken        time.Time // when the log took its last segment
	queue        chan write

	mapMu        sync.RWMutex
	arena        *arena
	pages        *pageReader
	main         *head       // the forward map
	coming       *coming     // of a mirror: the jump epoch that is under way, or nil
	snaps        []*snapshot // oldest first
	base         *View       // of a clone: where the chunks are that it does not have; fixed
	segs         segmentTable
	resident     []*batch // batches in memory, oldest first
	shownSegment uint32   // the segment of the newest records in the map
	shownPlace   format.LogPlace
	shownLogged  uint64
	size         atomic.Int64
	shownEnd     atomic.Uint64
	cold         coldHead
	still        int // who lets nothing be moved now
	catalog      format.Catalog
	catalogParts []format.CatalogPart // where the newest checkpoint has it
	replaced     replaced
	grownTo      Position // behind the record of the size; 0: not of this life
	hasIdentity  bool
	volume       format.UUID

	ckpt            checkpointer
	ready           *readiness
	reaper          reaper
	syncer          syncer
	dur             *durability
	flushes         atomic.Int64  // since the head's segment was opened
	sinceCheckpoint atomic.Int64  // bytes appended
	givenUp         atomic.Bool   // chunks were discarded, or a snapshot deleted, since it rested
	moved           atomic.Uint64 // data chunks that cleaning wrote, since it was opened
	corrupt         atomic.Uint64
	mended          atomic.Uint64
	failed          atomic.Pointer[error]
	torn            bool // an epoch is in the map in part, since the disk failed: nothing is read any more; guarded by mapMu
	closing         chan struct{}
	closeOnce       sync.Once
	wg              sync.WaitGroup
	recovery        string
	closedInOrder   bool // when it was opened
	opened          time.Time
	passed          []uint32      // free segments that recovery came through: held until the first checkpoint
	floor           atomic.Uint64 // history_floor and trim_floor: the log is complete from here on
	jumped          Position      // the end of the last jump epoch that was shown in this life; guarded by mapMu
	jumpEnd         Position      // of the jump epoch that is being staged, 0 when none is; guarded by mu
	held            bool          // writes wait: the role changes, or is about to; guarded by mu
	leftover        bool          // a rollback could not be given up yet: no write is taken; guarded by mu
	turn            uint64        // Info's; guarded by mapMu
	dropped         bool          // a coming map was given up, and the newest checkpoint may have it still; guarded by mapMu
	highest         Position      // beyond all that was ever staged in this life; guarded by mu
	openedAt        Position      // end_ptr when it was opened
	voids           []voidSegment // guarded by mu
}

func (v *Volume) shown() Position     { return Position(v.shownEnd.Load()) }
func (v *Volume) setShown(p Position) { v.shownEnd.Store(uint64(p)) }

// Size is the logical size in bytes; 0 for an empty mirror without a source.
func (v *Volume) Size() int64 { return v.size.Load() }

// Role tells who writes to the volume.
func (v *Volume) Role() Role {
	if v.mirror.Load() {
		return RoleMirror
	}
	return RolePrimary
}

// fail makes an error final: writes and flushes get it until the volume is opened again, reads go on.
func (v *Volume) fail(err error) error {
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	wrapped := fmt.Errorf("%s: the volume takes no more writes until it is opened again: %w: %w", v.d.Name(), err, syscall.EIO)
	if v.failed.CompareAndSwap(nil, &wrapped) {
		v.log.Error("volume failed", "err", err)
		v.dur.fail(wrapped)
		// Wake who waits for room, without mu: the caller may hold it.
		go func() { v.mu.Lock(); defer v.mu.Unlock(); v.room.Broadcast() }()
	}
	return *v.failed.Load()
}

func (v *Volume) failure() error {
	if e := v.failed.Load(); e != nil {
		return *e
	}
	if v.isClosed() {
		return ErrClosed
	}
	return nil
}

func (v *Volume) isClosed() bool {
	select {
	case <-v.closing:
		return true
	default:
		return false
	}
}

// throttle waits while the map has more unwritten pages than Options.MapMemory allows. Errors: the checkpoint that would
// write them cannot, because the disk is full.
func (v *Volume) throttle() error {
	if v.mapMemory() > v.opt.MapMemory/2 {
		v.ckpt.request()
	}
	if !v.mapTooLarge() {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.mapTooLarge() && v.failure() == nil {
		v.ckpt.err = nil
		v.ckpt.request()
		v.room.Wait()
		if err := v.ckpt.err; err != nil {
			return err
		}
	}
	return v.failure()
}

func (v *Volume) mapMemory() int64  { return v.arena.used.Load() * chunkSize }
func (v *Volume) mapTooLarge() bool { return v.mapMemory() > v.opt.MapMemory }

// Close makes everything durable, writes a checkpoint and releases the container. Requests that are under
// way must have ended. It may be called twice.
func (v *Volume) Close() error {
	var err error
	v.closeOnce.Do(func() { err = v.close() })
	return err
}

func (v *Volume) close() error {
	v.ckpt.stop(v)
	v.relief.stop(v)
	var err error
	if v.failure() == nil {
		err = v.flush() // also when the checkpoint finds no space
		if err == nil {
			err = v.Unstage()
		}
		if err == nil {
			_, err = v.Commit() // whole epochs that nobody waited for
		}
		if err == nil {
			err = v.checkpoint(format.FlagClean)
		}
	}
	close(v.closing)
	v.dur.fail(ErrClosed) // nothing is written any more: who waits for it must not wait for ever
	v.mu.Lock()
	close(v.queue)
	v.room.Broadcast()
	v.mu.Unlock()
	v.wg.Wait()
	v.release()
	if v.base != nil {
		v.base.Close()
	}
	if f := v.failed.Load(); f != nil && err == nil {
		err = *f
	}
	return errors.Join(err, v.d.Close())
}

func (v *Volume) release() {
	_ = v.buffers.Unmap()
	v.pages.close()
	v.arena.close()
}

// Pointers returns end_ptr and durable_ptr.
func (v *Volume) Pointers() (end, durable Position) {
	durable = v.dur.position()
	end = v.shown()
	return end, min(end, durable)
}

// Info is who a volume is.
type Info struct {
	Container, Volume format.UUID
	Role              Role
	HasIdentity       bool // false only for an empty mirror that no source has reached yet
	Size              int64
	GrownTo           Position // Size is durable when durable_ptr is there
	Lineage           []format.Lineage
	Turn              uint64 // how often the lineage has changed in this life: one that is back is not the same history
	Base              string // of a clone: the snapshot that it is made of
}

// Info returns who the volume is.
func (v *Volume) Info() Info {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	i := Info{Container: v.super.Container, Volume: v.volume, Role: v.Role(), HasIdentity: v.hasIdentity,
		Size: v.Size(), GrownTo: v.grownTo, Lineage: append([]format.Lineage(nil), v.catalog.Lineage...), Turn: v.turn}
	if v.base != nil {
		i.Base = v.base.name
	}
	return i
}

// Status is what a person wants to know of a volume.
type Status struct {
	Info
	Path           string
	EndPtr         Position
	DurablePtr     Position
	UsedBytes      int64 // logical chunks that are not holes
	PhysicalBytes  int64 // what the container holds on its disk
	Direct         bool  // O_DIRECT in use
	Failed         error // why the volume takes no more writes; nil when healthy
	ChecksumErrors uint64
	Mended         uint64 // chunks that did not match and were written anew with what another site had
	Snapshots      int    // that can be opened
	Deleting       int    // that were deleted and still take space
	Recovery       string // what opening found, one line
	ClosedInOrder  bool   // it found that; else writes that were accepted before and not flushed may be gone
}

// Status returns the state at this moment.
func (v *Volume) Status() Status {
	s := Status{Info: v.Info(), Path: v.d.Name(), PhysicalBytes: v.d.Allocated(), ChecksumErrors: v.corrupt.Load(), Mended: v.mended.Load(), Recovery: v.recovery, ClosedInOrder: v.closedInOrder}
	s.EndPtr, s.DurablePtr = v.Pointers()
	s.Direct, _ = v.d.Direct()
	if f := v.failed.Load(); f != nil {
		s.Failed = *f
	}
	v.mapMu.RLock()
	s.UsedBytes = v.main.mapped * chunkSize
	for _, snap := range v.snaps {
		if snap.deleting {
			s.Deleting++
		} else if !snap.cut {
			s.Snapshots++
		}
	}
	v.mapMu.RUnlock()
	return s
}

// Mirrors returns what is remembered of mirrors. SyncPtr is a hint: the peer is the authority.
func (v *Volume) Mirrors() []format.Mirror {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	return append([]format.Mirror(nil), v.catalog.Mirrors...)
}

// RememberMirror adds or replaces a mirror by its ID; the next checkpoint makes it durable.
func (v *Volume) RememberMirror(m format.Mirror) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	for i := range v.catalog.Mirrors {
		if v.catalog.Mirrors[i].ID == m.ID {
			v.catalog.Mirrors[i] = m
			return
		}
	}
	v.catalog.Mirrors = append(v.catalog.Mirrors, m)
}

// ForgetMirror removes a mirror by its ID.
func (v *Volume) ForgetMirror(id string) {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	kept := v.catalog.Mirrors[:0]
	for _, m := range v.catalog.Mirrors {
		if m.ID != id {
			kept = append(kept, m)
		}
	}
	v.catalog.Mirrors = kept
}

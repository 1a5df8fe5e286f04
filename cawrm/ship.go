package cawrm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm/wire"
)

const (
	epochBytes = 1 << 20 // data in an epoch, about: large reads of the log, few frames
	epochAhead = 3       // epochs between the log and the wire: one read, one packed, one sent

	jumpFirst = epochBytes      // a mirror that lacks more when the link comes up is brought up by a jump epoch
	jumpLag   = 32 * epochBytes // and so is one that falls behind so far
)

// epoch is a buffer: records as the log gives them, and their frame.
type epoch struct {
	batch  aodi.LogBatch
	frame  wire.Frame
	level  wire.Level // of the frame's compression
	commit bool       // it ends here; a jump epoch comes in many buffers
	check  []byte     // no epoch but a CHECK, in its place of the stream
	logged int64      // what the log took in the range that it spans, bytes; only where it ends
}

// shipment is what a session does after the handshake.
//
//	runRead --read--> runPack --out--> runSend --RECORDS, SNAPSHOT, BEAT--> peer
//	   ^ '------------------word----------^ |
//	   |--free------------------------------'  ^--acked-- runReceive <--ACK, KEPT, BEAT
//	   '--moved, kept---------------------------------------'
type shipment struct {
	m     *Mirror
	l     *link
	log   *aodi.LogReader
	from  aodi.CutFrom // where the mirror stood when the link came up
	read  chan *epoch
	turn  uint64 // of the lineage that HELLO has said
	out   chan *epoch
	acked chan struct{} // an acknowledgement has made room in the window
	word  chan []byte   // a frame for runSend to say
	moved chan struct{} // sync_ptr has moved
	kept  chan wire.Kept

	// runRead's
	carries bool      // the peer keeps snapshots
	cut     *aodi.Cut // of the jump epoch that is being read
	first   bool      // nothing was read yet
	behind  bool      // the mirror was far behind when the link came up, and is still
	check   *check    // the log is read up to its end first
	loose   bool      // to a plain NBD server, which shows what it has got of a cut: only where there is no other way
	logged  int64     // what the volume took before log's position, bytes
	free    chan *epoch

	// runPack's: the bytes of the last frame, and of its data before packing
	lastWire, lastData int64

	mu      sync.Mutex
	err     error    // why runRead can go on no more
	broken  error    // why nothing more can be sent
	asked   bool     // the peer was told of a snapshot and has not answered
	handing *handing // HANDOVER was said
}

// ship ships until the link ends or this side can go on no more.
func (m *Mirror) ship(ctx context.Context, l *link, r *wire.Reader, log *aodi.LogReader, from aodi.CutFrom, turn uint64) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &shipment{m: m, l: l, log: log, from: from, turn: turn, first: true, logged: m.markBytes(), free: make(chan *epoch, epochAhead), read: make(chan *epoch), out: make(chan *epoch),
		acked: make(chan struct{}, 1), word: make(chan []byte), moved: make(chan struct{}, 1), kept: make(chan wire.Kept, 1),
		behind: true, carries: m.taken&wire.CapSnapshots != 0}
	for range epochAhead {
		s.free <- &epoch{}
	}
	defer s.closeCut()
	defer func() { s.log.Close() }()
	defer m.dropCheck()
	var wg sync.WaitGroup
	wg.Go(func() { s.runRead(ctx) })
	wg.Go(func() { s.runPack(ctx) })
	wg.Go(func() { s.runSend(ctx) })
	progress, err = s.runReceive(r)
	cancel()
	err = s.cause(err)
	if frame := farewell(err); frame != nil {
		_ = l.SetWriteDeadline(time.Now().Add(drainTime)) // runSend may finish its frame; then there is room for a word
		wg.Wait()
		if s.broken == nil {
			l.refuse(frame)
		}
	}
	l.Close()
	wg.Wait()
	return progress, err
}

// farewell is what the peer should know of an end that this side decided; nil when there is nothing to say.
func farewell(err error) []byte {
	var r *refusal
	switch {
	case errors.Is(err, errTold):
		return nil
	case errors.As(err, &r):
		return wire.AppendRefuse(nil, r.code, r.text)
	case errors.Is(err, errLocal):
		return wire.AppendRefuse(nil, wire.CodeFailed, err.Error())
	}
	return nil
}

// cause chooses among the errors of a session the one that explains it: what the peer said, what this side
// ran into by itself, what was heard, and only then that a write failed.
func (s *shipment) cause(received error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(received, errTold):
		return received
	case s.err != nil:
		return s.err
	case s.broken != nil && errors.Is(received, os.ErrDeadlineExceeded):
		return s.broken
	}
	return received
}

// runRead reads the log ahead of the wire. It never reads at or beyond durable_ptr (I1): the source may still
// lose that in a crash, and a mirror that held it would have diverged.
func (s *shipment) runRead(ctx context.Context) {
	for {
		var ep *epoch
		select {
		case ep = <-s.free:
		case <-ctx.Done():
			return
		}
		if err := s.readEpoch(ctx, ep); err != nil {
			if ctx.Err() == nil {
				s.giveUp(err)
			}
			return
		}
		select {
		case s.read <- ep:
		case <-ctx.Done():
			return
		}
	}
}

// giveUp ends the session with a reason of this side.
func (s *shipment) giveUp(err error) {
	if err != errAgain {
		err = fmt.Errorf("%w: %w", errLocal, err)
	}
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.l.endReads(0)
}

// readEpoch waits for durable records and reads some into ep. Any position is a cut of the source, so the
// epoch may end wherever the read did, but not beyond a snapshot. With a large lag, or where the log is not complete any more,
// it goes on with a jump epoch: each chunk once, as of a cut that lies ahead.
func (s *shipment) readEpoch(ctx context.Context, ep *epoch) error {
	ep.check = nil // it was another frame's before
	for {
		if s.cut != nil {
			return s.readCut(ep)
		}
		at := s.log.Position()
		_, durable := s.m.v.Pointers() // before the snapshots: one that is made meanwhile lies at or above it
		stop := s.next(at)
		if stop != nil && stop.Position == at {
			if err := s.carry(ctx, stop.Name, at); err != nil {
				return err
			}
			continue
		}
		if done, err := s.readCheck(at, stop, ep); done || err != nil {
			return err
		}
		if s.check == nil && s.farBehind(at, stop) {
			if err := s.openCut(at, stop); err != nil {
				return err
			}
			if s.cut != nil || stop != nil { // else nothing is durable beyond
				continue
			}
		}
		if stop != nil {
			durable = min(durable, stop.Position)
		}
		if s.check != nil {
			durable = min(durable, s.check.end)
		}
		if at >= durable {
			if err := s.await(ctx, at); err != nil {
				return err
			}
			continue
		}
		err := s.log.Next(durable, epochBytes, &ep.batch)
		if err == io.EOF || errors.Is(err, aodi.ErrHistoryGone) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the log at %d: %w", at, err)
		}
		b := &ep.batch
		if b.First < at || b.End <= b.First || b.End > durable { // I1
			return fmt.Errorf("the log gave records [%d, %d) from %d on with durable_ptr %d", b.First, b.End, at, durable)
		}
		if err := s.sameHistory(); err != nil {
			return err
		}
		s.first, s.logged = false, s.logged+int64(len(b.Data))
		ep.commit, ep.logged = true, int64(len(b.Data))
		return nil
	}
}

// await waits until there is something to ship, or to tell, at a position or above, or a check is wanted.
func (s *shipment) await(ctx context.Context, at aodi.Position) error {
	wait, nudge := context.WithCancel(ctx)
	defer nudge()
	s.m.mu.Lock()
	s.m.nudge = nudge
	if s.m.check != nil && s.m.check.open {
		nudge()
	}
	s.m.mu.Unlock()
	err := s.m.v.WaitDurable(wait, at, func() bool {
		stop := s.next(at)
		return stop != nil && stop.Position == at
	})
	if wait.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// readCheck begins a check that is wanted, when the log is being shipped, and asks for it once the log has come to its end.
func (s *shipment) readCheck(at aodi.Position, stop *aodi.SnapshotInfo, ep *epoch) (done bool, err error) {
	if s.loose {
		return false, nil
	}
	if s.check == nil && !s.farBehind(at, stop) {
		if s.check, err = s.m.takeCheck(); err != nil || s.check == nil {
			return false, err
		}
	}
	switch {
	case s.check == nil || at < s.check.end && at >= s.m.v.HistoryFloor():
		return false, nil
	case at < s.check.end:
		s.check = nil // there is no way to its end but a cut beyond it
		s.m.dropCheck()
		return false, nil
	}
	ep.batch.Entries, ep.batch.Data = ep.batch.Entries[:0], ep.batch.Data[:0]
	ep.check, err = wire.AppendCheck(nil, &wire.Check{Op: wire.CheckOpen, First: uint64(s.check.end)})
	s.check = nil
	return true, err
}

// sameHistory refuses to ship what was read if the lineage has changed since HELLO: the mirror must know it first. Also when it is
// the same again: a mirror that follows one source, another one and the first again has had records of both in between.
func (s *shipment) sameHistory() error {
	if s.m.v.Info().Turn != s.turn {
		return errAgain
	}
	return nil
}

// farBehind tells whether the mirror is to be brought up by a jump epoch, to the next snapshot or else to the present: one was
// begun, or the log is not complete any more, or there is so much of it that the same chunks are likely to be in it many times.
func (s *shipment) farBehind(at aodi.Position, stop *aodi.SnapshotInfo) bool {
	if s.loose {
		return s.first && s.behind || at < s.m.v.HistoryFloor()
	}
	lag, limit := s.m.v.EndMark().Bytes-s.logged, int64(jumpLag)
	if s.behind = s.behind && lag > jumpFirst; s.behind {
		limit = jumpFirst
	}
	if stop != nil {
		lag = stop.Logged - s.logged
	}
	return s.first && (s.from.Got != nil || s.from.Diverged) || lag > limit || at < s.m.v.HistoryFloor()
}

// openCut begins a jump epoch, unless there is nothing durable beyond at, or no such snapshot any more.
func (s *shipment) openCut(at aodi.Position, stop *aodi.SnapshotInfo) error {
	from := aodi.CutFrom{Position: at}
	if s.first {
		from = s.from // at its position
	}
	if stop != nil {
		from.Snapshot = stop.Name
	}
	cut, err := s.m.v.OpenCut(from)
	if errors.Is(err, aodi.ErrNoSnapshot) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open a cut for the records from %d on: %w", at, err)
	}
	if err := s.sameHistory(); err != nil {
		cut.Close()
		return err
	}
	if next := s.next(at); stop == nil && next != nil && next.Position < cut.End {
		cut.Close() // it was made since there was none: the jump would go over it
		return nil
	}
	s.first, s.behind = false, s.behind && stop != nil
	if cut.End <= at {
		cut.Close()
		return nil
	}
	s.cut = cut
	s.m.setJump(0)
	s.m.log.Info("jump epoch", "from", cut.From, "to", cut.End)
	return nil
}

// readCut reads more of the jump epoch into ep. The last buffer of it, which commits, has no records.
func (s *shipment) readCut(ep *epoch) error {
	err := s.cut.Next(epochBytes, &ep.batch)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the cut at %d: %w", s.cut.End, err)
	}
	s.m.setJump(s.cut.Progress())
	ep.commit, ep.logged = err == io.EOF, 0
	if ep.commit {
		ep.logged, s.logged = s.cut.Bytes-s.logged, s.cut.Bytes
		s.log.Close()
		if s.log, err = s.m.v.ReadLog(s.cut.End); err != nil {
			return err
		}
		s.closeCut()
	}
	return nil
}

func (s *shipment) closeCut() {
	if s.cut != nil {
		s.cut.Close()
		s.cut = nil
		s.m.setJump(-1)
	}
}

// runSend writes epochs as long as the window has room, and beats when it has nothing to say. It is the only
// goroutine that writes.
func (s *shipment) runSend(ctx context.Context) {
	beat := time.NewTimer(s.m.cfg.KeepAlive)
	defer beat.Stop()
	frame := wire.AppendBeat(nil)
	for ctx.Err() == nil { // asked before each write: ship may have given the last one a deadline
		out := s.out
		if !s.m.hasRoom() { // I5
			out = nil
		}
		var err error
		select {
		case ep := <-out:
			err = s.send(ctx, ep)
			s.free <- ep
		case frame := <-s.word:
			err = s.l.say(frame, s.m.cfg.ReadTimeout)
		case <-s.acked:
			continue
		case h := <-s.m.handing:
			s.setHanding(h)
			err = s.l.say(wire.AppendHandover(nil, h.end), s.m.cfg.ReadTimeout)
		case frame := <-s.m.checkOut:
			err = s.m.writev(ctx, s.l, net.Buffers{frame})
		case <-beat.C:
			err = s.l.say(frame, s.m.cfg.ReadTimeout)
		case <-ctx.Done():
			return
		}
		if err != nil {
			s.mu.Lock()
			s.broken = fmt.Errorf("send to %v: %w", s.l, err)
			s.mu.Unlock()
			s.l.endReads(drainTime) // time to hear why the peer hung up
			return
		}
		beat.Reset(s.m.cfg.KeepAlive)
	}
}

// send writes one epoch. It is in flight before its first byte is, so that no acknowledgement can come too early.
func (s *shipment) send(ctx context.Context, ep *epoch) error {
	if ep.check != nil {
		return s.m.writev(ctx, s.l, net.Buffers{ep.check})
	}
	s.m.launch(ep)
	bufs := net.Buffers{ep.frame.Head}
	if len(ep.frame.Data) > 0 {
		bufs = append(bufs, ep.frame.Data)
	}
	err := s.m.writev(ctx, s.l, bufs)
	if err == nil {
		s.m.traffic.shipped(ep)
	}
	return err
}

// runReceive hears the peer until the link ends.
func (s *shipment) runReceive(r *wire.Reader) (progress bool, err error) {
	for {
		t, err := r.Next(wire.Of(wire.TypeAck, wire.TypeKept, wire.TypeTaken, wire.TypeBeat, wire.TypeRefuse, wire.TypeSums))
		switch {
		case err == io.EOF:
			return progress, fmt.Errorf("%v: the peer hung up", s.l)
		case err != nil:
			return progress, fmt.Errorf("%v: %w", s.l, err)
		case t == wire.TypeRefuse:
			return progress, told(r)
		case t == wire.TypeSums:
			a, err := r.Check()
			if err == nil {
				err = s.m.heard(a)
			}
			if err != nil {
				return progress, fmt.Errorf("%v: %w", s.l, err)
			}
		case t == wire.TypeTaken:
			s.taken()
		case t == wire.TypeKept:
			if err := s.heard(r.Kept()); err != nil {
				return progress, err
			}
		case t == wire.TypeAck:
			moved, err := s.m.ack(r.Ack())
			if err != nil {
				return progress, err
			}
			if progress = progress || moved; moved {
				s.m.commits.Add(1)
				s.m.moved()
			}
			s.m.rememberSometimes()
			for _, c := range []chan struct{}{s.acked, s.moved} {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
	}
}

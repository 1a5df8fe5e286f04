package cawrm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/nbd"
	"cawrm/cawrm/wire"
)

// A loose target is a plain NBD server. It knows nothing of positions and takes nothing atomically, so:
//
//	L1  sync_ptr is this side's: it is stored with the lineage that it belongs to, and moves only when the server has flushed
//	    everything below it
//	L2  records that overlap are sent in the order of the log, the one when the other was answered; so whatever is sent again, from a
//	    sync_ptr that is too low, ends in the same content
//	L3  the target equals the source at sync_ptr after each flush, as long as the log is shipped in order. It does not while a
//	    cut is shipped (a first copy, or a gap below history_floor), nor, after the link was lost or this side has
//	    restarted, until sync_ptr has passed what may have been sent before; status says so
//
// A target of which nothing is known is zeroed first, since holes are not shipped.
type loose struct {
	filled bool           // the target has held everything below sync_ptr
	zeroed bool           // what is not filled was zeroed
	got    format.Reached // of cuts that were interrupted
	sent   aodi.Position  // the target may hold something of the records below it
	steady bool           // L3
}

// Status.Loose of a loose target.
const (
	LooseFilling   = "filling"   // its content is no point in time
	LooseFollowing = "following" // it is the source's at sync_ptr, after each flush
)

const (
	loosePiece   = 1 << 20  // bytes of one write at most
	looseZero    = 64 << 20 // and of one zeroing
	looseFlush   = 32 << 20 // bytes between two flushes
	looseEvery   = time.Second
	looseSilence = time.Minute // without an answer to anything: a server may sync a disk for long
	looseBuffers = 4
)

// recallLoose takes over what is remembered of the target, if it is of this URL and of this history.
func (m *Mirror) recallLoose(r format.Mirror) {
	m.syncPtr, m.loose = start(m.v), loose{}
	before, err := ParseURL(r.URL)
	_, durable := m.v.Pointers()
	lineage := m.v.Info().Lineage
	i := slices.IndexFunc(lineage, func(l format.Lineage) bool { return l.ID == r.Lineage })
	if err != nil || before.base() != m.target.base() || i < 0 {
		return
	}
	head := Head{lineage, durable}
	if r.SyncPtr < lineage[i].Start || r.SyncPtr > head.linkEnd(i) {
		return // of a branch of the history that was given up
	}
	m.syncPtr = r.SyncPtr
	m.loose = loose{filled: true, sent: durable}
}

// lineageAt is the id under which the records before p were written.
func (m *Mirror) lineageAt(p aodi.Position) (id format.UUID) {
	for _, l := range m.v.Info().Lineage {
		if l.Start <= p {
			id = l.ID
		}
	}
	return id
}

// looseConn counts and limits what is sent.
type looseConn struct {
	*link
	m   *Mirror
	ctx context.Context
}

func (c looseConn) Read(p []byte) (int, error) { return c.Conn.Read(p) }

func (c looseConn) Write(p []byte) (int, error) {
	if err := c.m.writev(c.ctx, c.link, net.Buffers{p}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// looseSession makes one connection to a loose target and ships over it until it ends.
func (m *Mirror) looseSession(ctx context.Context) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := m.openLoose(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	go func() { // a server that hangs up ends the wait for new records
		<-c.Ended()
		cancel()
	}()
	s := &looseShipment{m: m, c: c, ctx: ctx, flushed: time.Now()}
	progress, err = s.run()
	if over := c.Err(); over != nil && !errors.Is(over, net.ErrClosed) {
		err = over
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", m.target.base(), err)
	}
	return progress, err
}

func (m *Mirror) openLoose(ctx context.Context) (*nbd.Client, error) {
	if !m.v.Info().HasIdentity {
		return nil, errNoSource
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := m.dialLoose(dctx)
	if err != nil {
		return nil, err
	}
	unhang := context.AfterFunc(dctx, func() { conn.Close() }) // also of a server that says nothing
	l := newLink(conn, looseSilence, &m.sent)
	c, err := nbd.Open(looseConn{l, m, ctx}, m.target.Name)
	if !unhang() {
		err = errors.Join(err, fmt.Errorf("no answer within %v", dialTimeout))
	}
	switch {
	case errors.Is(err, nbd.ErrRefused):
		return nil, refusef(wire.CodeFailed, "%s: %v", m.target.base(), err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", m.target.base(), err)
	case c.Size() < m.v.Size():
		c.Close()
		return nil, m.tooSmall(c.Size(), m.v.Size())
	case !c.Can(nbd.FlagFlush):
		m.log.Warn("the NBD server cannot flush: what it has in memory a crash of it may lose")
	}
	return c, nil
}

func (m *Mirror) tooSmall(has, size int64) error {
	return refusef(wire.CodeOtherSize, "%s has %d bytes, the volume %d: the target must be at least as large; enlarge it", m.target.base(), has, size)
}

func (m *Mirror) dialLoose(ctx context.Context) (net.Conn, error) {
	if m.target.Socket != "" {
		return (&net.Dialer{}).DialContext(ctx, "unix", m.target.Socket)
	}
	return m.cfg.Dial(ctx, m.target.Addr)
}

// looseShipment is a session. One goroutine does everything; answers come through the client's channel.
type looseShipment struct {
	m       *Mirror
	c       *nbd.Client
	ctx     context.Context
	pending []*nbd.Request
	since   int64 // bytes since the last flush
	flushed time.Time
	reach   uint64 // of a cut: the chunks below it were applied
}

func (s *looseShipment) run() (progress bool, err error) {
	m := s.m
	m.mu.Lock()
	state, at := m.loose, m.syncPtr
	m.mu.Unlock()
	if !state.filled && !state.zeroed {
		if err := s.zeroAll(); err != nil {
			return false, err
		}
		state.zeroed = true
	}
	_, durable := m.v.Pointers()
	if state.sent == 0 {
		state.sent = durable
	}
	log, err := m.v.ReadLog(at)
	if err != nil {
		return false, fmt.Errorf("%w: read the log at %d: %w", errLocal, at, err)
	}
	if err := m.up(at, ""); err != nil {
		log.Close()
		return false, err
	}
	m.setLoose(func(l *loose) { *l = state; l.steady = state.filled && at >= state.sent })
	ship := &shipment{m: m, log: log, turn: m.v.Info().Turn, first: true, loose: true, logged: m.markBytes(), behind: !state.filled,
		from: aodi.CutFrom{Position: at, Got: slices.Clone(state.got), Fresh: !state.filled && state.got == nil}}
	defer func() { ship.closeCut(); ship.log.Close() }()
	var buffers [looseBuffers]epoch
	for i := 0; ; i = (i + 1) % looseBuffers {
		if err := s.takeAll(func(r *nbd.Request) bool { return r.Tag == i }); err != nil {
			return progress, err
		}
		ep := &buffers[i]
		if err := ship.readEpoch(s.ctx, ep); err != nil {
			return progress, fmt.Errorf("%w: %w", errLocal, err)
		}
		if err := s.apply(ep, i); err != nil {
			return progress, err
		}
		_, durable := m.v.Pointers()
		if caught := ep.commit && ep.batch.End >= durable; caught || s.since >= looseFlush || time.Since(s.flushed) >= looseEvery {
			if err := s.flush(ep); err != nil {
				return progress, err
			}
			progress = true
		}
	}
}

func (m *Mirror) setLoose(change func(*loose)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.loose)
}

// zeroAll makes a target of which nothing is known read as zeroes.
func (s *looseShipment) zeroAll() error {
	s.m.log.Info("the target is zeroed, since nothing is known of it", "bytes", s.m.v.Size())
	if err := s.zero(0, s.m.v.Size(), -1); err != nil {
		return err
	}
	return s.sync()
}

// apply sends the records of a buffer; what lies side by side goes in one request.
func (s *looseShipment) apply(ep *epoch, tag int) error {
	b := &ep.batch
	s.m.launch(ep)
	s.m.setLoose(func(l *loose) {
		if l.sent = max(l.sent, b.End); b.Jump {
			l.steady = false
		}
	})
	data, most := b.Data, min(loosePiece, s.c.MaxPayload())
	for i := 0; i < len(b.Entries); {
		e := &b.Entries[i]
		off := int64(e.LBA) * format.ChunkSize
		if size := off + int64(e.Count)*format.ChunkSize; e.Kind == format.KindSize && s.c.Size() < size {
			return s.m.tooSmall(s.c.Size(), size)
		} else if e.Kind == format.KindSize && b.Jump { // the end of a cut: what it has not, comes as discards
			i++
			continue
		}
		if e.Kind != format.KindData {
			if err := s.zero(off, int64(e.Count)*format.ChunkSize, tag); err != nil {
				return err
			}
			i++
			continue
		}
		n := 1
		for i+n < len(b.Entries) && (n+1)*format.ChunkSize <= most && b.Entries[i+n].Kind == format.KindData && b.Entries[i+n].LBA == e.LBA+uint64(n) {
			n++
		}
		size := n * format.ChunkSize
		if err := s.start(&nbd.Request{Command: nbd.Write, Offset: off, Length: uint32(size), Data: data[:size], Tag: tag}); err != nil {
			return err
		}
		if data, i = data[size:], i+n; b.Jump {
			s.reach = e.LBA + uint64(n)
		}
	}
	s.since += int64(len(b.Data))
	return nil
}

// zero makes a range read as zeroes, as a hole where the server can: that is more than a trim promises.
func (s *looseShipment) zero(off, n int64, tag int) error {
	step, r := int64(looseZero), nbd.Request{Command: nbd.WriteZeroes}
	if !s.c.Can(nbd.FlagWriteZeroes) {
		step = int64(min(loosePiece, s.c.MaxPayload()))
		r = nbd.Request{Command: nbd.Write, Data: make([]byte, min(step, n))}
	}
	for ; n > 0; off, n = off+step, n-step {
		part := r
		part.Offset, part.Length, part.Tag = off, uint32(min(step, n)), tag
		if part.Data != nil {
			part.Data = part.Data[:part.Length]
		}
		if err := s.start(&part); err != nil {
			return err
		}
	}
	return nil
}

// start sends a request, after those that it overlaps were answered (L2).
func (s *looseShipment) start(r *nbd.Request) error {
	overlaps := func(p *nbd.Request) bool {
		return p.Offset < r.Offset+int64(r.Length) && r.Offset < p.Offset+int64(p.Length)
	}
	if err := s.takeAll(overlaps); err != nil {
		return err
	}
	for len(s.pending) >= nbd.MaxPending {
		if err := s.take(); err != nil {
			return err
		}
	}
	s.pending = append(s.pending, r)
	return s.c.Start(r)
}

// takeAll takes answers until nothing that is meant is on its way.
func (s *looseShipment) takeAll(meant func(*nbd.Request) bool) error {
	for slices.ContainsFunc(s.pending, meant) {
		if err := s.take(); err != nil {
			return err
		}
	}
	return nil
}

// take waits for one answer.
func (s *looseShipment) take() error {
	patience := time.NewTimer(looseSilence)
	defer patience.Stop()
	select {
	case r := <-s.c.Done():
		s.pending = slices.DeleteFunc(s.pending, func(p *nbd.Request) bool { return p == r })
		return r.Err
	case <-patience.C:
		return fmt.Errorf("the link is stalled: nothing was answered for %v", looseSilence)
	}
}

// sync makes all that was sent durable at the target.
func (s *looseShipment) sync() error {
	any := func(*nbd.Request) bool { return true }
	if err := s.takeAll(any); err != nil {
		return err
	}
	s.since, s.flushed = 0, time.Now()
	if !s.c.Can(nbd.FlagFlush) {
		return nil
	}
	if err := s.start(&nbd.Request{Command: nbd.Flush}); err != nil {
		return err
	}
	return s.takeAll(any)
}

// flush moves sync_ptr (L1), or notes how far a cut has come.
func (s *looseShipment) flush(ep *epoch) error {
	if err := s.sync(); err != nil {
		return err
	}
	b, m := &ep.batch, s.m
	if !ep.commit {
		m.setLoose(func(l *loose) { l.got.Took(b.End, s.reach) })
		return nil
	}
	if _, err := m.ack(b.End); err != nil {
		return err
	}
	m.setLoose(func(l *loose) {
		l.filled, l.got = true, nil
		l.steady = l.steady || b.End >= l.sent
	})
	s.reach = 0
	m.rememberSometimes()
	m.moved()
	return nil
}

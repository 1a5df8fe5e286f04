package cawrm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// Verifying compares both sites as of one position, without sending data:
//
//	source  runRead opens a Still, whose end is E, ships the log up to exactly E, and then CHECK open(E)
//	peer    has committed everything before that frame, so it stands at E: it opens a Still too
//	both    hash the same ranges of 4 MiB while records beyond E go on being shipped and applied
//	source  compares the digests; of a range that differs it asks for the sums of the chunks
//
// So what differs is told by the chunk, and a write that comes meanwhile is no difference. Every chunk is read and
// held against its own checksum on the way.
//
// Mending: a chunk that one site cannot read is written anew, in its place, with what the other has of it; what both can
// read and is not the same is appended to the source's log once more.

// Verification is what comparing a mirror has found.
type Verification struct {
	Position  aodi.Position // as of which
	Size      int64         // of the volume, bytes
	DataBytes int64         // that were read and hashed here; holes are not
	Different []ChunkRange  // in order
}

// ChunkRange is a run of chunks of which the same is known.
type ChunkRange struct {
	First, Count uint64
	Why          Difference
	Mended       bool
	Error        string // why it was not mended
}

// Difference says what is wrong with a chunk.
type Difference string

// The kinds of differences.
const (
	Differs       Difference = "differs"       // both sites can read it, and it is not the same
	BadAtMirror   Difference = "bad-at-mirror" // the mirror's does not match its checksum, or cannot be read
	BadAtSource   Difference = "bad-at-source"
	BadEverywhere Difference = "bad-at-both"
)

// OK tells that both sites are the same, by now.
func (v *Verification) OK() bool {
	for _, r := range v.Different {
		if !r.Mended {
			return false
		}
	}
	return true
}

// errUnchecked is why a verification cannot go on.
var errUnchecked = errors.New("the link was lost meanwhile; verify again")

// check is a conversation of CHECK and SUMS over the session that is under way.
type check struct {
	still *aodi.Still // opened by runRead, which then sets end
	end   aodi.Position
	in    chan wire.Check
	out   chan []byte // frames for runSend
	gone  chan struct{}
	open  bool // CHECK open is wanted
}

// Verify compares the mirror with the volume, and with repair mends what differs. One at a time a mirror. progress is told
// after each step, in bytes of the volume. Errors: no link, a peer that cannot; then nothing is known.
func (m *Mirror) Verify(ctx context.Context, repair bool, progress func(done, total int64)) (*Verification, error) {
	if m.target.Loose {
		return nil, fmt.Errorf("mirror %s is a plain NBD server, which cannot be asked for checksums", m.cfg.ID)
	}
	c, err := m.beginCheck(true)
	if err != nil {
		return nil, err
	}
	defer m.endCheck(c)
	a, err := c.hear(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	held, end := c.still, c.end
	m.mu.Unlock()
	if a.Op != wire.CheckOpen || held == nil || a.First != uint64(end) {
		return nil, fmt.Errorf("the peer answers something else (operation %d at %d)", a.Op, a.First)
	}
	j := &verifier{m: m, c: c, ctx: ctx, held: held, sum: newSummer(held), repair: repair, result: &Verification{Position: end, Size: held.Size()}}
	err = j.run(progress)
	_ = j.say(wire.Check{Op: wire.CheckClose}) // on a link that is lost there is nothing to close
	if n := len(j.result.Different); n > 0 {
		m.tell(EventDiffers, "%d ranges differ from the mirror as of position %d, the first at chunk %d", n, end, j.result.Different[0].First)
	}
	return j.result, err
}

// beginCheck takes the session's only place for a check. With open, runRead is to bring both sites to one position.
func (m *Mirror) beginCheck(open bool) (*check, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closing:
		return nil, errClosed
	case !m.connected:
		return nil, fmt.Errorf("mirror %s is not connected: %s", m.cfg.ID, m.reason)
	case !m.checks:
		return nil, fmt.Errorf("the peer of mirror %s is of a version that cannot compare", m.cfg.ID)
	case m.check != nil:
		return nil, fmt.Errorf("mirror %s is being compared already", m.cfg.ID)
	}
	m.check = &check{in: make(chan wire.Check, 1), out: m.checkOut, gone: make(chan struct{}), open: open}
	m.checking.Add(1)
	if m.nudge != nil {
		m.nudge()
	}
	return m.check, nil
}

// endCheck frees the place.
func (m *Mirror) endCheck(c *check) {
	defer m.checking.Done()
	m.mu.Lock()
	if m.check == c {
		m.check = nil
	}
	s := c.still
	c.open = false
	m.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// dropCheck ends the check that is under way, with the session.
func (m *Mirror) dropCheck() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.check != nil {
		close(m.check.gone)
		m.check = nil
	}
}

// takeCheck opens the still that a check wants; nil when none does. runRead's.
func (m *Mirror) takeCheck() (*check, error) {
	m.mu.Lock()
	c := m.check
	wanted := c != nil && c.open
	m.mu.Unlock()
	if !wanted {
		return nil, nil
	}
	s, err := m.v.OpenStill()
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	wanted = c.open
	if wanted {
		c.still, c.end, c.open = s, s.End, false
	}
	m.mu.Unlock()
	if !wanted { // given up meanwhile
		s.Close()
		return nil, nil
	}
	return c, nil
}

// heard gives an answer to who waits for it.
func (m *Mirror) heard(a wire.Check) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.check == nil {
		return nil // it was given up
	}
	select {
	case m.check.in <- a:
		return nil
	default:
		return refusef(wire.CodeLied, "the peer answers what was not asked")
	}
}

// hear waits for an answer.
func (c *check) hear(ctx context.Context) (wire.Check, error) {
	select {
	case a := <-c.in:
		if a.Failed {
			return a, fmt.Errorf("the mirror says: %s", printable(a.Body))
		}
		return a, nil
	case <-c.gone:
		return wire.Check{}, errUnchecked
	case <-ctx.Done():
		return wire.Check{}, ctx.Err()
	}
}

func printable(b []byte) string { return fmt.Sprintf("%q", b) }

// verifier is a verification under way.
type verifier struct {
	m      *Mirror
	c      *check
	held   *aodi.Still
	ctx    context.Context
	sum    *summer
	repair bool
	result *Verification
}

func (j *verifier) say(q wire.Check) error {
	frame, err := wire.AppendCheck(nil, &q)
	if err != nil {
		return err
	}
	select {
	case j.c.out <- frame:
		return nil
	case <-j.c.gone:
		return errUnchecked
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
}

// ask says a question and hears the answer to it.
func (j *verifier) ask(q wire.Check, size int) (wire.Check, error) {
	if err := j.say(q); err != nil {
		return wire.Check{}, err
	}
	return j.answer(q, size)
}

// answer hears the answer to a question, whose body has size bytes.
func (j *verifier) answer(q wire.Check, size int) (wire.Check, error) {
	a, err := j.c.hear(j.ctx)
	if err == nil && (a.Op != q.Op || a.First != q.First || len(a.Body) != size) {
		err = fmt.Errorf("the peer answers something else (operation %d at %d, %d bytes)", a.Op, a.First, len(a.Body))
	}
	return a, err
}

func (j *verifier) run(progress func(done, total int64)) error {
	ranges := rangesOf(j.result.Size)
	for at := uint64(0); at < ranges; {
		n := min(wire.MaxDigests, ranges-at)
		q := wire.Check{Op: wire.CheckRanges, First: at, Count: n}
		if err := j.say(q); err != nil {
			return err
		}
		mine := make([]byte, 0, n*wire.DigestSize) // while the peer does the same
		for i := range n {
			select {
			case <-j.c.gone:
				return errUnchecked
			default:
			}
			d, data, err := j.sum.digest(at + i)
			if err != nil {
				return fmt.Errorf("%w: %w", errLocal, err)
			}
			mine = append(mine, d[:]...)
			j.result.DataBytes += data
		}
		a, err := j.answer(q, len(mine))
		if err != nil {
			return err
		}
		for i := range n {
			x, y := mine[i*wire.DigestSize:][:wire.DigestSize], a.Body[i*wire.DigestSize:][:wire.DigestSize]
			if !bytes.Equal(x, y) || x[0] == 0xff && bytes.Count(x, x[:1]) == len(x) {
				if err := j.compare(at + i); err != nil {
					return err
				}
			}
		}
		at += n
		progress(min(int64(at)*rangeBytes, j.result.Size), j.result.Size)
	}
	return nil
}

// compare finds the chunks of a range that are not the same, and mends them if that is wanted.
func (j *verifier) compare(first uint64) error {
	mine, err := j.sum.sums(first)
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	a, err := j.ask(wire.Check{Op: wire.CheckChunks, First: first}, len(mine))
	if err != nil {
		return err
	}
	for i := 0; i < len(mine); i += wire.SumSize {
		x, y := mine[i:i+wire.SumSize], a.Body[i:i+wire.SumSize]
		badHere, badThere := bytes.Equal(x, unreadable), bytes.Equal(y, unreadable)
		if bytes.Equal(x, y) && !badHere {
			continue
		}
		r := ChunkRange{First: first*wire.CheckRange + uint64(i/wire.SumSize), Count: 1, Why: Differs}
		switch {
		case badHere && badThere:
			r.Why = BadEverywhere
		case badHere:
			r.Why = BadAtSource
		case badThere:
			r.Why = BadAtMirror
		}
		if j.repair {
			if err := j.mend(&r); err != nil {
				return err
			}
		}
		j.note(r)
	}
	return nil
}

// note joins what lies side by side.
func (j *verifier) note(r ChunkRange) {
	d := j.result.Different
	if n := len(d); n > 0 {
		l := &d[n-1]
		if l.First+l.Count == r.First && l.Why == r.Why && l.Mended == r.Mended && l.Error == r.Error {
			l.Count++
			return
		}
	}
	j.result.Different = append(d, r)
}

// mend mends one chunk. The error is that of the conversation; what the volumes say stands in r.
func (j *verifier) mend(r *ChunkRange) (err error) {
	p := make([]byte, format.ChunkSize)
	off := int64(r.First) * format.ChunkSize
	var local error
	switch r.Why {
	case BadEverywhere:
		local = errors.New("no site has it")
	case Differs:
		local = j.m.v.Rewrite(r.First)
	case BadAtSource:
		var a wire.Check
		if a, err = j.ask(wire.Check{Op: wire.CheckFetch, First: r.First}, len(p)); err == nil {
			_, local = j.m.v.Mend(r.First, a.Body)
		}
	case BadAtMirror:
		if local = j.held.ReadAt(p, off); local == nil {
			_, err = j.ask(wire.Check{Op: wire.CheckMend, First: r.First, Body: p}, 0)
		}
	}
	if err != nil && (errors.Is(err, errUnchecked) || j.ctx.Err() != nil) {
		return err
	}
	if local = errors.Join(local, err); local != nil {
		r.Error = local.Error()
		return nil
	}
	r.Mended = true
	j.m.tell(EventRepaired, "chunk %d: %s, mended", r.First, r.Why)
	return nil
}

package oracle_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"cawrm/bench/internal/oracle"
)

func TestStampSaysWhereAndBreaksWhenTouched(t *testing.T) {
	b := make([]byte, oracle.BlockSize)
	if seq, err := oracle.ReadStamp(b, 7); seq != 0 || err != nil {
		t.Errorf("zeroes: %d, %v", seq, err)
	}
	oracle.Stamp(b, 99, 7)
	if seq, err := oracle.ReadStamp(b, 7); seq != 99 || err != nil {
		t.Errorf("a stamp: %d, %v", seq, err)
	}
	if _, err := oracle.ReadStamp(b, 8); err == nil {
		t.Error("a stamp of block 7 passes for block 8")
	}
	for _, at := range []int{0, 8, 16, 24, 2000, oracle.BlockSize - 1} {
		oracle.Stamp(b, 99, 7)
		b[at] ^= 1
		if _, err := oracle.ReadStamp(b, 7); err == nil {
			t.Errorf("a change of byte %d goes unnoticed", at)
		}
	}
	oracle.Stamp(b, 99, 7)
	clear(b[512:1024])
	if _, err := oracle.ReadStamp(b, 7); err == nil {
		t.Error("a torn block goes unnoticed")
	}
}

// script drives an oracle of two blocks by hand.
type script struct {
	*oracle.Oracle
	rng *rand.Rand
	t   *testing.T
}

func newScript(t *testing.T) *script {
	return &script{oracle.New(2), rand.New(rand.NewPCG(1, 1)), t}
}

// write sends a write to the block.
func (s *script) write(block int64, fua bool) *oracle.Op { return s.begin(block, false, fua) }

func (s *script) begin(block int64, zero, fua bool) *oracle.Op {
	s.t.Helper()
	// Hold the other block by a read, unless a request holds it already:
	// then all these reads get the block itself.
	for range 64 {
		first, n := s.BeginRead(s.rng, 1)
		if first != block {
			defer s.EndRead(first, n, nil)
			break
		}
		s.EndRead(first, n, nil)
	}
	op := s.Begin(s.rng, 1, zero, fua)
	if op.First != block {
		s.t.Fatalf("the request went to block %d, want %d", op.First, block)
	}
	return op
}

// done sends a request and has it answered.
func (s *script) done(block int64, zero, fua bool) uint64 {
	op := s.begin(block, zero, fua)
	s.Answered(op)
	return op.Seq
}

func (s *script) flush() { s.Flushed(s.BeginFlush()) }

func wantErr(t *testing.T, err error, part string) {
	t.Helper()
	if part == "" && err != nil {
		t.Errorf("refused: %v", err)
	}
	if part != "" && (err == nil || !strings.Contains(err.Error(), part)) {
		t.Errorf("got %v, want an error with %q", err, part)
	}
}

func TestWhatASourceMayHoldAfterACrash(t *testing.T) {
	for _, c := range []struct {
		name  string
		run   func(*script) []uint64 // sends requests, returns the image
		wrong string                 // part of the complaint; empty: a right image
	}{
		{"nothing was written", func(s *script) []uint64 { return []uint64{0, 0} }, ""},
		{"unflushed and lost", func(s *script) []uint64 { s.done(0, false, false); return []uint64{0, 0} }, ""},
		{"unflushed and kept", func(s *script) []uint64 { return []uint64{s.done(0, false, false), 0} }, ""},
		{"flushed and lost", func(s *script) []uint64 {
			s.done(0, false, false)
			s.flush()
			return []uint64{0, 0}
		}, "lacks request 1"},
		{"answered after the flush was sent", func(s *script) []uint64 {
			op := s.write(0, false)
			event := s.BeginFlush()
			s.Answered(op)
			s.Flushed(event)
			return []uint64{0, 0}
		}, ""},
		{"FUA and lost", func(s *script) []uint64 { s.done(0, false, true); return []uint64{0, 0} }, "lacks request 1"},
		{"FUA without an answer", func(s *script) []uint64 { s.write(0, true); return []uint64{0, 0} }, ""},
		{"older than flushed", func(s *script) []uint64 {
			first := s.done(0, false, false)
			s.done(0, false, false)
			s.flush()
			return []uint64{first, 0}
		}, "lacks request 2"},
		{"the later of two in order, without the earlier", func(s *script) []uint64 {
			s.done(0, false, false)
			return []uint64{0, s.done(1, false, false)}
		}, "lacks request 1"},
		{"the later of two outstanding together", func(s *script) []uint64 {
			s.write(0, false)
			return []uint64{0, s.done(1, false, false)}
		}, ""},
		{"a flushed trim undone", func(s *script) []uint64 {
			w := s.done(0, false, false)
			s.done(0, true, false)
			s.flush()
			return []uint64{w, 0}
		}, "lacks request 2"},
		{"zeroes that must be the trim", func(s *script) []uint64 {
			s.done(0, false, false)
			s.done(0, true, false)
			return []uint64{0, s.done(1, false, false)}
		}, ""},
		{"a request that was never sent", func(s *script) []uint64 { return []uint64{7, 0} }, "never wrote it"},
		{"the content of another block", func(s *script) []uint64 { return []uint64{0, s.done(0, false, false)} }, "never wrote it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			wantErr(t, s.CheckSource(c.run(s)), c.wrong)
		})
	}
}

func TestWhatWasLostOnceMustNotComeBack(t *testing.T) {
	s := newScript(t)
	w := s.done(0, false, false)
	wantErr(t, s.CheckSource([]uint64{0, 0}), "")
	wantErr(t, s.CheckSource([]uint64{w, 0}), "lost in an earlier crash")
}

func TestWhatWasSeenMustStay(t *testing.T) {
	s := newScript(t)
	w := s.done(0, false, false)
	wantErr(t, s.CheckSource([]uint64{w, 0}), "")
	wantErr(t, s.CheckSource([]uint64{0, 0}), "lacks request 1")
}

func TestAMirrorIsACutOfItsSource(t *testing.T) {
	s := newScript(t)
	a := s.done(0, false, false)
	b := s.done(1, false, false)
	wantErr(t, s.CheckMirror([]uint64{0, 0}), "")
	wantErr(t, s.CheckMirror([]uint64{0, b}), "lacks request 1")
	wantErr(t, s.CheckMirror([]uint64{a, b}), "")
	wantErr(t, s.CheckMirror([]uint64{a, 0}), "lacks request 2") // it went back
}

func TestASourceKeepsWhatItsMirrorHasShown(t *testing.T) {
	s := newScript(t)
	a := s.done(0, false, false)
	wantErr(t, s.CheckMirror([]uint64{a, 0}), "")
	wantErr(t, s.CheckSource([]uint64{0, 0}), "lacks request 1")
}

func TestAMirrorNeverShowsWhatItsSourceLost(t *testing.T) {
	s := newScript(t)
	a := s.done(0, false, false)
	wantErr(t, s.CheckSource([]uint64{0, 0}), "")
	wantErr(t, s.CheckMirror([]uint64{a, 0}), "lost in an earlier crash")
}

// A server that keeps its promises, with requests outstanding together,
// answers in any order, crashes that keep any prefix of its log from the last
// flush on, and a mirror that follows by cuts: every image must be accepted.
func TestAnHonestServerIsNeverRefused(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		o := oracle.New(12)
		var log []*oracle.Op // in the order in which the server took them
		var pending []*oracle.Op
		durable, mirror := 0, 0
		for range 300 {
			switch n := rng.IntN(20); {
			case n < 9 && len(pending) < 4:
				pending = append(pending, o.Begin(rng, 1+rng.Int64N(3), rng.IntN(4) == 0, false))
			case n < 16 && len(pending) > 0:
				i := rng.IntN(len(pending))
				op := pending[i]
				pending = append(pending[:i], pending[i+1:]...)
				log = append(log, op)
				o.Answered(op)
			case n == 16:
				event := o.BeginFlush()
				durable = len(log)
				o.Flushed(event)
			case n == 17:
				mirror += rng.IntN(durable - mirror + 1)
				if err := o.CheckMirror(replay(log[:mirror])); err != nil {
					t.Fatalf("seed %d: mirror: %v", seed, err)
				}
			case n == 18 && rng.IntN(4) == 0:
				for _, op := range pending { // some of the unanswered got in
					if rng.IntN(2) == 0 {
						log = append(log, op)
					}
				}
				pending = nil
				log = log[:durable+rng.IntN(len(log)-durable+1)]
				durable = len(log)
				if err := o.CheckSource(replay(log)); err != nil {
					t.Fatalf("seed %d: source: %v", seed, err)
				}
			}
		}
	}
}

// replay returns the image that a log leaves.
func replay(log []*oracle.Op) []uint64 {
	image := make([]uint64, 12)
	for _, op := range log {
		for b := op.First; b < op.First+op.Count; b++ {
			image[b] = op.Seq
			if op.Zero {
				image[b] = 0
			}
		}
	}
	return image
}

// A server that loses one answered request from the middle of its log must be
// found out, unless later requests hide the loss.
func TestALostRequestIsFound(t *testing.T) {
	found, hidden := 0, 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		o := oracle.New(12)
		var log []*oracle.Op
		for range 20 {
			op := o.Begin(rng, 1+rng.Int64N(2), false, false)
			o.Answered(op)
			log = append(log, op)
		}
		whole := replay(log)
		lost := rng.IntN(len(log) - 1)
		image := replay(append(append([]*oracle.Op(nil), log[:lost]...), log[lost+1:]...))
		err := o.CheckSource(image)
		if same(image, whole) {
			hidden++
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		} else if err == nil {
			t.Fatalf("seed %d: the loss of request %d of %d goes unnoticed", seed, lost+1, len(log))
		} else {
			found++
		}
	}
	if found == 0 || hidden == 0 {
		t.Errorf("found %d, hidden %d: the test shows nothing", found, hidden)
	}
}

func same(a, b []uint64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

package cawrm_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm"
	"cawrm/cawrm/wire"
)

// fakeSource speaks to a peer by hand.
type fakeSource struct {
	t *testing.T
	c net.Conn
	r *wire.Reader
}

func sayHello(t *testing.T, n *network, change func(h *wire.Hello)) *fakeSource {
	t.Helper()
	h := wire.Hello{KeepAlive: time.Second, Volume: uuid(1), Container: uuid(2), Size: 64 * chunk, DurablePtr: 1000, Name: "vm",
		Lineage: []format.Lineage{{ID: uuid(1)}}}
	change(&h)
	b, err := wire.AppendHello(nil, &h)
	check(t, err)
	c, err := n.dial(context.Background(), "")
	check(t, err)
	_, err = c.Write(b)
	check(t, err)
	return &fakeSource{t, c, wire.NewReader(c)}
}

// answer is the next frame that is no beat: a WELCOME, an ACK, or a refusal's code and text.
func (f *fakeSource) answer() any {
	f.t.Helper()
	for {
		ty, err := f.r.Next(wire.Of(wire.TypeWelcome, wire.TypeRefuse, wire.TypeAck, wire.TypeBeat))
		check(f.t, err)
		switch ty {
		case wire.TypeWelcome:
			w, err := f.r.Welcome()
			check(f.t, err)
			return w
		case wire.TypeRefuse:
			code, text := f.r.Refuse()
			return code.String() + ": " + text
		case wire.TypeAck:
			return f.r.Ack()
		}
	}
}

// send ships single-chunk records [first, first+n) of that stamp.
func (f *fakeSource) send(first, n int, stamp uint64, commit bool) {
	rec := wire.Records{First: aodi.Position(first), End: aodi.Position(first + n), Time: time.Now().UnixNano(), Commit: commit}
	for i := range n {
		b := stamped(stamp)
		rec.Entries = append(rec.Entries, format.Entry{Birth: aodi.Position(first + i), LBA: uint64(i), Kind: format.KindData, Count: 1, CRC: format.Sum(b)})
		rec.Data = append(rec.Data, b...)
	}
	f.sendRecords(&rec)
}

func (f *fakeSource) sendRecords(rec *wire.Records) {
	b, err := wire.AppendRecords(nil, rec)
	check(f.t, err)
	_, err = f.c.Write(append(b, rec.Data...))
	check(f.t, err)
}

func (f *fakeSource) close() { f.c.Close(); time.Sleep(time.Second) }

// stampAt is the stamp of the volume's first chunk.
func stampAt(t *testing.T, v *aodi.Volume) string {
	b := make([]byte, chunk)
	check(t, v.ReadAt(b, 0))
	return stampOf(b)
}

// TestHalfEpoch (I2): an epoch that did not arrive as a whole is never shown, not while it arrives, not
// after the link is lost, and the next connection starts at its first record.
func TestHalfEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newSite(t, n, newMirror(t))
		for i, round := range []string{"cut", "refused", "cut again"} {
			f := sayHello(t, n, func(*wire.Hello) {})
			if w := f.answer().(wire.Welcome); w.SyncPtr != aodi.Position(2*i) || w.Volume.IsZero() != (i == 0) {
				t.Fatalf("%s: welcomed by %+v, want position %d", round, w, 2*i)
			}
			f.send(2*i, 2, uint64(100+i), true)
			if p := f.answer(); p != aodi.Position(2*i+2) {
				t.Fatalf("%s: acknowledged %v, want %d", round, p, 2*i+2)
			}
			f.send(2*i+2, 5, 666, false)
			f.send(2*i+7, 5, 666, false)
			time.Sleep(time.Second)
			if p, _ := s.v.Pointers(); stampAt(t, s.v) != stampOf(stamped(uint64(100+i))) || p != aodi.Position(2*i+2) {
				t.Errorf("%s: half an epoch is shown, at position %d", round, p)
			}
			if round == "refused" {
				_, _ = f.c.Write(wire.AppendRefuse(nil, wire.CodeFailed, "cannot read my log"))
			}
			f.close()
			if p, _ := s.v.Pointers(); stampAt(t, s.v) != stampOf(stamped(uint64(100+i))) || p != aodi.Position(2*i+2) {
				t.Errorf("%s: half an epoch is shown after the end, at position %d", round, p)
			}
		}
		if l := s.logs.String(); !strings.Contains(l, "cannot read my log") || !strings.Contains(l, "the source hung up") {
			t.Errorf("the peer does not say why it lost its source:\n%s", l)
		}
	})
}

// TestAdoption: an empty mirror is bound to a source only when that one has taken its welcome.
func TestAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newSite(t, n, newMirror(t))
		f := sayHello(t, n, func(h *wire.Hello) { h.Volume = uuid(9) })
		if w := f.answer().(wire.Welcome); !w.Volume.IsZero() {
			t.Errorf("an empty mirror says it is volume %v", w.Volume)
		}
		time.Sleep(time.Second)
		_, _ = f.c.Write(wire.AppendRefuse(nil, wire.CodeLied, "no, thank you"))
		f.close()
		if s.v.Info().HasIdentity {
			t.Error("the mirror belongs to a source that did not want it")
		}
		f = sayHello(t, n, func(*wire.Hello) {})
		f.answer()
		_, _ = f.c.Write(wire.AppendBeat(nil))
		f.close()
		if i := s.v.Info(); !i.HasIdentity || i.Volume != uuid(1) || i.Size != 64*chunk || len(i.Lineage) != 1 {
			t.Errorf("the mirror did not take its source's identity: %+v", i)
		}
	})
}

// TestWrongSource is the table of sources that a mirror of volume 1, at position 10, does not take. The volumes' own
// tests have the ones that a real source can be.
func TestWrongSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newSite(t, n, newMirror(t))
		f := sayHello(t, n, func(*wire.Hello) {})
		f.answer()
		f.send(0, 10, 1, true)
		f.answer()
		for name, tt := range map[string]struct {
			change func(h *wire.Hello)
			want   string
		}{
			"other volume":      {func(h *wire.Hello) { h.Volume = uuid(7) }, `other volume: "vm" mirrors volume 01000000-`},
			"smaller":           {func(h *wire.Hello) { h.Size = 32 * chunk }, `other size: "vm" has 262144 bytes, the source 131072`},
			"behind":            {func(h *wire.Hello) { h.DurablePtr = 9 }, `ahead: "vm": the mirror is ahead: it stands at position 10 of lineage`},
			"other lineage":     {func(h *wire.Hello) { h.Lineage[0].ID = uuid(5) }, `diverged: "vm": the histories have no lineage in common`},
			"another container": {func(h *wire.Hello) { h.Container = uuid(8) }, `busy: "vm" is being fed by another source`},
		} {
			wrong := sayHello(t, n, tt.change)
			if got, _ := wrong.answer().(string); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s: %q, want %q", name, got, tt.want)
			}
			wrong.close()
		}
		f.send(10, 1, 2, true)
		if p := f.answer(); p != aodi.Position(11) {
			t.Errorf("the right source was disturbed: %v", p)
		}
		f.close()
		if p, _ := s.v.Pointers(); p != 11 {
			t.Errorf("the mirror stands at %d", p)
		}
	})
}

// TestBadRecords is the table of records that a mirror at position 10 must not take. None of them moves it, and the
// source is told.
func TestBadRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newSite(t, n, newMirror(t))
		f := sayHello(t, n, func(*wire.Hello) {})
		f.answer()
		f.send(0, 10, 1, true)
		f.answer()
		f.close()
		for name, tt := range map[string]struct {
			change func(r *wire.Records)
			want   string
		}{
			"a gap":           {func(r *wire.Records) { r.First, r.End, r.Entries[0].Birth = 11, 12, 11 }, "failed: "},
			"again":           {func(r *wire.Records) { r.First, r.End, r.Entries[0].Birth = 9, 10, 9 }, "failed: "},
			"damaged data":    {func(r *wire.Records) { r.Data[77] ^= 1 }, "failed: "},
			"beyond the end":  {func(r *wire.Records) { r.Entries[0].LBA = 64 }, `garbage: mirror "vm": record 10 is beyond the end of the volume: chunks [64, 65) of 64`},
			"far beyond":      {func(r *wire.Records) { r.Entries[0].LBA = 1<<32 - 1 }, `garbage: `},
			"without entries": {func(r *wire.Records) { r.Entries, r.Data = nil, nil }, "failed: "},
		} {
			f := sayHello(t, n, func(*wire.Hello) {})
			f.answer()
			b := stamped(666)
			rec := wire.Records{First: 10, End: 11, Commit: true, Data: b,
				Entries: []format.Entry{{Birth: 10, Kind: format.KindData, Count: 1, CRC: format.Sum(b)}}}
			tt.change(&rec)
			f.sendRecords(&rec)
			if got, _ := f.answer().(string); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s: %q, want %q", name, got, tt.want)
			}
			f.close()
			if p, _ := s.v.Pointers(); p != 10 || stampAt(t, s.v) != stampOf(stamped(1)) {
				t.Errorf("%s: the mirror stands at %d", name, p)
			}
			if st := s.peer.Status()[0]; st.Connected || st.LastError == "" {
				t.Errorf("%s: %+v", name, st)
			}
		}
		f = sayHello(t, n, func(*wire.Hello) {})
		f.answer()
		f.send(10, 1, 2, true)
		if p := f.answer(); p != aodi.Position(11) {
			t.Errorf("a good record after the bad ones: %v", p)
		}
		f.close()
	})
}

// TestPeerNames: a NAME is given once; after Close nothing is served.
func TestPeerNames(t *testing.T) {
	v := newMirror(t)
	p := cawrm.NewPeer(cawrm.PeerConfig{})
	check(t, p.AddVolume("a", v))
	if err := p.AddVolume("a", v); err == nil || !strings.Contains(err.Error(), `"a" is there already`) {
		t.Errorf("the same name again: %v", err)
	}
	check(t, p.AddVolume("b", v))
	if st := p.Status(); len(st) != 2 || st[0].Name != "a" || st[1].Name != "b" || st[0].Connected {
		t.Errorf("status %+v", st)
	}
	p.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	check(t, p.Serve(ln))
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("a closed peer still listens")
	}
}

package cawrm_test

import (
	"fmt"
	"math/rand/v2"
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

// source code of its own, and how it looks when something was put in at its front.
func code(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 77))
	var b []byte
	for len(b) < chunk {
		b = fmt.Appendf(b, "static int f%x(struct s%x *p) { return p->a%x; }\n", r.Uint32(), r.Uint32(), r.Uint64())
	}
	return b[:chunk]
}

func shifted(seed uint64) []byte { return append([]byte("/* more */\n"), code(seed)...)[:chunk] }

// again ends the connection and makes another: what the first one's window has is not there any more.
func again(t *testing.T, v *aodi.Volume, m *cawrm.Mirror, between func()) {
	t.Helper()
	set := m.Settings()
	set.Paused = true
	m.Change(set)
	stateIs(t, m, cawrm.StatePaused, "")
	between()
	set.Paused = false
	m.Change(set)
	synced(t, v, m)
}

// TestReferences ensures, over TCP, that what looks like something that the mirror has costs little: what stands elsewhere on the volume, and
// what stood in its place and is in a snapshot still, or in the log.
func TestReferences(t *testing.T) {
	v, mv := newSource(t, 4096), newMirror(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := cawrm.NewPeer(cawrm.PeerConfig{})
	check(t, p.AddVolume("vm", mv))
	done := make(chan error, 1)
	go func() { done <- p.Serve(ln) }()
	t.Cleanup(func() { p.Close(); <-done })
	m := startMirror(t, v, cawrm.MirrorConfig{ID: "b", URL: "cawrm://" + ln.Addr().String() + "/vm?compress=default"})

	const n = 400 // more than a jump epoch is worth
	put := func(at int64, of func(seed uint64) []byte) {
		for i := range int64(n) {
			check(t, v.WriteAt(of(uint64(i)), (at+i)*chunk, false))
		}
	}
	cost := func(what string, do func()) (sent int64) {
		before := m.Status()
		do()
		after := m.Status()
		sameContent(t, v, mv)
		t.Logf("%s: %d bytes, %d of references", what, after.SentBytes-before.SentBytes, after.ReferenceBytes-before.ReferenceBytes)
		if before.LastError != after.LastError && after.LastError != "paused" {
			t.Errorf("%s: %s", what, after.LastError)
		}
		return after.SentBytes - before.SentBytes
	}
	full := cost("all of it", func() { put(0, code); synced(t, v, m) })
	again(t, v, m, func() {})
	if sent := cost("the same elsewhere", func() { put(1000, shifted); synced(t, v, m) }); sent > full/5 {
		t.Errorf("%d bytes for what the mirror had elsewhere, %d for all of it", sent, full)
	}
	put(1000, func(seed uint64) []byte { return code(seed + n) })
	synced(t, v, m)
	_, err = v.CreateSnapshot("before")
	check(t, err)
	synced(t, v, m)
	if sent := cost("in its place", func() {
		again(t, v, m, func() { put(1000, func(seed uint64) []byte { return shifted(seed + n) }) })
	}); sent > full/5 {
		t.Errorf("%d bytes for what was changed a little in its place, %d for all of it", sent, full)
	}
	put(2000, func(seed uint64) []byte { return code(seed + 2*n) })
	synced(t, v, m)
	again(t, v, m, func() {})
	if sent := cost("in its place, without a snapshot", func() {
		put(2000, func(seed uint64) []byte { return shifted(seed + 2*n) })
		synced(t, v, m)
	}); sent > full/5 {
		t.Errorf("%d bytes for what was changed a little in its place and is only in the log, %d for all of it", sent, full)
	}
}

// TestReferenceToRottenChunk ensures that a mirror which cannot read what a frame refers to gets it told in full, and stays consistent.
func TestReferenceToRottenChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v, d := newSource(t, 256), newDisk(t, aodi.CreateOptions{Mirror: true})
		mv := openVolume(t, d, aodi.Options{})
		s := newSite(t, n, mv)
		cfg := mirrorConfig(n)
		cfg.URL += "?compress=default"
		m := startMirror(t, v, cfg)
		for i := range uint64(20) {
			check(t, v.WriteAt(code(i), int64(i)*chunk, false))
		}
		synced(t, v, m)
		again(t, v, m, func() {
			s.close(t)
			check(t, mv.Close())
			damageChunk(t, d, code(7))
			mv = openVolume(t, d, aodi.Options{})
			s = newSite(t, n, mv)
		})
		check(t, v.WriteAt(shifted(7), 100*chunk, false))
		synced(t, v, m)
		if st := m.Status(); !strings.Contains(st.LastError, "reference") || st.Links != 3 {
			t.Errorf("after %d links: %s", st.Links, st.LastError)
		}
		p := make([]byte, chunk)
		check(t, mv.ReadAt(p, 100*chunk))
		if string(p) != string(shifted(7)) {
			t.Error("the mirror has other content")
		}
		// In full from now on, also over connections.
		before := m.Status().ReferenceBytes
		again(t, v, m, func() { check(t, v.WriteAt(shifted(8), 101*chunk, false)) })
		if st := m.Status(); st.ReferenceBytes != before || st.Links != 4 {
			t.Errorf("%d links, %d bytes of references, %d before", st.Links, st.ReferenceBytes, before)
		}
		time.Sleep(2 * time.Hour)
		again(t, v, m, func() { check(t, v.WriteAt(code(90), 102*chunk, false)) })
		again(t, v, m, func() {})
		check(t, v.WriteAt(shifted(90), 103*chunk, false))
		synced(t, v, m)
		if st := m.Status(); st.ReferenceBytes == before {
			t.Error("none any more after two hours")
		}
	})
}

// TestHostileReferences ensures that a peer takes nothing of a frame that refers to what it does not hold, and says why; and that its own source
// goes on.
func TestHostileReferences(t *testing.T) {
	for name, lba := range map[string]uint64{"other content": 3, "a hole": 40, "the last chunk": 63, "beyond the end": 64, "far beyond": 1 << 31} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				v := newSource(t, 64)
				s := newSite(t, n, newMirror(t))
				m := startMirror(t, v, mirrorConfig(n))
				for i := range int64(5) {
					write(t, v, i, 1)
				}
				synced(t, v, m)
				m.Close()
				before, at := content(t, s.v), s.v.Status().EndPtr

				i := impostorOf(t, n, v, func(h *wire.Hello) { h.Capabilities = wire.CapReferences })
				i.accepted()
				i.say(lyingFrame(t, i.at, lba))
				if told := i.told(); told != wire.CodeReference {
					t.Errorf("told %v", told)
				}
				i.c.Close()
				eventually(t, "the end of the feed", func() bool { return !s.peer.Status()[0].Connected }, func() any { return s.peer.Status() })
				if st := s.v.Status(); st.EndPtr != at || string(before) != string(content(t, s.v)) {
					t.Errorf("a trace is left: position %d, was %d", st.EndPtr, at)
				}
				m = startMirror(t, v, mirrorConfig(n))
				write(t, v, 9, 2)
				synced(t, v, m)
				sameContent(t, v, s.v)
			})
		})
	}
}

// lyingFrame is one that refers to a chunk as if that held what no peer has.
func lyingFrame(t *testing.T, at format.Position, lba uint64) []byte {
	var p wire.Packer
	var f wire.Frame
	var known wire.Known
	for _, c := range []struct {
		first format.Position
		lba   uint64
		data  []byte
	}{{1, lba, code(1)}, {at, 5, shifted(1)}} {
		p.Release()
		p = wire.Packer{}
		p.Refer(&wire.References{Known: &known, Acked: func() format.Position { return at },
			Read: func(_ uint64, _ uint32, chunk []byte) bool { return copy(chunk, code(1)) > 0 }})
		check(t, p.Pack(&f, &wire.Records{First: c.first, End: c.first + 1, Commit: true, Data: c.data,
			Entries: []format.Entry{{Birth: c.first, LBA: c.lba, Kind: format.KindData, Count: 1, CRC: format.Sum(c.data)}}}, wire.LevelDefault))
	}
	if f.References != 1 {
		t.Fatalf("%d references", f.References)
	}
	return append(f.Head, f.Data...)
}

// TestPeerWithoutReferences ensures that a peer which does not take the capability gets none.
func TestPeerWithoutReferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 256)
		cfg := mirrorConfig(n)
		cfg.URL += "?compress=default"
		m := startMirror(t, v, cfg)
		c := <-n.arrive
		defer c.Close()
		r := wire.NewReader(c)
		_, err := r.Next(wire.Of(wire.TypeHello))
		check(t, err)
		h, err := r.Hello()
		check(t, err)
		if h.Capabilities&wire.CapReferences == 0 {
			t.Errorf("offered %#x", h.Capabilities)
		}
		w, err := wire.AppendWelcome(nil, &wire.Welcome{Capabilities: wire.CapSnapshots, Volume: v.Info().Volume, Lineage: h.Lineage, SyncPtr: h.Lineage[0].Start, Name: "old"})
		check(t, err)
		_, err = c.Write(w)
		check(t, err)
		for i := range uint64(40) {
			check(t, v.WriteAt(code(i%20), int64(i)*chunk, false))
		}
		check(t, v.Flush())
		var rec wire.Records
		for at := format.Position(0); at < v.Status().EndPtr; {
			ty, err := r.Next(wire.Of(wire.TypeRecords, wire.TypeBeat)) // which refuses terse frames: none were agreed on
			check(t, err)
			if ty == wire.TypeRecords {
				check(t, r.Records(&rec))
				at = rec.End
			}
		}
		if n := m.Status().ReferenceBytes; n != 0 {
			t.Errorf("%d bytes of references", n)
		}
		m.Close()
	})
}

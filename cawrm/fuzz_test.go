package cawrm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	"cawrm/cawrm"
	"cawrm/cawrm/wire"
	recovery "cawrm/recover"
)

// Each input's first byte says how it is played; the rest is a stream of frames. No fuzzer finds a checksum, so a stream
// can be mended first.

const (
	howMended  = 1 << iota
	howWelcome // FuzzMirror: a good WELCOME comes first; FuzzPeer: the mirror has its identity
)

// fuzzSize bounds the volumes. A source may map all of its volume with few bytes, so memory is bounded by the map.
const fuzzSize = 64 << 20

var quietLog = slog.New(slog.DiscardHandler)

// mendFrames makes lengths and checksums right, so far as there are bytes.
func mendFrames(b []byte) []byte {
	b = append([]byte(nil), b...)
	le := binary.LittleEndian
	for at := 0; at+16 <= len(b); {
		f := b[at:]
		n := min(int(le.Uint32(f[8:])), len(f)-16)
		le.PutUint32(f[8:], uint32(n))
		control := n
		if wire.Type(f[4]) == wire.TypeRecords && n >= 32 {
			control = min(n, 32+24*int(min(le.Uint32(f[40:]), 1<<16)))
			data := f[16+control : 16+n]
			for e := 48; e+24 <= 16+control; e += 24 {
				if format.Kind(f[e+14]) == format.KindData && len(data) >= chunk {
					le.PutUint32(f[e+20:], format.Sum(data[:chunk]))
					data = data[chunk:]
				}
			}
		}
		le.PutUint32(f[12:], format.Sum(append(append([]byte(nil), f[:12]...), f[16:16+control]...)))
		at += 16 + n
	}
	return b
}

func mustFrame(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func helloFrame() []byte {
	return mustFrame(wire.AppendHello(nil, &wire.Hello{KeepAlive: 1e9, Volume: uuid(1), Container: uuid(2), Size: 64 * chunk,
		DurablePtr: 100, Name: "vm", Lineage: []format.Lineage{{ID: uuid(1)}}}))
}

// records is a frame of n records from a position on: data, but each fifth is a discard and each seventh zeroes.
func records(first, n int, commit bool) []byte {
	r := wire.Records{First: format.Position(first), End: format.Position(first + n), Time: 1, Commit: commit}
	for i := range n {
		e := format.Entry{Birth: r.First + format.Position(i), LBA: uint64(i * 7 % 60), Kind: format.KindData, Count: 1}
		switch {
		case i%5 == 4:
			e.Kind, e.Count = format.KindDiscard, 3
		case i%7 == 6:
			e.Kind, e.Count = format.KindZero, 2
		default:
			p := stamped(uint64(first + i + 1))
			e.CRC = format.Sum(p)
			r.Data = append(r.Data, p...)
		}
		r.Entries = append(r.Entries, e)
	}
	return append(mustFrame(wire.AppendRecords(nil, &r)), r.Data...)
}

func join(frames ...[]byte) (all []byte) {
	for _, f := range frames {
		all = append(all, f...)
	}
	return all
}

// spent fails when do allocates more than so many bytes.
func spent(t *testing.T, most uint64, do func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > most {
		t.Errorf("%d bytes were allocated, at most %d are needed", n, most)
	}
}

// FuzzPeer ensures that a peer takes any bytes from a source, and that its mirror holds what the last whole epoch of
// them says.
func FuzzPeer(f *testing.F) {
	stream := join(helloFrame(), records(0, 9, true), records(9, 3, false), wire.AppendBeat(nil), records(12, 9, true), records(21, 2, false))
	for _, how := range []byte{0, howMended, howWelcome, howMended | howWelcome} {
		f.Add(append([]byte{how}, stream...))
		f.Add(append([]byte{how}, helloFrame()...))
		torn := append([]byte{how}, join(helloFrame(), records(0, 3, true))...)
		torn[len(torn)-9] ^= 1 // of data, which the frame's checksum does not cover
		f.Add(torn)
		f.Add(append([]byte{how}, records(0, 1, true)...))
		f.Add(append([]byte{how}, "GET / HTTP/1.1\r\n\r\n"...))
		f.Add(append([]byte{how}, join(helloFrame(), helloFrame(), wire.AppendAck(nil, 3))...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<20 {
			return
		}
		how, b := b[0], b[1:]
		if how&howMended != 0 {
			b = mendFrames(b)
		}
		cuts, ok := epochsOf(b)
		if !ok {
			return
		}
		d := disk.NewMemory(diskLimit)
		defer d.Free()
		check(t, aodi.CreateOn(d, aodi.CreateOptions{Mirror: true, SegmentChunks: 64}))
		spent(t, 64<<20, func() { feedPeer(t, d, how, b, cuts) })
		r, err := recovery.Check(d, recovery.CheckOptions{})
		check(t, err)
		for _, v := range r.Violations {
			t.Errorf("check: %v", v)
		}
	})
}

func feedPeer(t *testing.T, d disk.Disk, how byte, b []byte, cuts map[aodi.Position]map[uint64]uint32) {
	v, err := aodi.OpenOn(d, aodi.Options{})
	check(t, err)
	defer v.Close()
	if how&howWelcome != 0 {
		check(t, v.Adopt(uuid(1), 64*chunk, []format.Lineage{{ID: uuid(1)}}))
	}
	n := newNetwork()
	p := cawrm.NewPeer(cawrm.PeerConfig{Name: "peer"})
	check(t, p.AddVolume("vm", v))
	served := make(chan error, 1)
	go func() { served <- p.Serve(listener(n)) }()
	c, err := n.dial(context.Background(), "")
	check(t, err)
	heard := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, c)
		close(heard)
	}()
	_, _ = c.Write(b)
	_ = c.(*memConn).CloseWrite()
	<-heard
	c.Close()
	p.Close()
	check(t, <-served)
	end, _ := v.Pointers()
	want, ok := cuts[end]
	if !ok {
		t.Fatalf("the mirror stands at %d, where no epoch ends", end)
	}
	got := make([]byte, chunk)
	for lba, sum := range want {
		if err := v.ReadAt(got, int64(lba)*chunk); err != nil || format.Sum(got) != sum {
			t.Fatalf("at %d, chunk %d: %v, or it is not what was sent", end, lba, err)
		}
	}
}

// epochsOf reads a stream as a peer should, and tells what a mirror that took it may hold: for each epoch's end, the
// checksums of the chunks that were sent. Not ok: a volume too large to look at.
func epochsOf(b []byte) (cuts map[aodi.Position]map[uint64]uint32, ok bool) {
	cuts = map[aodi.Position]map[uint64]uint32{0: {}}
	r := wire.NewReader(&reader{b: b})
	if t, err := r.Next(wire.Of(wire.TypeHello)); err != nil || t != wire.TypeHello {
		return cuts, true
	}
	h, err := r.Hello()
	if err != nil {
		return cuts, true
	}
	if h.Size > fuzzSize {
		return nil, false
	}
	now, at := map[uint64]uint32{}, aodi.Position(0)
	zero := format.Sum(make([]byte, chunk))
	for {
		t, err := r.Next(wire.Of(wire.TypeRecords, wire.TypeBeat))
		if err != nil {
			return cuts, true
		}
		if t != wire.TypeRecords {
			continue
		}
		var rec wire.Records
		if r.Records(&rec) != nil || rec.First != at {
			return cuts, true
		}
		at = rec.End
		for _, e := range rec.Entries {
			for i := range min(uint64(e.Count), fuzzSize/chunk) {
				now[e.LBA+i] = zero
				if e.Kind == format.KindData {
					now[e.LBA+i] = e.CRC
				}
			}
		}
		if rec.Commit {
			copied := map[uint64]uint32{}
			for lba, sum := range now {
				copied[lba] = sum
			}
			cuts[at] = copied
		}
	}
}

type reader struct{ b []byte }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// FuzzMirror ensures that a source takes any bytes from a peer, and believes no position that cannot be.
func FuzzMirror(f *testing.F) {
	acks := join(wire.AppendAck(nil, 3), wire.AppendBeat(nil), wire.AppendAck(nil, 20), wire.AppendAck(nil, 1<<40))
	welcome := mustFrame(wire.AppendWelcome(nil, &wire.Welcome{Volume: uuid(1), Name: "peer", Lineage: []format.Lineage{{ID: uuid(1)}}}))
	for _, how := range []byte{0, howMended, howWelcome, howMended | howWelcome} {
		f.Add(append([]byte{how}, acks...))
		f.Add(append([]byte{how}, wire.AppendRefuse(nil, wire.CodeBusy, "busy")...))
		f.Add(append([]byte{how}, join(welcome, acks)...))
		f.Add(append([]byte{how}, "HTTP/1.1 400 Bad Request\r\n\r\n"...))
	}
	d := disk.NewMemory(diskLimit)
	f.Cleanup(d.Free)
	check(f, aodi.CreateOn(d, aodi.CreateOptions{Size: 64 * chunk, SegmentChunks: 64}))
	v := openVolume(f, d, aodi.Options{})
	for i := range int64(20) {
		write(f, v, i, uint64(i+1))
	}
	check(f, v.Flush())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 1<<20 {
			return
		}
		how, b := b[0], b[1:]
		if how&howMended != 0 {
			b = mendFrames(b)
		}
		spent(t, 64<<20, func() { answerMirror(t, v, how, b) })
		end, durable := v.Pointers()
		if end != 20 || durable != 20 {
			t.Fatalf("the source stands at %d, %d", end, durable)
		}
		for _, m := range v.Mirrors() {
			if m.SyncPtr > durable {
				t.Errorf("sync_ptr %d is remembered, durable_ptr is %d", m.SyncPtr, durable)
			}
			v.ForgetMirror(m.ID)
		}
	})
}

// answerMirror plays one session of a peer that says b, and lets the source know nothing else.
func answerMirror(t *testing.T, v *aodi.Volume, how byte, b []byte) {
	over := make(chan struct{})
	peer := stranger{func(c net.Conn) {
		defer close(over)
		r, h, ok := readHello(c)
		if !ok {
			return
		}
		if how&howWelcome != 0 {
			w := wire.Welcome{Volume: h.Volume, Lineage: h.Lineage, Name: "peer", SyncPtr: format.Position(how >> 4)}
			_, _ = c.Write(mustFrame(wire.AppendWelcome(nil, &w)))
		}
		_, _ = c.Write(b)
		_ = c.(*memConn).CloseWrite()
		for {
			if _, err := r.Next(wire.Of(wire.TypeRecords, wire.TypeBeat, wire.TypeRefuse)); err != nil {
				return
			}
		}
	}}
	dials := 0
	m, err := cawrm.Start(v, cawrm.MirrorConfig{ID: "b", URL: "cawrm://peer/vm", Logger: quietLog,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			if dials++; dials > 1 {
				return nil, errors.New("once is enough")
			}
			return peer.dial(ctx, addr)
		}})
	check(t, err)
	<-over
	st := m.Status()
	m.Close()
	if _, durable := v.Pointers(); st.SyncPtr > durable {
		t.Errorf("sync_ptr %d > durable_ptr %d", st.SyncPtr, durable)
	}
}

// FuzzURL ensures that an address that is taken means the same when it is written and read again.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"cawrm://b/vm", "cawrm://b:1/vm%2f1", "cawrm://[::1]:10810/x y", "cawrm://[fe80::1%25eth0]/é", "nbd://b/x", "cawrm://b/vm?limit=1.5M&schedule=mon@09:00-24:00=off"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := cawrm.ParseURL(s)
		if err != nil {
			return
		}
		if b, err := cawrm.ParseURL(a.String()); err != nil || a != b {
			t.Errorf("%q is %+v, written as %s, which is %+v: %v", s, a, a, b, err)
		}
	})
}

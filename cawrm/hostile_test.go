package cawrm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm"
	"cawrm/cawrm/wire"
)

// impostor is a source that says what it likes.
type impostor struct {
	t    *testing.T
	c    net.Conn
	r    *wire.Reader
	at   format.Position // where the mirror stands
	size int64
}

// impostorOf knows all that v's own source says in its HELLO, but for what change says otherwise.
func impostorOf(t *testing.T, n *network, v *aodi.Volume, change func(h *wire.Hello)) *impostor {
	t.Helper()
	c, err := n.dial(context.Background(), "")
	check(t, err)
	info := v.Info()
	_, durable := v.Pointers()
	h := wire.Hello{KeepAlive: time.Second, Volume: info.Volume, Container: info.Container, Size: info.Size,
		DurablePtr: durable, Name: "vm", Lineage: info.Lineage}
	change(&h)
	b, err := wire.AppendHello(nil, &h)
	check(t, err)
	_, _ = c.Write(b)
	return &impostor{t: t, c: c, r: wire.NewReader(c), at: durable, size: info.Size}
}

// accepted hears the welcome.
func (i *impostor) accepted() {
	i.t.Helper()
	if ty, err := i.r.Next(wire.Of(wire.TypeWelcome, wire.TypeRefuse)); err != nil || ty != wire.TypeWelcome {
		i.t.Fatalf("%v, %v instead of a welcome", ty, err)
	}
	_, err := i.r.Welcome()
	check(i.t, err)
}

// told is the code of the refusal that comes next, 0 when the peer hangs up without one.
func (i *impostor) told() wire.Code {
	for {
		ty, err := i.r.Next(wire.Of(wire.TypeWelcome, wire.TypeAck, wire.TypeBeat, wire.TypeRefuse))
		switch {
		case err != nil:
			return 0
		case ty == wire.TypeRefuse:
			code, _ := i.r.Refuse()
			return code
		}
	}
}

// say sends frames; the peer may hang up meanwhile.
func (i *impostor) say(frames ...[]byte) {
	for _, f := range frames {
		if _, err := i.c.Write(f); err != nil {
			return
		}
	}
}

// falseRecord is a frame with one record at p, of data that says so.
func falseRecord(p format.Position, lba uint64, commit bool, change func(r *wire.Records)) []byte {
	data := stamped(0xbad0000 + uint64(p))
	r := wire.Records{First: p, End: p + 1, Commit: commit, Data: data,
		Entries: []format.Entry{{Birth: p, LBA: lba, Kind: format.KindData, Count: 1, CRC: format.Sum(data)}}}
	change(&r)
	b, err := wire.AppendRecords(nil, &r)
	if err != nil {
		panic(err)
	}
	return append(b, r.Data...)
}

func asItIs(*wire.Records) {}
func honest(*wire.Hello)   {}

// TestHostileSource is the table of what a peer must not take from a source that it has let in. What was not a whole
// epoch leaves no trace, the peer says why it hangs up, and the volume's own source goes on as if nothing had been.
func TestHostileSource(t *testing.T) {
	frame := func(ty byte, n uint32) []byte { // a header that promises n bytes
		b := []byte{'C', 'W', 'R', 'M', ty, 0, 0, 0}
		b = binary.LittleEndian.AppendUint32(b, n)
		return binary.LittleEndian.AppendUint32(b, 0)
	}
	discards := func(p format.Position, commit bool) []byte { // as many records as a frame takes, without data
		r := wire.Records{First: p, End: p + wire.MaxEntries, Commit: commit}
		for i := range format.Position(wire.MaxEntries) {
			r.Entries = append(r.Entries, format.Entry{Birth: p + i, LBA: 1, Kind: format.KindDiscard, Count: 1})
		}
		b, err := wire.AppendRecords(nil, &r)
		check(t, err)
		return b
	}
	tests := []struct {
		name string
		play func(i *impostor)
		told wire.Code
	}{
		{"an epoch that does not end", func(i *impostor) {
			i.say(falseRecord(i.at, 1, false, asItIs), falseRecord(i.at+1, 2, false, asItIs))
			i.c.(*memConn).CloseWrite()
		}, 0},
		{"an epoch that never ends", func(i *impostor) {
			for p := i.at; p < i.at+1<<20; p += wire.MaxEntries {
				i.say(discards(p, false))
			}
		}, wire.CodeGarbage},
		{"a frame twice", func(i *impostor) {
			f := falseRecord(i.at, 1, false, asItIs)
			i.say(f, f)
		}, wire.CodeFailed},
		{"a frame of long ago", func(i *impostor) { i.say(falseRecord(0, 1, true, asItIs)) }, wire.CodeFailed},
		{"a gap", func(i *impostor) { i.say(falseRecord(i.at+5, 1, true, asItIs)) }, wire.CodeFailed},
		{"data that does not match its checksum", func(i *impostor) {
			i.say(falseRecord(i.at, 1, true, func(r *wire.Records) { r.Entries[0].CRC ^= 1 }))
		}, wire.CodeFailed},
		{"a record beyond the end", func(i *impostor) {
			i.say(falseRecord(i.at, uint64(i.size/chunk), true, asItIs))
		}, wire.CodeGarbage},
		{"a discard across the end", func(i *impostor) {
			i.say(falseRecord(i.at, 0, true, func(r *wire.Records) {
				r.Data = nil
				r.Entries[0] = format.Entry{Birth: r.First, LBA: 1, Kind: format.KindDiscard, Count: 1<<32 - 1}
			}))
		}, wire.CodeGarbage},
		{"a frame of 4 GiB", func(i *impostor) { i.say(frame(byte(wire.TypeRecords), 1<<32-1)) }, wire.CodeGarbage},
		{"a frame of unknown type", func(i *impostor) { i.say(frame(99, 10)) }, wire.CodeGarbage},
		{"a second HELLO", func(i *impostor) { i.say(otherVersion(wire.TypeHello)) }, wire.CodeGarbage},
		{"a WELCOME", func(i *impostor) { i.say(otherVersion(wire.TypeWelcome)) }, wire.CodeGarbage},
		{"an ACK", func(i *impostor) { i.say(wire.AppendAck(nil, i.at)) }, wire.CodeGarbage},
		{"noise", func(i *impostor) { i.say(bytes.Repeat([]byte{0xa5}, 4096)) }, wire.CodeGarbage},
		{"a stop in the middle of a payload", func(i *impostor) {
			i.say(falseRecord(i.at, 1, true, asItIs)[:2000])
			time.Sleep(time.Minute)
		}, 0},
		{"answers that nobody reads", func(i *impostor) { time.Sleep(time.Minute) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
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

				i := impostorOf(t, n, v, honest)
				i.accepted()
				i.say(wire.AppendBeat(nil))
				tt.play(i)
				if told := i.told(); told != tt.told {
					t.Errorf("told %v, want %v", told, tt.told)
				}
				i.c.Close()
				eventually(t, "the end of the feed", func() bool { return !s.peer.Status()[0].Connected },
					func() any { return s.peer.Status() })
				if st := s.v.Status(); st.EndPtr != at || !bytes.Equal(before, content(t, s.v)) {
					t.Errorf("a trace is left: position %d, was %d", st.EndPtr, at)
				}
				m = startMirror(t, v, mirrorConfig(n))
				write(t, v, 9, 9)
				synced(t, v, m)
				sameContent(t, v, s.v)
			})
		})
	}
}

// TestLyingSource is the table of HELLOs that a peer must not believe while the volume's own source feeds it. That one
// does not notice.
func TestLyingSource(t *testing.T) {
	tests := []struct {
		name string
		lie  func(h *wire.Hello)
		told wire.Code
	}{
		{"another container", func(h *wire.Hello) { h.Container = uuid(9) }, wire.CodeBusy},
		{"another volume", func(h *wire.Hello) { h.Volume = uuid(9) }, wire.CodeOtherVolume},
		{"another size", func(h *wire.Hello) { h.Size -= chunk }, wire.CodeOtherSize},
		{"a position of long ago", func(h *wire.Hello) { h.DurablePtr = 1 }, wire.CodeAhead},
		{"another lineage", func(h *wire.Hello) { h.Lineage = []format.Lineage{{ID: uuid(9)}} }, wire.CodeDiverged},
		{"another name", func(h *wire.Hello) { h.Name = "vm2" }, wire.CodeUnknownName},
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		for i := range int64(5) {
			write(t, v, i, 1)
		}
		synced(t, v, m)
		dials := n.dialled()
		for i, tt := range tests {
			liar := impostorOf(t, n, v, tt.lie)
			liar.say(falseRecord(liar.at, 1, true, asItIs)) // does not wait to be asked
			if told := liar.told(); told != tt.told {
				t.Errorf("%s: told %v, want %v", tt.name, told, tt.told)
			}
			liar.c.Close()
			write(t, v, 6, uint64(i))
			synced(t, v, m)
			sameContent(t, v, s.v)
		}
		if again := n.dialled() - dials; again != len(tests) || m.Status().LastError != "" {
			t.Errorf("the liars were felt: %d dials, %+v", again, m.Status())
		}
	})
}

// TestReplayedAck ensures that an acknowledgement counts once: a peer that repeats an old one moves nothing.
func TestReplayedAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newSource(t, 64)
		write(t, v, 1, 1)
		check(t, v.Flush())
		var replays atomic.Int32
		peer := stranger{func(c net.Conn) {
			r, h, ok := readHello(c)
			if !ok {
				return
			}
			b, _ := wire.AppendWelcome(nil, &wire.Welcome{Volume: h.Volume, Lineage: h.Lineage, Name: "liar"})
			_, _ = c.Write(b)
			for records := 0; ; {
				ty, err := r.Next(wire.Of(wire.TypeBeat, wire.TypeRecords))
				if err != nil {
					return
				}
				if ty == wire.TypeRecords {
					records++
				}
				if records > 0 { // also for the beats, and for the second epoch
					_, _ = c.Write(wire.AppendAck(nil, 1))
					replays.Add(1)
				}
			}
		}}
		cfg := mirrorConfig(nil)
		cfg.Dial = peer.dial
		m := startMirror(t, v, cfg)
		stateIs(t, m, cawrm.StateSynced, "")
		write(t, v, 2, 2)
		check(t, v.Flush())
		time.Sleep(time.Minute)
		if st := m.Status(); st.SyncPtr != 1 || st.LagRecords != 1 || st.State != cawrm.StateSyncing || replays.Load() < 10 {
			t.Errorf("after %d times the same acknowledgement: %+v", replays.Load(), st)
		}
		m.Close()
	})
}

// TestOneWaitsToReplace ensures that while a feed's commit takes long, one connection of the same source waits to replace
// it, and any more are told so instead of waiting too.
func TestOneWaitsToReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		d := &slowSync{Disk: newDisk(t, aodi.CreateOptions{Mirror: true})}
		s := newSite(t, n, openVolume(t, d, aodi.Options{}))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 0, 1)
		synced(t, v, m)
		m.Close()
		eventually(t, "the end of the feed", func() bool { return !s.peer.Status()[0].Connected },
			func() any { return s.peer.Status() })

		feeds := impostorOf(t, n, v, honest)
		feeds.accepted()
		d.wait.Store(int64(5 * time.Second))
		feeds.say(wire.AppendBeat(nil), falseRecord(feeds.at, 1, true, asItIs))
		time.Sleep(time.Second)
		waits := impostorOf(t, n, v, func(h *wire.Hello) { h.DurablePtr++ })
		time.Sleep(time.Second)
		for range 3 {
			more := impostorOf(t, n, v, func(h *wire.Hello) { h.DurablePtr++ })
			if told := more.told(); told != wire.CodeBusy {
				t.Errorf("told %v", told)
			}
			more.c.Close()
		}
		waits.accepted()
		waits.c.Close()
		feeds.c.Close()
	})
}

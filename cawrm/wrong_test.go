package cawrm_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/aodi/format"
	"cawrm/cawrm"
	"cawrm/cawrm/wire"
)

// refused waits for a refusal and holds both sides' messages against what they must say.
func refused(t *testing.T, m *cawrm.Mirror, s *site, source, peer string) {
	t.Helper()
	stateIs(t, m, cawrm.StateDown, source)
	eventually(t, "the peer's message", func() bool { return strings.Contains(s.logs.String(), peer) },
		func() any { return s.logs.String() })
}

// TestWrongPeer is the table of peers that cannot mirror this source. Both sides say which and why.
func TestWrongPeer(t *testing.T) {
	mirrored := func(t *testing.T, v *aodi.Volume, records int) *disk.Memory { // a mirror's disk that was fed by v
		n := newNetwork()
		d := newDisk(t, aodi.CreateOptions{Mirror: true})
		mv := openVolume(t, d, aodi.Options{})
		s := newSite(t, n, mv)
		m := startMirror(t, v, mirrorConfig(n))
		for i := range records {
			write(t, v, int64(i), 7)
		}
		synced(t, v, m)
		m.Close()
		s.close(t)
		check(t, mv.Close())
		return d
	}
	tests := []struct {
		name   string
		make   func(t *testing.T) (source, peer *aodi.Volume)
		source string // in the source's LastError
		peer   string // in the peer's log
	}{
		{"a primary", func(t *testing.T) (*aodi.Volume, *aodi.Volume) { return newSource(t, 64), newSource(t, 64) },
			`refused by the other side (not a mirror): "vm" is no mirror: the volume there is a primary`, `is no mirror`},
		{"another volume's mirror", func(t *testing.T) (*aodi.Volume, *aodi.Volume) {
			return newSource(t, 64), openVolume(t, mirrored(t, newSource(t, 64), 3), aodi.Options{})
		}, `(other volume): "vm" mirrors volume `, `mirrors volume `},
		{"a mirror that is ahead", func(t *testing.T) (*aodi.Volume, *aodi.Volume) {
			d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
			v := openVolume(t, d, aodi.Options{})
			write(t, v, 0, 1)
			check(t, v.Flush())
			backup := d.Crash(rand.New(rand.NewPCG(1, 1))) // the container as it was then
			t.Cleanup(backup.Free)
			m := mirrored(t, v, 10)
			return openVolume(t, backup, aodi.Options{}), openVolume(t, m, aodi.Options{})
		}, `(ahead): "vm": the mirror is ahead: it stands at position 11 of lineage`, `the source is an older copy of the volume`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, peer := tt.make(t)
				before := peer.Status()
				n := newNetwork()
				s := newSite(t, n, peer)
				m := startMirror(t, source, mirrorConfig(n))
				write(t, source, 5, 5)
				check(t, source.Flush())
				refused(t, m, s, tt.source, tt.peer)
				if f := s.peer.Status()[0]; f.LastError == "" || f.Connected {
					t.Errorf("the peer's status is %+v", f)
				}
				dials := n.dialled()
				time.Sleep(time.Minute)
				if again := n.dialled() - dials; again < 4 || again > 8 {
					t.Errorf("%d more attempts within a minute", again)
				}
				if after := peer.Status(); after.Volume != before.Volume || after.EndPtr != before.EndPtr {
					t.Errorf("the peer's volume has changed: %+v, was %+v", after, before)
				}
			})
		})
	}
}

func TestUnknownName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		s := newSite(t, n, newMirror(t))
		cfg := mirrorConfig(n)
		cfg.URL = "cawrm://peer/nosuch"
		m := startMirror(t, newSource(t, 64), cfg)
		refused(t, m, s, `(unknown name): peer "siteB" serves no volume named "nosuch"`, `serves no volume`)
	})
}

// stranger answers each dial with a function.
type stranger struct{ play func(c net.Conn) }

func (s stranger) dial(context.Context, string) (net.Conn, error) {
	n := newNetwork()
	c := make(chan net.Conn, 1)
	go func() { p, _ := n.Accept(); c <- p }()
	ours, err := n.dial(context.Background(), "")
	theirs := <-c
	go func() { defer theirs.Close(); s.play(theirs) }()
	return ours, err
}

// readHello takes a source's HELLO, as every fake peer does.
func readHello(c net.Conn) (*wire.Reader, wire.Hello, bool) {
	r := wire.NewReader(c)
	if _, err := r.Next(wire.Of(wire.TypeHello)); err != nil {
		return r, wire.Hello{}, false
	}
	h, err := r.Hello()
	return r, h, err == nil
}

// TestLyingPeer is the table of what a source must not believe. It says so to the peer, where that one can hear it.
func TestLyingPeer(t *testing.T) {
	welcome := func(h wire.Hello, change func(w *wire.Welcome)) []byte {
		w := wire.Welcome{Volume: h.Volume, Lineage: h.Lineage, Name: "liar"}
		change(&w)
		b, err := wire.AppendWelcome(nil, &w)
		if err != nil {
			panic(err)
		}
		return b
	}
	say := func(change func(w *wire.Welcome)) func(net.Conn, wire.Hello, *wire.Reader) {
		return func(c net.Conn, h wire.Hello, _ *wire.Reader) { _, _ = c.Write(welcome(h, change)) }
	}
	// ack takes some epochs and then acknowledges.
	ack := func(acks ...format.Position) func(net.Conn, wire.Hello, *wire.Reader) {
		return func(c net.Conn, h wire.Hello, r *wire.Reader) {
			_, _ = c.Write(welcome(h, func(*wire.Welcome) {}))
			for records := 0; records < 3; {
				ty, err := r.Next(wire.Of(wire.TypeBeat, wire.TypeRecords))
				if err != nil {
					return
				}
				if ty == wire.TypeRecords {
					records++
				}
			}
			for _, a := range acks {
				_, _ = c.Write(wire.AppendAck(nil, a))
			}
		}
	}
	raw := func(s string) func(net.Conn, wire.Hello, *wire.Reader) {
		return func(c net.Conn, _ wire.Hello, _ *wire.Reader) { _, _ = io.WriteString(c, s) }
	}
	tests := []struct {
		name   string
		play   func(net.Conn, wire.Hello, *wire.Reader)
		source string
		told   wire.Code // what the peer hears; 0: nothing
	}{
		{"position beyond durable_ptr", say(func(w *wire.Welcome) { w.SyncPtr = 1000 }), "the mirror is ahead: it stands at position 1000", wire.CodeAhead},
		{"another volume", say(func(w *wire.Welcome) { w.Volume = uuid(9) }), "mirrors volume 09000000", wire.CodeOtherVolume},
		{"another lineage", say(func(w *wire.Welcome) { w.Lineage = []format.Lineage{{ID: uuid(9)}} }), "no lineage in common", wire.CodeDiverged},
		{"promoted", say(func(w *wire.Welcome) {
			w.Lineage = append(w.Lineage, format.Lineage{ID: uuid(9)})
			w.SyncPtr = 1 << 48
		}), "diverged at position 0", wire.CodeDiverged},
		{"capabilities out of nothing", say(func(w *wire.Welcome) { w.Capabilities = 4 }), "that were not offered", wire.CodeLied},
		{"ack beyond what was sent", ack(1000), "acknowledges position 1000", wire.CodeLied},
		{"ack within an epoch", ack(2), "acknowledges position 2, which is no epoch", wire.CodeLied},
		{"ack going back", ack(3, 1), "acknowledges position 1, which is no epoch", wire.CodeLied},
		{"HTTP", raw("HTTP/1.1 400 Bad Request\r\n\r\n"), `not a cawrm mirror stream: the other side says "HTTP/1.1 400 Bad"`, 0},
		{"NBD", raw("NBDMAGICIHAVEOPT\x00\x03"), `NBDMAGIC`, 0},
		{"SSH", raw("SSH-2.0-OpenSSH_9.9\r\n"), `SSH-2.0`, 0},
		{"silence", raw(""), "no welcome", 0},
		{"another version", raw(string(otherVersion(wire.TypeWelcome))), "the other side speaks 7, this program 3", wire.CodeVersion},
		{"records from a peer", func(c net.Conn, _ wire.Hello, _ *wire.Reader) {
			b, _ := wire.AppendRecords(nil, &wire.Records{End: 1, Entries: []format.Entry{{Kind: format.KindDiscard, Count: 1}}})
			_, _ = c.Write(b)
		}, "RECORDS: frame out of turn", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newSource(t, 64)
				heard := make(chan wire.Code, 100)
				peer := stranger{func(c net.Conn) {
					r, h, ok := readHello(c)
					if !ok {
						return
					}
					tt.play(c, h, r)
					for {
						ty, err := r.Next(wire.Of(wire.TypeBeat, wire.TypeRecords, wire.TypeRefuse))
						if err != nil {
							return
						}
						if ty == wire.TypeRefuse {
							code, _ := r.Refuse()
							heard <- code
							return
						}
					}
				}}
				cfg := mirrorConfig(nil)
				cfg.Dial = peer.dial
				var m *cawrm.Mirror
				for i := range 3 { // three epochs: [0, 1), [1, 3), [3, 4)
					for range 1 + i%2 {
						write(t, v, int64(i), 1)
					}
					check(t, v.Flush())
					if m == nil {
						m = startMirror(t, v, cfg)
					}
					time.Sleep(time.Millisecond)
				}
				stateIs(t, m, cawrm.StateDown, tt.source)
				select {
				case code := <-heard:
					if code != tt.told {
						t.Errorf("the peer was told %v, want %v", code, tt.told)
					}
				case <-time.After(3 * time.Second):
					if tt.told != 0 {
						t.Errorf("the peer was told nothing, want %v", tt.told)
					}
				}
				if p := m.Status().SyncPtr; p > 4 {
					t.Errorf("the lie was believed: sync_ptr is %d", p)
				}
				m.Close()
			})
		})
	}
}

// otherVersion is a HELLO or WELCOME of a version to come, in a layout that nobody knows yet.
func otherVersion(ty wire.Type) []byte {
	b := []byte("CWRM")
	b = append(b, byte(ty), 0, 0, 0, 3, 0, 0, 0)
	body := []byte{7, 0, 0xff}
	crc := format.Sum(append(bytes.Clone(b), body...))
	return append(append(b, byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)), body...)
}

// TestStrangers is what comes to an open port. None of it disturbs the source that is being mirrored.
func TestStrangers(t *testing.T) {
	hello := func(change func(h *wire.Hello)) string {
		h := wire.Hello{KeepAlive: time.Second, Volume: uuid(1), Container: uuid(2), Size: 64 * chunk, Name: "vm", Lineage: []format.Lineage{{ID: uuid(1)}}}
		change(&h)
		b, _ := wire.AppendHello(nil, &h)
		return string(b)
	}
	good := hello(func(*wire.Hello) {})
	flipped := []byte(good)
	flipped[40] ^= 1
	tests := []struct {
		name, says string
		told       wire.Code
		log        string
	}{
		{"port scan", "", 0, ""},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", wire.CodeGarbage, `GET / HTTP/1.1`},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefghijkl", wire.CodeGarbage, "not a cawrm mirror stream"},
		{"NBD", "\x00\x00\x00\x03IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x04", wire.CodeGarbage, "not a cawrm mirror stream"},
		{"one byte", "x", wire.CodeGarbage, "other side says"},
		{"half a hello", good[:50], wire.CodeGarbage, "HELLO: unexpected EOF"},
		{"length of 4 GiB", "CWRM\x01\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00", wire.CodeGarbage, "4294967295 bytes"},
		{"records first", "CWRM\x04\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00", wire.CodeGarbage, "RECORDS: frame out of turn"},
		{"damaged hello", string(flipped), wire.CodeGarbage, "checksum"},
		{"another version", string(otherVersion(wire.TypeHello)), wire.CodeVersion, "the other side speaks 7, this program 3"},
		{"size of nothing", hello(func(h *wire.Hello) { h.Size = 0 }), wire.CodeGarbage, "out of range"},
		{"unknown name", hello(func(h *wire.Hello) { h.Name = "\x1b[2J" }), wire.CodeUnknownName, `serves no volume named`},
		{"another volume", good, wire.CodeOtherVolume, `the source is volume 01000000`},
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)
		for _, tt := range tests {
			c, err := n.dial(context.Background(), "")
			check(t, err)
			_, _ = io.WriteString(c, tt.says)
			if cw := c.(*memConn); true {
				_ = cw.CloseWrite()
			}
			var told wire.Code
			r := wire.NewReader(c)
			if ty, err := r.Next(wire.Of(wire.TypeRefuse, wire.TypeWelcome)); err == nil && ty == wire.TypeRefuse {
				told, _ = r.Refuse()
			}
			c.Close()
			time.Sleep(2 * time.Second)
			if told != tt.told || !strings.Contains(s.logs.String(), strings.ReplaceAll(tt.log, `"`, `\"`)) {
				t.Errorf("%s: told %v, want %v; the log has no %q:\n%s", tt.name, told, tt.told, tt.log, s.logs.String())
			}
		}
		// Slow ones: a byte now and then does not buy time.
		slow, err := n.dial(context.Background(), "")
		check(t, err)
		start := time.Now()
		var dead bool
		for i := range 60 {
			if _, err := slow.Write([]byte(good[i : i+1])); err != nil {
				dead = true
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); !dead || d > 13*time.Second {
			t.Errorf("a HELLO at one byte a second was listened to for %v", d)
		}
		slow.Close()
		// Many ones: they are closed, and the volume's source goes on.
		var crowd []net.Conn
		for range 200 {
			c, err := n.dial(context.Background(), "")
			check(t, err)
			crowd = append(crowd, c)
		}
		time.Sleep(time.Second)
		write(t, v, 2, 2)
		synced(t, v, m)
		closed := 0
		for _, c := range crowd {
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
				closed++
			}
			c.Close()
		}
		if closed < 100 {
			t.Errorf("%d of 200 silent connections were closed at once", closed)
		}
		sameContent(t, v, s.v)
		if st := m.Status(); st.LastError != "" {
			t.Errorf("the strangers were felt: %+v", st)
		}
	})
}

func isTimeout(err error) bool {
	ne, ok := err.(interface{ Timeout() bool })
	return ok && ne.Timeout()
}

// TestSecondSource: the same source takes over from its half-dead self; another one of the same volume is told
// to wait, and gets its turn when the first is gone.
func TestSecondSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
		v := openVolume(t, d, aodi.Options{})
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)

		again := startMirror(t, v, mirrorConfig(n)) // the peer does not know that it is another mirror object
		stateIs(t, again, cawrm.StateSynced, "")
		eventually(t, "replaced", func() bool { return strings.Contains(s.logs.String(), "replaced by a new connection") },
			func() any { return s.logs.String() })
		m.Close()
		write(t, v, 2, 2)
		synced(t, v, again)
		sameContent(t, v, s.v)

		// A mirror of the same volume that feeds the next one is another container.
		n2 := newNetwork()
		second := newMirror(t)
		s2 := newSite(t, n2, second)
		cfg := mirrorConfig(n2)
		cfg.ID = "c"
		m2 := startMirror(t, v, cfg)
		synced(t, v, m2)
		chain := startMirror(t, second, mirrorConfig(n))
		stateIs(t, chain, cawrm.StateDown, "(busy): \"vm\" is being fed by another source of this volume")
		again.Close()
		write(t, v, 3, 3)
		synced(t, v, m2)
		stateIs(t, chain, cawrm.StateSynced, "")
		eventually(t, "the end of the chain", func() bool { return bytes.Equal(content(t, s.v), content(t, v)) },
			func() any { return chain.Status() })
		_ = s2
	})
}

// TestMirrorFails: the peer's volume can go on no more; the source says why, and keeps asking.
func TestMirrorFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		var broken failingDisk
		broken.Disk = newDisk(t, aodi.CreateOptions{Mirror: true})
		s := newSite(t, n, openVolume(t, &broken, aodi.Options{}))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)
		broken.fail.Store(true)
		write(t, v, 2, 2)
		check(t, v.Flush())
		refused(t, m, s, `refused by the other side (failed): mirror "vm": `, "the volume takes no more writes")
		time.Sleep(time.Minute)
		stateIs(t, m, cawrm.StateDown, "the volume takes no more writes")
		if st := m.Status(); st.LagRecords != 1 || st.SyncPtr != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestWindow (I5): the sender asks nobody until the window is full, and then sends nothing more. That is all that makes
// the rate independent of the round trip.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 8 << 20
		v := newSource(t, 4096)
		got := make(chan int64, 1000)
		peer := stranger{func(c net.Conn) {
			r, h, ok := readHello(c)
			if !ok {
				return
			}
			b, _ := wire.AppendWelcome(nil, &wire.Welcome{Volume: h.Volume, Lineage: h.Lineage})
			_, _ = c.Write(b)
			go func() { // alive, but it never acknowledges
				for {
					if _, err := c.Write(wire.AppendBeat(nil)); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
			var rec wire.Records
			for {
				ty, err := r.Next(wire.Of(wire.TypeBeat, wire.TypeRecords))
				if err != nil {
					return
				}
				if ty == wire.TypeRecords {
					if r.Records(&rec) != nil {
						return
					}
					got <- int64(len(rec.Data))
				}
			}
		}}
		cfg := mirrorConfig(nil)
		cfg.Dial, cfg.Window = peer.dial, window
		m := startMirror(t, v, uncompressed(cfg))
		time.Sleep(time.Minute)
		for i := range int64(4096) { // 16 MiB, while the link is up: more than that would go as one jump epoch
			write(t, v, i, uint64(i)) // no two the same
		}
		check(t, v.Flush())
		time.Sleep(time.Hour)
		var sum int64
		for len(got) > 0 {
			sum += <-got
		}
		if sum < window-2<<20 || sum > window+2<<20 {
			t.Errorf("%d bytes were sent without an acknowledgement, the window is %d", sum, window)
		}
		if st := m.Status(); st.State != cawrm.StateSyncing || st.SyncPtr != 0 || st.LagRecords != 4096 || st.ETASeconds != -1 {
			t.Errorf("status %+v", st)
		}
		m.Close()
		time.Sleep(2 * time.Second) // the peer's beats end
	})
}

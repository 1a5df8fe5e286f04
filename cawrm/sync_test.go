package cawrm_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// TestMirrorOverTCP: an existing volume, live writes, trims and zeroes, both sides closed and opened again, over
// the kernel's TCP.
func TestMirrorOverTCP(t *testing.T) {
	sourceDisk, mirrorDisk := newDisk(t, aodi.CreateOptions{Size: 1024 * chunk}), newDisk(t, aodi.CreateOptions{Mirror: true})
	var url string
	for round := range 3 {
		v, mv := openVolume(t, sourceDisk, aodi.Options{}), openVolume(t, mirrorDisk, aodi.Options{})
		for i := range int64(300) { // before there is a mirror, or while it is away
			write(t, v, i*3%1024, uint64(round)<<32|uint64(i))
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		peer := cawrm.NewPeer(cawrm.PeerConfig{})
		check(t, peer.AddVolume("vm", mv))
		served := make(chan error, 1)
		go func() { served <- peer.Serve(ln) }()
		url = "cawrm://" + ln.Addr().String() + "/vm"
		m := startMirror(t, v, cawrm.MirrorConfig{ID: "b", URL: url, Congestion: "cubic"})
		synced(t, v, m)
		check(t, v.Trim(100*chunk, 500*chunk, false))
		check(t, v.WriteZeroes(700*chunk, 20*chunk, true, false))
		big := bytes.Repeat(stamped(99), 512)
		check(t, v.WriteAt(big, 200*chunk, false))
		check(t, v.WriteAt([]byte("part of a chunk"), 5*chunk+77, false))
		synced(t, v, m)
		sameContent(t, v, mv)
		end, durable := v.Pointers()
		st := m.Status()
		if st.SyncPtr != end || st.SyncPtr != durable || st.LagBytes != 0 || st.LagSeconds != 0 || st.ETASeconds != 0 ||
			st.Reason != "" || st.LastError != "" || st.RateBps == 0 {
			t.Errorf("synced, but the status is %+v (end_ptr %d, durable_ptr %d)", st, end, durable)
		}
		feed := peer.Status()[0]
		if !feed.Connected || feed.Source == "" || feed.Container != v.Info().Container || time.Since(feed.LastContact) > time.Minute {
			t.Errorf("the peer's status is %+v", feed)
		}
		m.Close()
		peer.Close()
		check(t, <-served)
		check(t, v.Close())
		check(t, mv.Close())
	}
	if _, err := cawrm.ParseURL(url); err != nil {
		t.Error(err)
	}
}

// TestHintSurvives: before the first contact the status leans on what was remembered, also after a restart.
func TestHintSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
		v := openVolume(t, d, aodi.Options{})
		newSite(t, n, newMirror(t))
		write(t, v, 1, 1)
		m := startMirror(t, v, mirrorConfig(n))
		synced(t, v, m)
		at := m.Status().SyncPtr
		m.Close()
		check(t, v.Close())

		n.set(func(n *network) { n.refused = true })
		v = openVolume(t, d, aodi.Options{})
		write(t, v, 2, 2)
		write(t, v, 3, 3)
		time.Sleep(time.Minute)
		m = startMirror(t, v, mirrorConfig(n))
		stateIs(t, m, cawrm.StateDown, "connection refused")
		st := m.Status()
		if st.SyncPtr != at || st.LagRecords != 2 || st.LagBytes != 2*chunk || st.LagSeconds < 60 || st.ETASeconds != -1 {
			t.Errorf("before the first contact: %+v, want sync_ptr %d, a lag of 2 records, 8192 bytes, 60 s", st, at)
		}
	})
}

// TestNothingUndurableIsShipped (I1): what the source could still lose never leaves it.
func TestNothingUndurableIsShipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		d := newDisk(t, aodi.CreateOptions{Size: 64 * chunk})
		v := openVolume(t, d, aodi.Options{DurableInterval: 1000 * time.Hour, CheckpointInterval: 1000 * time.Hour})
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		stateIs(t, m, cawrm.StateSynced, "")
		for i := range int64(500) { // far more than one batch, so that most of it is on its way to the disk
			write(t, v, i%64, uint64(i+1))
		}
		time.Sleep(time.Hour)
		end, durable := v.Pointers()
		if p, _ := s.v.Pointers(); durable != 0 || p != 0 || n.carried() > 100<<10 {
			t.Errorf("nothing was flushed (durable_ptr %d), but the mirror stands at %d and %d bytes went over the wire", durable, p, n.carried())
		}
		st := m.Status()
		if st.State != cawrm.StateSynced || st.LagRecords != uint64(end) || st.LagBytes != 500*chunk || st.LagSeconds < 3600 {
			t.Errorf("status %+v, want synced with what is durable, and all of it lagging", st)
		}
		synced(t, v, m)
		sameContent(t, v, s.v)
	})
}

// TestStall: a link that carries nothing more without an error is found out by both sides, and left behind when it heals.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		s := newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)
		time.Sleep(time.Hour) // beats alone keep it up
		if st := m.Status(); st.State != cawrm.StateSynced || st.LastError != "" || n.dialled() != 1 {
			t.Fatalf("an idle hour: %+v after %d dials", st, n.dialled())
		}
		n.set(func(n *network) { n.stalled = true })
		before := time.Now()
		write(t, v, 2, 2)
		stateIs(t, m, cawrm.StateDown, "the link is stalled: nothing was heard for 10s")
		if d := time.Since(before); d < 8*time.Second || d > 11*time.Second {
			t.Errorf("found out after %v", d)
		}
		eventually(t, "the peer finds out too", func() bool { return !s.peer.Status()[0].Connected }, func() any { return s.peer.Status() })
		if f := s.peer.Status()[0]; !strings.Contains(f.LastError, "stalled") {
			t.Errorf("the peer says %+v", f)
		}
		time.Sleep(time.Minute)
		a := m.Status()
		time.Sleep(time.Minute)
		b := m.Status()
		if grown := b.LagSeconds - a.LagSeconds; a.LagSeconds < 60 || grown < 59.9 || grown > 60.1 || b.LagRecords != 1 || b.LagBytes != chunk {
			t.Errorf("down: %+v, a minute later %+v", a, b)
		}
		n.set(func(n *network) { n.stalled = false })
		healed := time.Now()
		synced(t, v, m)
		if d := time.Since(healed); d > 8*time.Second {
			t.Errorf("retried only %v after the link had healed", d)
		}
		sameContent(t, v, s.v)
	})
}

// TestRetry: a peer that is away is asked again soon, and not too often.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.refused = true
		v := newSource(t, 64)
		newSite(t, n, newMirror(t))
		m := startMirror(t, v, mirrorConfig(n))
		if st := m.Status(); st.State != cawrm.StateConnecting && st.State != cawrm.StateDown { // the first dial may be over
			t.Errorf("at first: %+v", st)
		}
		time.Sleep(10 * time.Minute)
		if n.dialled() < 200 || n.dialled() > 700 {
			t.Errorf("%d dials in ten minutes", n.dialled())
		}
		n.set(func(n *network) { n.refused = false })
		healed := time.Now()
		stateIs(t, m, cawrm.StateSynced, "")
		if d := time.Since(healed); d > 3200*time.Millisecond {
			t.Errorf("asked only %v after it was back", d)
		}
	})
}

// TestStatusAddsUp: while backlogs are shipped, and between them, the scales of the lag agree with each other.
func TestStatusAddsUp(t *testing.T) {
	n := newNetwork()
	v := newSource(t, 4096)
	newSite(t, n, newMirror(t))
	var m *cawrm.Mirror
	var last aodi.Position
	const burst, bursts = 1000, 4
	for b := range int64(bursts) {
		for i := range int64(burst) {
			write(t, v, i, uint64(b))
		}
		if m == nil { // the first burst is there before the mirror
			m = startMirror(t, v, mirrorConfig(n))
		}
		check(t, v.Flush())
		end := aodi.Position((b + 1) * burst)
		eventually(t, "synced", func() bool {
			st := m.Status()
			if st.SyncPtr < last {
				t.Fatalf("sync_ptr went from %d to %d", last, st.SyncPtr)
			}
			last = st.SyncPtr
			if want := uint64(end - st.SyncPtr); st.LagRecords != want || st.LagBytes != int64(want)*chunk || (st.LagSeconds > 0) != (want > 0) {
				t.Fatalf("sync_ptr %d of %d single-chunk records: %+v", st.SyncPtr, end, st)
			}
			return st.State == cawrm.StateSynced
		}, func() any { return m.Status() })
	}
	if st, all := m.Status(), int64(burst*bursts); st.DataBytes != all*chunk || st.SentBytes < all*24 || st.SentBytes > all*chunk/20 {
		t.Errorf("%d bytes sent, of %d bytes of data; want all of %d, which can be compressed, for a twentieth", st.SentBytes, st.DataBytes, all*chunk)
	}
	// Each of these is on its way alone, and stays there.
	n.set(func(n *network) { n.stalled = true })
	for i := range int64(3) {
		write(t, v, i, 9)
		check(t, v.Flush())
		time.Sleep(2 * time.Millisecond)
	}
	if st := m.Status(); st.LagRecords != 3 || st.LagBytes != 3*chunk || st.LagSeconds < 0.004 || st.LagSeconds > 5 {
		t.Errorf("three chunks in flight: %+v", st)
	}
}

// TestSlowDiskIsNoDeadLink: a commit that takes a minute does not end the session, since the peer goes on beating.
func TestSlowDiskIsNoDeadLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		v := newSource(t, 64)
		var slow slowSync
		slow.Disk = newDisk(t, aodi.CreateOptions{Mirror: true})
		s := newSite(t, n, openVolume(t, &slow, aodi.Options{}))
		m := startMirror(t, v, mirrorConfig(n))
		write(t, v, 1, 1)
		synced(t, v, m)
		slow.wait.Store(int64(time.Minute))
		write(t, v, 2, 2)
		check(t, v.Flush())
		time.Sleep(30 * time.Second)
		if st := m.Status(); st.State != cawrm.StateSyncing || st.LagRecords != 1 || st.RateBps != 0 {
			t.Errorf("while the peer's disk takes its time: %+v", st)
		}
		time.Sleep(time.Minute)
		slow.wait.Store(0)
		synced(t, v, m)
		if n.dialled() != 1 {
			t.Errorf("%d connections, want the first to have lasted", n.dialled())
		}
		sameContent(t, v, s.v)
	})
}

// TestSlowLine: a line on which one frame takes longer than the silence that means death is not dead, and what is
// said on it does not wait behind the records.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.rate = 20 << 10 // a megabyte takes 50 s
		v := newSource(t, 1024)
		s := newSite(t, n, newMirror(t))
		for i := range int64(600) {
			write(t, v, i, uint64(i))
		}
		check(t, v.Flush())
		m := startMirror(t, v, uncompressed(mirrorConfig(n)))
		time.Sleep(40 * time.Second)
		if st := m.Status(); st.State != cawrm.StateSyncing || st.SyncPtr != 0 || st.LagRecords != 600 {
			t.Errorf("within the first frame: %+v", st)
		}
		time.Sleep(5 * time.Minute)
		synced(t, v, m)
		if st := m.Status(); st.LastError != "" || n.dialled() != 1 {
			t.Errorf("the line was given up: %+v, %d connections", st, n.dialled())
		}
		sameContent(t, v, s.v)
	})
}

// TestCloseIsPrompt: nothing that the network or the other side does holds up a Close.
func TestCloseIsPrompt(t *testing.T) {
	for _, how := range []string{"idle", "stalled", "stalled in transfer", "down"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.refused = how == "down"
				v := newSource(t, 1024)
				s := newSite(t, n, newMirror(t))
				m := startMirror(t, v, mirrorConfig(n))
				if how != "down" {
					stateIs(t, m, cawrm.StateSynced, "")
				}
				n.set(func(n *network) { n.stalled = strings.HasPrefix(how, "stalled") })
				if how == "stalled in transfer" {
					for i := range int64(1024) {
						write(t, v, i, 1)
					}
				}
				time.Sleep(3 * time.Second)
				start := time.Now()
				m.Close()
				if d := time.Since(start); d > 0 {
					t.Errorf("the mirror took %v to close", d)
				}
				s.close(t)
				if d := time.Since(start); d > 3*time.Second {
					t.Errorf("the peer took %v to close", d)
				}
			})
		})
	}
}

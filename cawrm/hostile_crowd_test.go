package cawrm_test

import (
	"net"
	"testing"
	"time"

	"cawrm/bench/crowd"
	"cawrm/cawrm"
)

// TestTenThousandStrangers ensures that 10,000 connections which say nothing cost a peer the memory and the files of
// 64, that the source which feeds the volume does not notice, and that one which comes in the middle of them gets in.
func TestTenThousandStrangers(t *testing.T) {
	n := crowd.Allowed(t, 10_000)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	peer := cawrm.NewPeer(cawrm.PeerConfig{Name: "siteB"})
	first, second := newMirror(t), newMirror(t)
	check(t, peer.AddVolume("first", first))
	check(t, peer.AddVolume("second", second))
	served := make(chan error, 1)
	go func() { served <- peer.Serve(l) }()
	t.Cleanup(func() {
		peer.Close()
		check(t, <-served)
	})
	v := newSource(t, 64)
	url := "cawrm://" + l.Addr().String()
	m := startMirror(t, v, cawrm.MirrorConfig{ID: "first", URL: url + "/first"})
	write(t, v, 0, 1)
	synced(t, v, m)

	memory, files := crowd.Held(), crowd.Files()
	done := make(chan struct{})
	go func() {
		defer close(done)
		crowd.Open(t, "tcp", l.Addr().String(), n)
	}()
	late := startMirror(t, v, cawrm.MirrorConfig{ID: "second", URL: url + "/second"})
	var syncs crowd.Latencies
	for i, alive := int64(1), true; alive; i++ {
		select {
		case <-done:
			alive = false
		default:
		}
		syncs.Time(func() {
			write(t, v, i%64, uint64(i))
			synced(t, v, m)
		})
	}
	synced(t, v, late)
	held := crowd.Held() - memory - int64(n)*crowd.OwnSide
	t.Logf("%d connections: %d KiB and %d files on the peer's side; the bound is %d KiB", n, held>>10,
		crowd.Files()-files-n, peer.MemoryBound()>>10)
	syncs.Log(t, "written, flushed, mirrored")
	if held > peer.MemoryBound() {
		t.Errorf("%d bytes are held, the bound is %d", held, peer.MemoryBound())
	}
	if more := crowd.Files() - files - n; files > 0 && more > 64+8 {
		t.Errorf("%d files are open on the peer's side", more)
	}
	sameContent(t, v, first)
	sameContent(t, v, second)
	if st := m.Status(); st.LastError != "" {
		t.Errorf("the crowd was felt: %+v", st)
	}
}

// TestCrowdIsDroppedByAddress ensures that a crowd from one address does not take the place of a slow source at another.
func TestCrowdIsDroppedByAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	peer := cawrm.NewPeer(cawrm.PeerConfig{})
	served := make(chan error, 1)
	go func() { served <- peer.Serve(l) }()
	t.Cleanup(func() {
		peer.Close()
		check(t, <-served)
	})
	from := func(host string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
		c, err := d.Dial("tcp", l.Addr().String())
		check(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	slow := from("127.0.0.1")
	var crowd []net.Conn
	for range 200 {
		crowd = append(crowd, from("127.0.0.2"))
	}
	_ = crowd[200-64-1].SetReadDeadline(time.Now().Add(patience))
	if _, err := crowd[200-64-1].Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Fatalf("the crowd is let in whole: %v", err)
	}
	_ = slow.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := slow.Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("the slow one was dropped: %v", err)
	}
}

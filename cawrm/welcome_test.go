package cawrm_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"cawrm/cawrm"
)

// gateConn holds its first write back.
type gateConn struct {
	net.Conn
	once    sync.Once
	writing chan struct{}
	gate    chan struct{}
}

func (c *gateConn) Write(b []byte) (int, error) {
	c.once.Do(func() { close(c.writing); <-c.gate })
	return c.Conn.Write(b)
}

type gateListener struct {
	net.Listener
	writing, gate chan struct{}
	n             int
}

func (l *gateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.n == 0 {
		l.n++
		return &gateConn{Conn: c, writing: l.writing, gate: l.gate}, nil
	}
	return c, err
}

// TestCloseDuringWelcome ensures that a peer that is closed while it writes a WELCOME ends.
func TestCloseDuringWelcome(t *testing.T) {
	src := newSource(t, 64)
	mv := newMirror(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	gl := &gateListener{Listener: ln, writing: make(chan struct{}), gate: make(chan struct{})}
	p := cawrm.NewPeer(cawrm.PeerConfig{})
	check(t, p.AddVolume("vm", mv))
	done := make(chan error, 1)
	go func() { done <- p.Serve(gl) }()
	m, err := cawrm.Start(src, cawrm.MirrorConfig{ID: "b", URL: "cawrm://" + ln.Addr().String() + "/vm"})
	check(t, err)
	<-gl.writing
	closed := make(chan struct{})
	go func() { p.Close(); close(closed) }()
	time.Sleep(200 * time.Millisecond)
	close(gl.gate)
	<-closed // the test's own time limit is the only one
	m.Close()
	<-done
}

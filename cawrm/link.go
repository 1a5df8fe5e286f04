package cawrm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// drainTime bounds how long a side that has refused the other waits for it to hang up.
const drainTime = time.Second

// link is a connection on which silence is an error: a Read to which not one byte comes within silence fails.
//
// The measure is bytes, not frames: on a slow line a frame of a megabyte may take longer than silence. Writes of bulk have no
// deadline, since a peer whose disk is slow, and who says so by its beats, is not dead; what ends a write on a
// dead line is the reader beside it, which hears nothing and closes the link.
type link struct {
	net.Conn
	silence time.Duration
	sent    *atomic.Int64 // bytes put on the wire; may be shared by links that follow each other
	secure  *secured      // TLS over this link, once both sides have proved who they are; nil: none

	mu    sync.Mutex
	fixed bool  // the read deadline was set for good, Read does not move it
	why   error // of closeFor
}

func newLink(c net.Conn, silence time.Duration, sent *atomic.Int64) *link {
	return &link{Conn: c, silence: silence, sent: sent}
}

func (l *link) String() string { return l.RemoteAddr().String() }

// Read reads what there is.
func (l *link) Read(p []byte) (int, error) {
	l.mu.Lock()
	if !l.fixed {
		_ = l.SetReadDeadline(time.Now().Add(l.silence)) // fails on a closed connection, as Read will
	}
	l.mu.Unlock()
	n, err := l.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && !l.isFixed() {
		err = fmt.Errorf("the link is stalled: nothing was heard for %v", l.silence)
	}
	return n, err
}

// closeFor closes the link for a reason of this side's own. Any goroutine; the first reason counts.
func (l *link) closeFor(why error) {
	l.mu.Lock()
	if l.why == nil {
		l.why = why
	}
	l.mu.Unlock()
	l.Close()
}

// because is the reason for which this side has closed the link, else err, with which reading or writing has ended.
func (l *link) because(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return l.why
	}
	return err
}

func (l *link) isFixed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fixed
}

// endReads lets reads go on for at most d, whatever arrives. It may be called while another goroutine reads.
func (l *link) endReads(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = true
	_ = l.SetReadDeadline(time.Now().Add(d)) // fails on a closed connection, which reads no more anyway
}

// renewReads takes endReads back.
func (l *link) renewReads() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fixed = false
}

// Write puts bytes on the wire as they are.
func (l *link) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	l.sent.Add(int64(n))
	return n, err
}

// stream is what the other side says, and is told.
func (l *link) stream() io.ReadWriter {
	if l.secure != nil {
		return l.secure
	}
	return l
}

// identity is whom the other side has proved to be, for people; "" without TLS.
func (l *link) identity() string {
	switch {
	case l.secure == nil:
		return ""
	case l.secure.names == nil:
		return "secret"
	}
	return "certificate " + strings.Join(l.secure.names, ", ")
}

// writev sends all of bufs with as few system calls as the connection allows.
func (l *link) writev(bufs *net.Buffers) error {
	if l.secure != nil {
		_, err := bufs.WriteTo(l.secure)
		return err
	}
	n, err := bufs.WriteTo(l.Conn) // the bare connection: only TCP's own type has the vectored call
	l.sent.Add(n)
	return err
}

// say sends a small frame, which a live link takes at once.
func (l *link) say(frame []byte, d time.Duration) error {
	_ = l.SetWriteDeadline(time.Now().Add(d)) // fails on a closed connection, as Write will
	_, err := l.stream().Write(frame)
	_ = l.SetWriteDeadline(time.Time{})
	return err
}

// refuse sends a refusal, hangs up, and waits for the other side to do so too: a connection that is closed with
// unread bytes in it is reset, and a reset can overtake the message.
func (l *link) refuse(frame []byte) {
	if l.say(frame, drainTime) == nil {
		l.hangUp()
	}
	l.Close()
}

// hangUp says nothing more, and lets the other side read what was said.
func (l *link) hangUp() {
	if c, ok := l.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // on error there is nobody left to be told
	}
	l.endReads(drainTime)
	discard(l.Conn)
}

// discard reads to the end or to the deadline.
func discard(c net.Conn) {
	b := make([]byte, 4<<10)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

package control

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// maxVisitors is how many connections the server has at a time. For a further one the oldest goes that has no
// request in work, however far it has got with sending one or reading an answer.
const maxVisitors = 64

// visitors are the server's connections.
type visitors struct {
	slots chan struct{} // one for each, also for those that are dropped until they have gone

	idle chan struct{} // somebody may have gone, or have no request in work any more

	mu   sync.Mutex
	list []*visitor // not dropped, oldest first
}

type visitor struct {
	of   *visitors
	c    net.Conn
	busy bool // a request of it is in work; guarded by visitors.mu
}

// BoundVisitors lets so many connect to a server, before it serves. Nobody who is silent, or slow with a request or with an
// answer, keeps others out.
func BoundVisitors(s *http.Server) {
	v := &visitors{slots: make(chan struct{}, maxVisitors), idle: make(chan struct{}, 1)}
	s.Handler, s.ConnContext, s.ConnState = v.handler(s.Handler), v.enter, v.changed
}

type visitorKey struct{}

// enter is the http.Server's ConnContext: a connection was accepted. It may hold up the next one.
func (v *visitors) enter(ctx context.Context, c net.Conn) context.Context {
	select {
	case v.slots <- struct{}{}:
	default:
		for !v.dropOne() { // all have requests in work
			<-v.idle
		}
		v.slots <- struct{}{}
	}
	x := &visitor{of: v, c: c}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = append(v.list, x)
	return context.WithValue(ctx, visitorKey{}, x)
}

// dropOne tells whether a place is free, or will be at once.
func (v *visitors) dropOne() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.list) < maxVisitors { // one has just gone
		return true
	}
	i := slices.IndexFunc(v.list, func(x *visitor) bool { return !x.busy })
	if i < 0 {
		return false
	}
	v.list[i].c.Close()
	v.list = slices.Delete(v.list, i, i+1)
	return true
}

// changes lets an enter look again.
func (v *visitors) changes() {
	select {
	case v.idle <- struct{}{}:
	default:
	}
}

// changed is the http.Server's ConnState: it tells of each connection's end once.
func (v *visitors) changed(c net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	v.mu.Lock()
	v.list = slices.DeleteFunc(v.list, func(x *visitor) bool { return x.c == c })
	v.mu.Unlock()
	<-v.slots
	v.changes()
}

// handler marks a connection as busy while next works for it, until it is served.
func (v *visitors) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mark(r, true)
		defer Served(r)
		next.ServeHTTP(w, r)
	})
}

// Served notes that the work for a request is done: what is left is the client's to read.
func Served(r *http.Request) { mark(r, false) }

func mark(r *http.Request, busy bool) {
	if x, ok := r.Context().Value(visitorKey{}).(*visitor); ok { // not in a request that came over no connection
		x.of.mu.Lock()
		defer x.of.mu.Unlock()
		if x.busy = busy; !busy {
			x.of.changes()
		}
	}
}

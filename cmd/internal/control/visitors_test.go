package control

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
)

// TestVisitorWaitsForARequestToEnd ensures that who comes when all places are taken by requests in work gets the place of a
// connection whose request has been answered meanwhile, though that connection would stay.
func TestVisitorWaitsForARequestToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &http.Server{Handler: http.NotFoundHandler()}
		BoundVisitors(s)
		var first *http.Request
		gone := make(chan net.Conn, 1)
		for i := range maxVisitors {
			c, peer := net.Pipe()
			defer c.Close()
			r := (&http.Request{}).WithContext(s.ConnContext(t.Context(), c))
			mark(r, true)
			if i == 0 {
				first = r
				go func() { // as the server does when a connection ends
					_, _ = peer.Read(make([]byte, 1))
					s.ConnState(c, http.StateClosed)
					gone <- c
				}()
			}
		}
		in := make(chan context.Context, 1)
		late, _ := net.Pipe()
		defer late.Close()
		go func() { in <- s.ConnContext(context.Background(), late) }()
		synctest.Wait()
		select {
		case <-in:
			t.Fatal("there was a place, though all had requests in work")
		default:
		}
		Served(first)
		synctest.Wait()
		select {
		case <-in:
			<-gone
		default:
			t.Fatal("a connection has nothing in work, and keeps its place")
		}
	})
}

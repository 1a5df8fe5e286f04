package cawrm

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"

	"cawrm/aodi/format"
	"cawrm/cawrm/wire"
)

// What anybody who reaches a peer's port can make it hold, in numbers and bytes. MemoryBound adds it up.
const (
	// maxVisitors is how many connections that feed no volume, or not yet, a peer has at a time. For a further
	// one the oldest goes, of those from the address that has the most.
	maxVisitors = 64
	// visitorMemory is what one takes: read buffer, the largest HELLO as it came and decoded, a stack; before that, where there is a
	// Trust, the largest messages of a TLS handshake, of which crypto/tls takes 256 KiB as they come and decodes no more.
	visitorMemory = 512 << 10
	// feedMemory is what the one connection that feeds a volume takes: the largest RECORDS as it came, expanded and
	// decoded, the window, two stacks, and the records of an epoch that was not committed, which the volume keeps.
	feedMemory = 6*wire.MaxRecords + wire.WindowChunks*format.ChunkSize + maxEpoch*epochRecord

	// maxEpoch is how many records an epoch may have. This program's own have about 256.
	maxEpoch    = 256 << 10
	epochRecord = 2 * 40 // bytes of one in memory, in a list that grows
)

// errCrowded is why a visitor is dropped.
var errCrowded = errors.New("too many connections without a HELLO: the oldest is dropped")

// visitors are the connections that feed no volume, or not yet.
type visitors struct {
	slots chan struct{} // one for each, also for those that are dropped until they have gone

	mu   sync.Mutex
	list []visitor // not dropped, oldest first
}

type visitor struct {
	l    *link
	host netip.Addr
}

func newVisitors() visitors { return visitors{slots: make(chan struct{}, maxVisitors)} }

// enter lets l in. It says whether another was dropped for it.
func (v *visitors) enter(l *link) (dropped bool) {
	select {
	case v.slots <- struct{}{}:
	default:
		dropped = v.dropOne()
		v.slots <- struct{}{} // soon: a connection that was closed waits for nothing else
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = append(v.list, visitor{l, hostOf(l)})
	return dropped
}

func (v *visitors) dropOne() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	count, most := map[netip.Addr]int{}, 0
	for _, x := range v.list {
		count[x.host]++
		most = max(most, count[x.host])
	}
	i := slices.IndexFunc(v.list, func(x visitor) bool { return count[x.host] == most })
	if i < 0 {
		return false
	}
	v.list[i].l.Close()
	v.list = slices.Delete(v.list, i, i+1)
	return true
}

// leave is the end of a visit: l has gone, or feeds a volume.
func (v *visitors) leave(l *link) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = slices.DeleteFunc(v.list, func(x visitor) bool { return x.l == l })
	<-v.slots
}

// hostOf is the other side's address without its port.
func hostOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}

// MemoryBound is what the peer holds at most, in bytes, whatever comes to its port; what its volumes hold is
// theirs, but for epochs that are not committed.
func (p *Peer) MemoryBound() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maxVisitors*visitorMemory + int64(len(p.targets))*feedMemory
}

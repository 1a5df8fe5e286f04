package nbdsrv

import (
	"crypto/tls"
	"net"
)

// Access is what a client may do with an export.
type Access int

// The kinds of access.
const (
	NoAccess Access = iota // it does not learn that the export is there
	ReadOnly
	FullAccess // what the export allows
)

// Client is who asks.
type Client struct {
	Addr  net.Addr // of the other end; of a unix socket it says nothing
	Names []string // that its certificate stands for, if it showed one which was verified
}

// client is the other end as it has shown itself so far.
func (c *conn) client() Client {
	who := Client{Addr: c.raw.RemoteAddr()}
	if t, ok := c.nc.(*tls.Conn); ok && len(t.ConnectionState().VerifiedChains) > 0 {
		leaf := t.ConnectionState().VerifiedChains[0][0]
		who.Names = append([]string{leaf.Subject.CommonName}, leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			who.Names = append(who.Names, ip.String())
		}
	}
	return who
}

// access asks the export, or the one that it is a part of.
func (c *conn) access(e *Export) Access {
	admit := e.Admit
	if of := e.Of; of != "" {
		if whole := c.server.named(of); whole != nil {
			admit = whole.Admit
		}
	}
	if admit == nil {
		return FullAccess
	}
	return admit(c.client())
}

// readOnly tells whether this client may only read e.
func (c *conn) readOnly(e *Export) bool { return e.ReadOnly || c.access(e) != FullAccess }

// mayList leaves out of a list what the client may not know of.
func (c *conn) mayList(all []Listed) []Listed {
	var may []Listed
	for _, l := range all {
		name := l.Name
		if l.Of != "" {
			name = l.Of
		}
		if e := c.server.named(name); e == nil || c.access(e) != NoAccess {
			may = append(may, l)
		}
	}
	return may
}

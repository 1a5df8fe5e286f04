package cawrm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"cawrm/cawrm/wire"
)

// prove lets both sides of a connection prove who they are.
func (p *Peer) prove(l *link) error {
	if p.cfg.Trust == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), helloTimeout)
	defer cancel()
	return p.cfg.Trust.accept(ctx, l)
}

// distrust ends a connection that has not proved who it is, or is nobody who may feed volumes. Where TLS has failed, that has told the
// other side why.
func (p *Peer) distrust(l *link, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || p.closed.Load() {
		return
	}
	p.garbage.Do(func() { p.log.Warn("peer: connection refused", "from", l.String(), "reason", err) })
	switch {
	case errors.As(err, new(tls.RecordHeaderError)):
		err = fmt.Errorf("it takes only sources with a certificate or the secret; see --peer-cert and --peer-secret")
	case l.secure == nil:
		l.hangUp()
		return
	}
	l.refuse(wire.AppendRefuse(nil, wire.CodeTrust, fmt.Sprintf("peer %q: %v", p.cfg.Name, err)))
}

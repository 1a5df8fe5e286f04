package daemon

import (
	"net"

	"cawrm/cmd/internal/value"
	"cawrm/nbdsrv"
)

// admit says what an NBD client may do with the volume: what the first rule says that holds for it. Without rules everyone may do
// all. A clone has the rules of its volume.
func (v *served) admit(c nbdsrv.Client) nbdsrv.Access {
	if v.base != nil {
		return v.base.admit(c)
	}
	rules := v.rules.Load()
	if rules == nil || len(*rules) == 0 {
		return nbdsrv.FullAccess
	}
	var addr net.TCPAddr
	if a, ok := c.Addr.(*net.TCPAddr); ok {
		addr = *a
	}
	for _, r := range *rules {
		if r.Holds(addr.AddrPort().Addr(), c.Names) {
			if r.ReadOnly {
				return nbdsrv.ReadOnly
			}
			return nbdsrv.FullAccess
		}
	}
	return nbdsrv.NoAccess
}

// setRules puts rules in force for clients to come.
func (v *served) setRules(r value.Rules) { v.rules.Store(&r) }

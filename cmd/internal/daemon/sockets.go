package daemon

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/listen"
	"cawrm/cmd/internal/value"
)

// sockets are the daemon's listeners, bound and not served yet.
type sockets struct {
	control net.Listener
	nbd     []listener
	peer    []listener
	http    []listener
}

// listener remembers what was asked for, so that a reload finds it again.
type listener struct {
	net.Listener
	addr      value.Addr
	inherited bool // systemd's: it is not in the configuration, and stays
}

// bind opens all addresses or none. Sockets that systemd holds come first, by the FileDescriptorName= of their units: nbd,
// peer, http, control.
func bind(cfg Config) (*sockets, error) {
	given, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	s := &sockets{nbd: inherit(given["nbd"]), peer: inherit(given["peer"]), http: inherit(given["http"])}
	if ctl := given["control"]; len(ctl) > 0 {
		s.control = ctl[0]
	} else {
		s.control, err = bindControl(cfg.Control)
	}
	if err == nil {
		err = bindAll("nbd", cfg.NBD, &s.nbd)
	}
	if err == nil {
		err = bindAll("peer", cfg.Peer, &s.peer)
	}
	if err == nil {
		err = bindAll("http", cfg.HTTP, &s.http)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func inherit(list []net.Listener) []listener {
	var out []listener
	for _, l := range list {
		if l != nil {
			out = append(out, listener{l, listen.AddrOf(l), true})
		}
	}
	return out
}

func bindControl(a value.Addr) (net.Listener, error) {
	byDefault := a.IsZero()
	if byDefault {
		a = value.Addr{Network: "unix", Address: control.DefaultPath()}
		if err := listen.MakeDir(a.Address); err != nil {
			return nil, err
		}
	}
	l, err := listen.Open(a)
	if byDefault && errors.Is(err, listen.ErrInUse) {
		return nil, fmt.Errorf("another daemon has the control socket %s; give this one its own: --control unix:/path", a)
	}
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	return l, nil
}

// bindAll adds to list what is not in it yet.
func bindAll(flag string, addrs []value.Addr, list *[]listener) error {
	for _, a := range differs(addrs, addrsOf(*list)) {
		l, err := listen.Open(a)
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*list = append(*list, listener{l, a, false})
	}
	return nil
}

func addrsOf(list []listener) []value.Addr {
	addrs := make([]value.Addr, len(list))
	for i, l := range list {
		addrs[i] = l.addr
	}
	return addrs
}

// rebind opens the addresses that are new, all or none.
func (s *sockets) rebind(cfg Config) (fresh *sockets, err error) {
	fresh = &sockets{}
	err = bindAll("nbd", differs(cfg.NBD, addrsOf(s.nbd)), &fresh.nbd)
	if err == nil {
		err = bindAll("peer", differs(cfg.Peer, addrsOf(s.peer)), &fresh.peer)
	}
	if err != nil {
		fresh.close()
		return nil, err
	}
	return fresh, nil
}

// adopt takes new listeners in and closes those that are not wanted any more.
func (s *sockets) adopt(fresh *sockets, want Config) {
	s.nbd = append(keepWanted(s.nbd, want.NBD), fresh.nbd...)
	s.peer = append(keepWanted(s.peer, want.Peer), fresh.peer...)
}

func keepWanted(list []listener, want []value.Addr) (keep []listener) {
	for _, l := range list {
		if l.inherited || slices.Contains(want, l.addr) {
			keep = append(keep, l)
		} else {
			l.Close()
		}
	}
	return keep
}

// close closes what is open, also twice; socket files go with their listeners.
func (s *sockets) close() {
	if s.control != nil {
		s.control.Close()
	}
	for _, l := range slices.Concat(s.nbd, s.peer, s.http) {
		l.Close()
	}
}

// addresses are the listeners' own, with the ports that the kernel chose.
func addresses(list []listener) []string {
	texts := make([]string, len(list))
	for i, l := range list {
		texts[i] = listen.AddrOf(l.Listener).String()
	}
	return texts
}

package daemon

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/listen"
	"cawrm/cmd/internal/value"
)

// sockets are the daemon's listeners, bound and not served yet.
type sockets struct {
	control net.Listener
	nbd     []net.Listener
	peer    []net.Listener
}

// bind opens all addresses or none.
func bind(cfg Config) (*sockets, error) {
	s := &sockets{}
	var err error
	s.control, err = bindControl(cfg.Control)
	if err == nil {
		s.nbd, err = bindAll("--nbd", cfg.NBD)
	}
	if err == nil {
		s.peer, err = bindAll("--peer", cfg.Peer)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
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

func bindAll(flag string, addrs []value.Addr) (list []net.Listener, err error) {
	for _, a := range addrs {
		l, err := listen.Open(a)
		if err != nil {
			return list, fmt.Errorf("%s: %w", flag, err)
		}
		list = append(list, l)
	}
	return list, nil
}

// close closes what is open, also twice; socket files go with their listeners.
func (s *sockets) close() {
	if s.control != nil {
		s.control.Close()
	}
	for _, l := range slices.Concat(s.nbd, s.peer) {
		l.Close()
	}
}

// addresses are the listeners' own, with the ports that the kernel chose.
func addresses(list []net.Listener) []string {
	texts := make([]string, len(list))
	for i, l := range list {
		texts[i] = listen.AddrOf(l).String()
	}
	return texts
}

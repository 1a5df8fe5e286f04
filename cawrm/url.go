package cawrm

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"cawrm/cawrm/wire"
)

// DefaultPort is the port of a peer whose URL names none.
const DefaultPort = 10810

// Target is where a mirror is: an address to dial and the NAME that the volume has there.
type Target struct {
	Addr  string // host:port
	Name  string
	Query string // the settings that the URL gives, as Settings.Query writes them
}

func (t Target) String() string {
	return (&url.URL{Scheme: "cawrm", Host: t.Addr, Path: "/" + t.Name, RawQuery: t.Query}).String()
}

// base is the address without settings.
func (t Target) base() string {
	t.Query = ""
	return t.String()
}

// settings are those of the URL, which ParseURL has checked.
func (t Target) settings() Settings {
	s, _ := ParseSettings(t.Query)
	return s
}

// ParseURL reads cawrm://host[:port]/NAME[?key=value&...]. The errors say what is wrong and what is right.
func ParseURL(s string) (Target, error) {
	bad := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("mirror %q: %s; want cawrm://host:port/NAME", s, fmt.Sprintf(format, args...))
	}
	if !strings.HasPrefix(s, "cawrm://") {
		return bad("not a cawrm:// address")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return bad("%v", err)
	case u.Hostname() == "":
		return bad("no host")
	case strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "["):
		return bad("an IPv6 address stands in brackets, as [::1]")
	case u.User != nil || u.Fragment != "":
		return bad("only a host, a port, a NAME and settings may stand in it")
	}
	port := DefaultPort
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
			return bad("port %s is not in 1 to 65535", p)
		}
	}
	name := strings.TrimPrefix(u.Path, "/")
	switch {
	case name == "":
		return bad("no NAME: which volume is it at %s?", u.Host)
	case len(name) > wire.MaxName:
		return bad("NAME of %d bytes is too long (at most %d)", len(name), wire.MaxName)
	}
	settings, err := ParseSettings(u.RawQuery)
	if err != nil {
		return bad("%v", err)
	}
	return Target{net.JoinHostPort(u.Hostname(), strconv.Itoa(port)), name, settings.Query()}, nil
}

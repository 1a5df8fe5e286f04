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

// DefaultNBDPort is that of an NBD server.
const DefaultNBDPort = 10809

// Target is where a mirror is: an address to dial and the NAME that the volume has there.
type Target struct {
	Addr  string // host:port
	Name  string
	Query string // the settings that the URL gives, as Settings.Query writes them

	Loose  bool   // a plain NBD server; Name is its export, which may be ""
	Socket string // its path, in place of Addr
}

func (t Target) String() string {
	u := url.URL{Scheme: "cawrm", Host: t.Addr, Path: "/" + t.Name, RawQuery: t.Query}
	if t.Loose {
		u.Scheme = "nbd"
	}
	if t.Socket != "" {
		u.Scheme, u.RawQuery = "nbd+unix", strings.Trim("socket="+escape(t.Socket)+"&"+t.Query, "&")
	}
	text := u.String()
	if u.Host == "" { // url.URL leaves an empty one out
		text = strings.Replace(text, "nbd+unix:/", "nbd+unix:///", 1)
		text = strings.Replace(text, "nbd+unix://///", "nbd+unix:///", 1)
	}
	return text
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

// ParseURL reads cawrm://host[:port]/NAME[?key=value&...], and for plain NBD servers nbd://host[:port]/EXPORT and
// nbd+unix:///EXPORT?socket=/path. The errors say what is wrong and what is right.
func ParseURL(s string) (Target, error) {
	bad := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("mirror %q: %s; want cawrm://host:port/NAME", s, fmt.Sprintf(format, args...))
	}
	if strings.HasPrefix(s, "nbd://") || strings.HasPrefix(s, "nbd+unix://") {
		return parseNBD(s)
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
	case !zoneIsPlain(u.Hostname()):
		return bad("a zone is the name of a network interface, as [fe80::1%%25eth0]")
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
	return Target{Addr: net.JoinHostPort(u.Hostname(), strconv.Itoa(port)), Name: name, Query: settings.Query()}, nil
}

// zoneIsPlain tells whether what stands behind a % in a host can be written and read again.
func zoneIsPlain(host string) bool {
	_, zone, _ := strings.Cut(host, "%")
	for _, c := range []byte(zone) {
		if c <= ' ' || c > '~' || strings.IndexByte("%/?#[]<>\"^`{|}\\", c) >= 0 {
			return false
		}
	}
	return true
}

// parseNBD reads the address of a plain NBD server, as the NBD project writes it.
func parseNBD(s string) (Target, error) {
	bad := func(format string, args ...any) (Target, error) {
		return Target{}, fmt.Errorf("mirror %q: %s; want nbd://host:port/EXPORT or nbd+unix:///EXPORT?socket=/path", s, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("%v", err)
	}
	t := Target{Loose: true, Name: strings.TrimPrefix(u.Path, "/")}
	var rest []string
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		path, ok := strings.CutPrefix(part, "socket=")
		if !ok {
			rest = append(rest, part)
		} else if t.Socket, err = url.QueryUnescape(path); err != nil {
			return bad("%v", err)
		}
	}
	settings, err := ParseSettings(strings.Join(rest, "&"))
	unix := u.Scheme == "nbd+unix"
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(DefaultNBDPort)
	}
	n, portErr := strconv.Atoi(port)
	switch {
	case err != nil:
		return bad("%v", err)
	case u.User != nil || u.Fragment != "":
		return bad("only an address, an export and settings may stand in it")
	case len(t.Name) > wire.MaxName:
		return bad("export of %d bytes is too long (at most %d)", len(t.Name), wire.MaxName)
	case unix && (u.Host != "" || t.Socket == ""):
		return bad("the path of the socket is missing, or there is a host")
	case !unix && t.Socket != "":
		return bad("a host has no socket")
	case !unix && u.Hostname() == "":
		return bad("no host")
	case !unix && strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "["):
		return bad("an IPv6 address stands in brackets, as [::1]")
	case !unix && !zoneIsPlain(u.Hostname()):
		return bad("a zone is the name of a network interface, as [fe80::1%%25eth0]")
	case portErr != nil || n < 1 || n > 65535:
		return bad("port %s is not in 1 to 65535", port)
	case !unix:
		t.Addr = net.JoinHostPort(u.Hostname(), port)
	}
	t.Query = settings.Query()
	return t, nil
}

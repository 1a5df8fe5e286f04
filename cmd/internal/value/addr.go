package value

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Addr is where to listen or connect: TCP, or a unix socket.
type Addr struct {
	Network string // "tcp" or "unix"; "" when not given
	Address string // host:port, or the socket's path
}

// maxSocketPath is what the kernel's sockaddr_un holds beside the closing zero.
const maxSocketPath = 107

// ParseAddr reads "host:port", ":port", "[::1]:port" or "unix:/path".
func ParseAddr(s string) (Addr, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return parseUnix(s, path)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || port == "" {
		return Addr{}, fmt.Errorf("%q is not an address; give host:port or unix:/path", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return Addr{}, fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	}
	return Addr{Network: "tcp", Address: net.JoinHostPort(host, port)}, nil
}

func parseUnix(s, path string) (Addr, error) {
	path = strings.TrimPrefix(path, "//") // unix:///path, as in URLs
	for strings.HasPrefix(path, "//") {
		path = path[1:]
	}
	switch {
	case path == "" || path == "/" || strings.HasSuffix(path, "/"):
		return Addr{}, fmt.Errorf("%q lacks the socket's path; give unix:/path", s)
	case len(path) > maxSocketPath:
		return Addr{}, fmt.Errorf("%q: a socket's path has at most %d bytes, this one has %d", s, maxSocketPath, len(path))
	}
	return Addr{Network: "unix", Address: path}, nil
}

// IsZero tells that no address was given.
func (a Addr) IsZero() bool { return a.Network == "" }

// IsUnix tells a unix socket from TCP.
func (a Addr) IsUnix() bool { return a.Network == "unix" }

// IsLocal tells that only this machine reaches the address.
func (a Addr) IsLocal() bool {
	host, _, _ := net.SplitHostPort(a.Address)
	ip := net.ParseIP(host)
	return a.IsUnix() || host == "localhost" || ip != nil && ip.IsLoopback()
}

// Set is pflag's way to ParseAddr.
func (a *Addr) Set(text string) error {
	v, err := ParseAddr(text)
	if err == nil {
		*a = v
	}
	return err
}

// String is the text that ParseAddr reads.
func (a Addr) String() string {
	if a.IsUnix() {
		return "unix:" + a.Address
	}
	return a.Address
}

// Type names the value in the help text.
func (Addr) Type() string { return "addr" }

// SocketAddr is an Addr that must be a unix socket; a bare path is taken as one.
type SocketAddr struct{ Addr }

// Set takes unix:/path or /path.
func (a *SocketAddr) Set(text string) error {
	if strings.HasPrefix(text, "/") || strings.HasPrefix(text, "./") {
		text = "unix:" + text
	}
	v, err := ParseAddr(text)
	if err != nil || !v.IsUnix() {
		return fmt.Errorf("%q is not a control socket; give unix:/path", text)
	}
	a.Addr = v
	return nil
}

// Type names the value in the help text.
func (SocketAddr) Type() string { return "unix:/path" }

// Addrs is a flag that may be repeated. The same address twice is an error.
type Addrs []Addr

// Set adds one address.
func (l *Addrs) Set(text string) error {
	a, err := ParseAddr(text)
	if err != nil {
		return err
	}
	for _, b := range *l {
		if a == b && !strings.HasSuffix(a.Address, ":0") {
			return fmt.Errorf("%s is given twice", a)
		}
	}
	*l = append(*l, a)
	return nil
}

func (l Addrs) String() string {
	texts := make([]string, len(l))
	for i, a := range l {
		texts[i] = a.String()
	}
	return strings.Join(texts, ",")
}

// Type names the value in the help text.
func (Addrs) Type() string { return "addr" }

// Append is Set; with Replace and GetSlice it makes the flag a list for configuration files.
func (l *Addrs) Append(text string) error { return l.Set(text) }

// Replace forgets what was set.
func (l *Addrs) Replace(texts []string) error { return replace(l, texts) }

// GetSlice is what was set, as texts.
func (l *Addrs) GetSlice() []string {
	texts := make([]string, len(*l))
	for i, a := range *l {
		texts[i] = a.String()
	}
	return texts
}

// replace sets a list anew, or leaves it when one of the texts is wrong.
func replace[L any, P interface {
	*L
	Set(string) error
}](l P, texts []string) error {
	var fresh L
	for _, text := range texts {
		if err := P(&fresh).Set(text); err != nil {
			return err
		}
	}
	*l = fresh
	return nil
}

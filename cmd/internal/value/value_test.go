package value_test

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"cawrm/cmd/internal/value"
)

// Every type is a flag.
var _ = []pflag.Value{new(value.Size), new(value.Addr), new(value.SocketAddr), new(value.Addrs), new(value.Mirrors), new(value.Choice)}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		err  string // part of the error's text
		back string // what String says, when it is not the text
	}{
		{text: "4096", want: 4096, back: "4K"},
		{text: "0", want: 0},
		{text: "10G", want: 10 << 30},
		{text: "512M", want: 512 << 20},
		{text: "1.5G", want: 3 << 29, back: "1536M"},
		{text: "16T", want: 16 << 40},
		{text: "2k", want: 2048, back: "2K"},
		{text: "10GiB", want: 10 << 30, back: "10G"},
		{text: "1001", want: 1001},
		{text: "10GB", err: "write G for powers of 1024"},
		{text: "0.1K", err: "whole number of bytes"},
		{text: "9999999T", err: "too large"},
		{text: "", err: "is not a size"},
		{text: "G", err: "is not a size"},
		{text: "-1G", err: "is not a size"},
		{text: "1e9", err: "is not a size"},
		{text: "1/2G", err: "is not a size"},
		{text: "1.G", err: "is not a size"},
		{text: "10X", err: "is not a size"},
		{text: "0x10", err: "is not a size"},
	} {
		var s value.Size
		err := s.Set(c.text)
		if !says(err, c.err) || err == nil && int64(s) != c.want {
			t.Errorf("%q: %d, %v; want %d, %q", c.text, s, err, c.want, c.err)
		}
		if c.back == "" {
			c.back = c.text
		}
		if err == nil && s.String() != c.back {
			t.Errorf("%q prints as %q, want %q", c.text, s, c.back)
		}
	}
}

func TestAddr(t *testing.T) {
	for _, c := range []struct{ text, network, address, err string }{
		{"127.0.0.1:10809", "tcp", "127.0.0.1:10809", ""},
		{":10809", "tcp", ":10809", ""},
		{"[::1]:0", "tcp", "[::1]:0", ""},
		{"unix:/run/a.sock", "unix", "/run/a.sock", ""},
		{"unix:///run/a.sock", "unix", "/run/a.sock", ""},
		{"unix:a.sock", "unix", "a.sock", ""},
		{"", "", "", "is not an address"},
		{"localhost", "", "", "is not an address"},
		{"10809", "", "", "is not an address"},
		{"localhost:", "", "", "is not an address"},
		{"localhost:99999", "", "", "from 0 to 65535"},
		{"localhost:nbd", "", "", "from 0 to 65535"},
		{"unix:", "", "", "lacks the socket's path"},
		{"unix:/run/", "", "", "lacks the socket's path"},
		{"unix:/" + strings.Repeat("x", 107), "", "", "at most 107 bytes"},
	} {
		var a value.Addr
		err := a.Set(c.text)
		if !says(err, c.err) || a.Network != c.network || a.Address != c.address {
			t.Errorf("%q: %+v, %v; want %s %s, %q", c.text, a, err, c.network, c.address, c.err)
		}
		if again, err2 := value.ParseAddr(a.String()); err == nil && (err2 != nil || again != a) {
			t.Errorf("%q prints as %q, which is %+v", c.text, a, again)
		}
	}
}

func TestAddrsTwice(t *testing.T) {
	var l value.Addrs
	for _, c := range []struct{ text, err string }{
		{"localhost:1", ""}, {"unix:/a", ""}, {"localhost:1", "given twice"}, {"localhost:0", ""}, {"localhost:0", ""}, {"x", "not an address"},
	} {
		if err := l.Set(c.text); !says(err, c.err) {
			t.Errorf("%q: %v, want %q", c.text, err, c.err)
		}
	}
	if l.String() != "localhost:1,unix:/a,localhost:0,localhost:0" {
		t.Errorf("got %s", l)
	}
}

func TestSocketAddr(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{"unix:/run/c.sock", "unix:/run/c.sock", ""},
		{"/run/c.sock", "unix:/run/c.sock", ""},
		{"./c.sock", "unix:./c.sock", ""},
		{"localhost:80", "", "not a control socket"},
	} {
		var a value.SocketAddr
		if err := a.Set(c.text); !says(err, c.err) || a.String() != c.want {
			t.Errorf("%q: %s, %v; want %s, %q", c.text, a, err, c.want, c.err)
		}
	}
}

func TestMirrors(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  string
		err   string // of the last text
	}{
		{[]string{"cawrm://b:7000/disk"}, "b=cawrm://b:7000/disk", ""},
		{[]string{"paris=cawrm://b:7000/disk"}, "paris=cawrm://b:7000/disk", ""},
		{[]string{"cawrm://[::1]:7000/disk"}, "::1=cawrm://[::1]:7000/disk", ""},
		{[]string{"cawrm://b:1/d", "cawrm://b:2/d", "cawrm://b:2/e"}, "b=cawrm://b:1/d,b:2=cawrm://b:2/d,b:2/e=cawrm://b:2/e", ""},
		{[]string{"cawrm://b:1/d", "b=cawrm://c:1/d"}, "b=cawrm://b:1/d", "id b is taken"},
		{[]string{"cawrm://b:1/d", "x=cawrm://b:1/d"}, "b=cawrm://b:1/d", "given twice"},
		{[]string{"cawrm://b/disk"}, "b=cawrm://b/disk", ""},
		{[]string{"cawrm://:7000/disk"}, "", "lacks the host"},
		{[]string{"cawrm:///disk"}, "", "lacks the host"},
		{[]string{"cawrm://b:/disk"}, "", "from 1 to 65535"},
		{[]string{"cawrm://b:70000/disk"}, "", "from 1 to 65535"},
		{[]string{"cawrm://b:7000"}, "", "lacks the name"},
		{[]string{"cawrm://b:7000/"}, "", "lacks the name"},
		{[]string{"b:7000/disk"}, "", "kind b://"},
		{[]string{"disk"}, "", "is not a mirror"},
		{[]string{"nbd://b:10809/disk", "nbd+unix:///x?socket=/run/t.sock"}, "b=nbd://b:10809/disk,t.sock=nbd+unix:///x?socket=/run/t.sock", ""},
		{[]string{"http://b:10809/disk"}, "", "kind http://"},
		{[]string{"a b=cawrm://b:7000/disk"}, "", "an id has letters"},
		{[]string{"=cawrm://b:7000/disk"}, "", "an id has letters"},
		{[]string{"cawrm://b:7000/disk#x"}, "", "says more"},
	} {
		var l value.Mirrors
		var err error
		for _, text := range c.texts {
			err = l.Set(text)
		}
		if !says(err, c.err) || l.String() != c.want {
			t.Errorf("%q: %s, %v; want %s, %q", c.texts, l, err, c.want, c.err)
		}
	}
}

func TestName(t *testing.T) {
	for _, name := range []string{"disk", "disk.img", "my disk", "größe"} {
		if err := value.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "a/b", "a\nb", "a?b", "\xff", strings.Repeat("x", 256)} {
		if value.CheckName(name) == nil {
			t.Errorf("%q is taken as a name", name)
		}
	}
}

func TestChoice(t *testing.T) {
	c := value.Choice{Words: []string{"on", "require"}}
	if err := c.Set("on"); err != nil || c.String() != "on" {
		t.Error(err, c.Value)
	}
	if err := c.Set("off"); !says(err, "none of on, require") || c.Value != "on" {
		t.Error(err, c.Value)
	}
}

// says tells whether err has part in its text; part "" wants no error.
func says(err error, part string) bool {
	if err == nil || part == "" {
		return err == nil && part == ""
	}
	return strings.Contains(err.Error(), part)
}

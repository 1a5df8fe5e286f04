package main

import (
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
)

// TestAddress: attach goes by the unix socket, and dials an address of all interfaces at this machine.
func TestAddress(t *testing.T) {
	for _, c := range []struct {
		nbd  string // separated by blanks
		want string
	}{
		{"unix:/a", "unix:/a"},
		{"10.0.0.1:10809 unix:/a unix:/b", "unix:/a"},
		{"10.0.0.1:10809 10.0.0.2:10809", "10.0.0.1:10809"},
		{"0.0.0.0:10809", "127.0.0.1:10809"},
		{"[::]:10809", "[::1]:10809"},
		{":10809", "127.0.0.1:10809"},
		{"", ""},
	} {
		got, err := address(control.Volume{Name: "db", NBD: strings.Fields(c.nbd)})
		if got.String() != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%q: %s, %v; want %q", c.nbd, got, err, c.want)
		}
	}
}

// TestBlockSize: the kernel refuses a device whose size is not a multiple of its block size.
func TestBlockSize(t *testing.T) {
	for _, c := range []struct {
		asked int
		e     nbdkernel.Export
		want  int
	}{
		{4096, nbdkernel.Export{Size: 1 << 30}, 4096},
		{512, nbdkernel.Export{Size: 1 << 30}, 512},
		{4096, nbdkernel.Export{Size: 1<<30 + 512}, 512},
		{4096, nbdkernel.Export{Size: 1<<30 + 2048}, 2048},
		{512, nbdkernel.Export{Size: 1 << 30, MinBlock: 4096}, 4096},
		{512, nbdkernel.Export{Size: 1 << 30, MinBlock: 65536}, 4096},
		{4096, nbdkernel.Export{Size: 100}, 512},
	} {
		if got := blockSize(c.asked, c.e); got != c.want {
			t.Errorf("asked %d of %+v: %d, want %d", c.asked, c.e, got, c.want)
		}
	}
}

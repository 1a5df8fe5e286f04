package nbdsrv_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"cawrm/nbdsrv"
)

// shelf finds exports named after the first one and a part.
type shelf struct {
	mu   sync.Mutex
	held map[string]int
}

func (s *shelf) Find(name string) (nbdsrv.Export, func(), bool) {
	of, part, ok := strings.Cut(name, "@")
	if !ok || part == "none" {
		return nbdsrv.Export{}, nil, false
	}
	s.hold(name, 1)
	return nbdsrv.Export{Name: name, Of: of, ReadOnly: true, Device: newMemDev(2 * mib)}, func() { s.hold(name, -1) }, true
}

func (s *shelf) hold(name string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] += n
}

func (s *shelf) holds(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[name]
}

func (s *shelf) List() []nbdsrv.Listed {
	return []nbdsrv.Listed{{Name: "alpha@one", Of: "alpha"}, {Name: "alpha@two", Of: "alpha"}}
}

// TestFoundExports: exports that a finder knows are listed and served like others, each held by the connections that use it and
// no longer, and end with the export that they are a part of.
func TestFoundExports(t *testing.T) {
	s := &shelf{held: map[string]int{}}
	h := serve(t, nbdsrv.Config{Finder: s}, two()...)
	late := h.connect(3)
	if r := late.option(optList, nil); len(r) != 5 {
		t.Errorf("%d replies to LIST, want 2 exports, 2 found ones and the end", len(r))
	}
	late.refused(errUnknown, optGo, infoRequest("alpha@none"))
	late.option(optInfo, infoRequest("alpha@two"))
	if s.holds("alpha@two") != 1 {
		t.Errorf("held %d times after INFO", s.holds("alpha@two"))
	}
	late.option(optInfo, infoRequest("alpha@three"))
	if s.holds("alpha@two") != 0 || s.holds("alpha@three") != 1 {
		t.Error("another name does not let the first one go")
	}
	eachMode(t, func(t *testing.T, mode int) {
		c := h.openExport(mode, "alpha@one")
		if c.size != 2*mib || s.holds("alpha@one") != 1 {
			t.Errorf("size %d, held %d times", c.size, s.holds("alpha@one"))
		}
		c.read(0, 512)
		c.nc.Close()
		eventually(t, "let go", func() bool { return s.holds("alpha@one") == 0 })
	})
	c := h.openExport(structured, "alpha@one")
	if a, b := h.s.Clients("alpha"), h.s.Clients("beta"); a != 1 || b != 0 {
		t.Errorf("%d clients of alpha, %d of beta", a, b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := h.s.RemoveExport(ctx, "alpha"); err != nil {
		t.Fatal(err)
	}
	c.closed()
	late.refused(errUnknown, optGo, infoRequest("alpha@three"))
	late.nc.Close()
	eventually(t, "let go", func() bool { return s.holds("alpha@one") == 0 && s.holds("alpha@three") == 0 })
}

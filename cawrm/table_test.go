package cawrm_test

import (
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/aodi/format"
	"cawrm/cawrm"
)

// TestCompare enumerates how two heads can stand to each other. In the histories, A is the first lineage, B and C are
// promotions; T is a promoted volume's first position, far beyond any of A.
func TestCompare(t *testing.T) {
	const T, U = 1 << 48, 2 << 48
	head := func(p aodi.Position, chain ...any) cawrm.Head {
		h := cawrm.Head{Position: p}
		for i := 0; i < len(chain); i += 2 {
			h.Lineage = append(h.Lineage, format.Lineage{ID: uuid(chain[i].(string)[0]), Start: aodi.Position(chain[i+1].(int))})
		}
		return h
	}
	tests := []struct {
		name           string
		mirror, source cawrm.Head
		want           cawrm.Relation
		fork           aodi.Position
	}{
		{"both empty", head(0, "A", 0), head(0, "A", 0), cawrm.Same, 0},
		{"same place", head(50, "A", 0), head(50, "A", 0), cawrm.Same, 50},
		{"new mirror", head(0, "A", 0), head(50, "A", 0), cawrm.Behind, 0},
		{"behind", head(20, "A", 0), head(50, "A", 0), cawrm.Behind, 20},
		{"ahead", head(50, "A", 0), head(20, "A", 0), cawrm.Ahead, 20},
		{"no lineage", head(0), head(50, "A", 0), cawrm.Unrelated, 0},
		{"other first link", head(20, "B", 0), head(50, "A", 0), cawrm.Unrelated, 0},
		{"other start of the first link", head(20, "A", 1), head(50, "A", 0), cawrm.Unrelated, 0},
		{"behind, source promoted later", head(20, "A", 0), head(T+5, "A", 0, "B", 50), cawrm.Behind, 20},
		{"exactly at the source's promotion", head(50, "A", 0), head(T+5, "A", 0, "B", 50), cawrm.Behind, 50},
		{"at it, and the promoted has written nothing", head(50, "A", 0), head(50, "A", 0, "B", 50), cawrm.Same, 50},
		{"old primary with an unsent tail", head(80, "A", 0), head(T+5, "A", 0, "B", 50), cawrm.Diverged, 50},
		{"the same seen from the other side", head(T+5, "A", 0, "B", 50), head(80, "A", 0), cawrm.Diverged, 50},
		{"promoted mirror, source stopped at the fork", head(T+5, "A", 0, "B", 50), head(50, "A", 0), cawrm.Ahead, 50},
		{"both follow the same promotion, behind", head(T+2, "A", 0, "B", 50), head(T+5, "A", 0, "B", 50), cawrm.Behind, T + 2},
		{"both follow it, ahead", head(T+9, "A", 0, "B", 50), head(T+5, "A", 0, "B", 50), cawrm.Ahead, T + 5},
		{"knows of it, is not there yet", head(20, "A", 0, "B", 50), head(T+5, "A", 0, "B", 50), cawrm.Behind, 20},
		{"two promotions at one place", head(T+2, "A", 0, "B", 50), head(T+5, "A", 0, "C", 50), cawrm.Diverged, 50},
		{"two promotions at two places", head(T+2, "A", 0, "B", 40), head(T+5, "A", 0, "C", 50), cawrm.Diverged, 40},
		{"second promotion, behind by one", head(T+2, "A", 0, "B", 50), head(U+1, "A", 0, "B", 50, "C", T+7), cawrm.Behind, T + 2},
		{"second promotion, tail of the first", head(T+9, "A", 0, "B", 50), head(U+1, "A", 0, "B", 50, "C", T+7), cawrm.Diverged, T + 7},
		{"one id at two starts", head(T+2, "A", 0, "B", 50), head(T+5, "A", 0, "B", 60), cawrm.Diverged, 50},
	}
	for _, tt := range tests {
		got, fork := cawrm.Compare(tt.mirror, tt.source)
		if got != tt.want || fork != tt.fork {
			t.Errorf("%s: %v at %d, want %v at %d", tt.name, got, fork, tt.want, tt.fork)
		}
		mirrored := map[cawrm.Relation]cawrm.Relation{cawrm.Behind: cawrm.Ahead, cawrm.Ahead: cawrm.Behind}
		want := tt.want
		if w, ok := mirrored[want]; ok {
			want = w
		}
		if back, fork := cawrm.Compare(tt.source, tt.mirror); back != want || fork != tt.fork {
			t.Errorf("%s, the other way round: %v at %d, want %v at %d", tt.name, back, fork, want, tt.fork)
		}
	}
}

func TestParseURL(t *testing.T) {
	good := map[string]cawrm.Target{
		"cawrm://host/vm":                      {Addr: "host:10810", Name: "vm"},
		"cawrm://host:7000/vm":                 {Addr: "host:7000", Name: "vm"},
		"cawrm://10.0.0.1/a/b":                 {Addr: "10.0.0.1:10810", Name: "a/b"},
		"cawrm://[::1]:9/vm%20one":             {Addr: "[::1]:9", Name: "vm one"},
		"cawrm://h/vm?limit=1024K":             {Addr: "h:10810", Name: "vm", Query: "limit=1M"},
		"nbd://h/":                             {Addr: "h:10809", Loose: true},
		"nbd://h:1/a/b?limit=1M":               {Addr: "h:1", Name: "a/b", Query: "limit=1M", Loose: true},
		"nbd+unix:///x?socket=/r/s":            {Socket: "/r/s", Name: "x", Loose: true},
		"nbd+unix:///?socket=a%20b&mode=flush": {Socket: "a b", Query: "mode=flush", Loose: true},
		"cawrm://[fe80::1]/vm.cawrm":           {Addr: "[fe80::1]:10810", Name: "vm.cawrm"},
	}
	for s, want := range good {
		got, err := cawrm.ParseURL(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", s, got, err, want)
		}
		if again, err := cawrm.ParseURL(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, which is %+v, %v", s, got, again, err)
		}
	}
	bad := map[string]string{
		"":                      "not a cawrm:// address",
		"host:7000/vm":          "not a cawrm:// address",
		"cawrm://":              "no host",
		"cawrm:///vm":           "no host",
		"cawrm://host":          "no NAME",
		"cawrm://host/":         "no NAME",
		"cawrm://host:0/vm":     "port 0 is not in 1 to 65535",
		"cawrm://host:70000/vm": "port 70000",
		"cawrm://host:x/vm":     "invalid port",
		"cawrm://me@host/vm":    "only a host",
		"cawrm://host/vm?x=1":   "no setting \"x\"",
		"cawrm://host/vm#x":     "only a host",
		"cawrm://host/" + strings.Repeat("x", 1025): "1025 bytes is too long",
	}
	for s, want := range bad {
		if got, err := cawrm.ParseURL(s); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "want cawrm://host:port/NAME") {
			t.Errorf("%q: %+v, %v, want %q", s, got, err, want)
		}
	}
	if _, err := cawrm.Start(nil, cawrm.MirrorConfig{URL: "cawrm://host/vm"}); err == nil {
		t.Error("a mirror without an id was started")
	}
}

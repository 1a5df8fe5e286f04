package value_test

import (
	"net/netip"
	"strings"
	"testing"

	"cawrm/cmd/internal/value"
)

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		rule, addr, names string
		holds             bool
	}{
		{"addr=10.0.0.0/8", "10.200.3.4", "", true},
		{"addr=10.0.0.0/8", "11.0.0.1", "", false},
		{"addr=10.0.0.0/8", "::ffff:10.1.2.3", "", true}, // a socket for both families says it so
		{"addr=10.0.0.5", "10.0.0.5", "", true},
		{"addr=10.0.0.5", "10.0.0.6", "", false},
		{"addr=fd00::/8", "fd12::1%eth0", "", true},
		{"addr=10.0.0.0/8", "", "", false},
		{"unix", "", "", true},
		{"unix", "127.0.0.1", "", false},
		{"cert=alice", "10.0.0.5", "bob alice", true},
		{"cert=alice", "10.0.0.5", "", false},
		{"cert=alice,addr=10.0.0.0/8,ro", "10.0.0.5", "alice", true},
		{"cert=alice,addr=10.0.0.0/8,ro", "11.0.0.5", "alice", false},
		{"ro", "10.0.0.5", "", true},
	} {
		r, err := value.ParseRule(tt.rule)
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		addr, _ := netip.ParseAddr(tt.addr)
		if got := r.Holds(addr, strings.Fields(tt.names)); got != tt.holds {
			t.Errorf("%s for %s, %s: %v", tt.rule, tt.addr, tt.names, got)
		}
		if again, err := value.ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%s is written as %s: %v", tt.rule, r, err)
		}
	}
	for _, bad := range []string{"", "rw", "addr=10", "addr=10.0.0.0/33", "addr=1.1.1.1,addr=2.2.2.2", "cert=", "ro=1", "unix,addr=1.1.1.1", "ro,,", "host=x"} {
		if _, err := value.ParseRule(bad); err == nil || !strings.Contains(err.Error(), "is not a rule") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

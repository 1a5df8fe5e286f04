package daemon

import (
	"testing"

	"cawrm/aodi/format"
	"cawrm/cawrm"
)

// TestFedElsewhere: a mirror that came by itself and was then given an address is not shown as one that is down as well; one that is
// not fed, or is another, is.
func TestFedElsewhere(t *testing.T) {
	a, b := format.UUID{1}, format.UUID{2}
	for _, c := range []struct {
		name          string
		guest, mirror cawrm.Status
		want          bool
	}{
		{"fed as the other", cawrm.Status{State: cawrm.StateDown, Container: a}, cawrm.Status{State: cawrm.StateSynced, Container: a}, true},
		{"catching up as the other", cawrm.Status{State: cawrm.StateDown, Container: a}, cawrm.Status{State: cawrm.StateSyncing, Container: a}, true},
		{"fed itself", cawrm.Status{State: cawrm.StateSynced, Container: a}, cawrm.Status{State: cawrm.StateDown, Container: a}, false},
		{"both are down", cawrm.Status{State: cawrm.StateDown, Container: a}, cawrm.Status{State: cawrm.StateDown, Container: a}, false},
		{"two mirrors", cawrm.Status{State: cawrm.StateDown, Container: a}, cawrm.Status{State: cawrm.StateSynced, Container: b}, false},
		{"not said yet", cawrm.Status{State: cawrm.StateDown, Container: a}, cawrm.Status{State: cawrm.StateSynced}, false},
	} {
		if got := fedElsewhere(c.guest, []cawrm.Status{c.mirror}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

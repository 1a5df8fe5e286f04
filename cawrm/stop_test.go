package cawrm_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cawrm/aodi"
	"cawrm/cawrm"
)

// led starts a and b, of which b is the primary, and feeds a over the connection that a has made.
func led(t *testing.T) (a, b *member, follower *cawrm.Mirror) {
	f := newFamily(t, 200, "a", "b")
	a, b = f.members["a"].open("b"), f.members["b"].open()
	write(t, a.v, 1, 1)
	b.reaches(a)
	check(t, a.site.peer.Switchover(t.Context(), "vm", a.links[0], time.Minute))
	b.becomes(aodi.RolePrimary)
	write(t, b.v, 2, 2)
	a.reaches(b)
	followers := b.site.peer.Followers("vm")
	if len(followers) != 1 || followers[0].Status().State != cawrm.StateSynced {
		t.Fatalf("%d followers", len(followers))
	}
	return a, b, followers[0]
}

// TestStopIsCalm ensures that who stops in order says no more than that, whichever end of a connection it is, and whoever made it.
func TestStopIsCalm(t *testing.T) {
	for _, who := range []string{"feeds whom it was dialled by", "is fed by whom it has dialled", "is fed", "feeds"} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a, b, stops *member
				switch who {
				case "feeds whom it was dialled by":
					a, b, _ = led(t)
					stops = b
				case "is fed by whom it has dialled":
					a, b, _ = led(t)
					stops = a
				default:
					f := newFamily(t, 200, "a", "b")
					a, b = f.members["a"].open("b"), f.members["b"].open()
					write(t, a.v, 1, 1)
					b.reaches(a)
					stops = map[string]*member{"is fed": b, "feeds": a}[who]
				}
				before := len(stops.site.logs.String())
				stops.close()
				said := stops.site.logs.String()[before:]
				if strings.Contains(said, "level=WARN") || strings.Contains(said, "timeout") || !strings.Contains(said, "closed") {
					t.Errorf("it says:\n%s", said)
				}
				for _, m := range []*member{a, b} {
					if m != stops {
						m.close()
					}
				}
			})
		})
	}
}

// TestRemovedVolumeIsNotReadOn ensures that a volume which is removed is fed to nobody any more when RemoveVolume returns: its owner
// closes it then.
func TestRemovedVolumeIsNotReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, follower := led(t)
		b.site.peer.RemoveVolume("vm")
		if st := follower.Status(); st.State != cawrm.StateDown || st.LastError != "closed" {
			t.Errorf("it is %s: %s", st.State, st.LastError)
		}
		if _, err := follower.Verify(t.Context(), false, func(int64, int64) {}); err == nil {
			t.Error("it is compared")
		}
		b.close()
		a.close()
	})
}

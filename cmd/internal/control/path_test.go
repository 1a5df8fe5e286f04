package control

import "testing"

func TestDefaultPath(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp")
	for _, c := range []struct {
		uid       int
		dir, want string
	}{
		{0, "/run/user/0", "/run/cawrm/control.sock"},
		{1000, "/run/user/1000", "/run/user/1000/cawrm/control.sock"},
		{1000, "", "/tmp/cawrm-1000/control.sock"},
		{1000, "relative", "/tmp/cawrm-1000/control.sock"},
	} {
		if got := defaultPath(c.uid, c.dir); got != c.want {
			t.Errorf("uid %d, %q: %s, want %s", c.uid, c.dir, got, c.want)
		}
	}
}

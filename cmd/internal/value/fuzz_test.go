package value_test

import (
	"net/url"
	"testing"

	"cawrm/cmd/internal/value"
)

// What is taken must mean the same when it is written and read again.

func FuzzSize(f *testing.F) {
	for _, s := range []string{"4096", "512M", "1.5G", "10GiB", "0", "8388608T", " 7k ", "1e9", "0.5", "1/3", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := value.ParseSize(s)
		if err != nil {
			return
		}
		if again, err := value.ParseSize(v.String()); v < 0 || err != nil || again != v {
			t.Errorf("%q is %d, written as %s, which is %d: %v", s, v, v, again, err)
		}
	})
}

func FuzzAddr(f *testing.F) {
	for _, s := range []string{"localhost:10809", ":0", "[::1]:1", "unix:/run/x", "unix:///run/x", "unix:x", "a b:7", "[fe80::1%eth0]:9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := value.ParseAddr(s)
		if err != nil {
			return
		}
		if again, err := value.ParseAddr(v.String()); v.IsZero() || err != nil || again != v {
			t.Errorf("%q is %+v, written as %s, which is %+v: %v", s, v, v, again, err)
		}
	})
}

func FuzzMirrors(f *testing.F) {
	for _, s := range [][2]string{{"cawrm://b/vm", "cawrm://b:1/vm"}, {"x=cawrm://b/vm", "x=cawrm://c/vm"}, {"cawrm://[::1]/a%2fb", "b=nbd://c"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var l value.Mirrors
		_, _ = l.Set(a), l.Set(b)
		ids := map[string]bool{}
		var again value.Mirrors
		for _, m := range l {
			if m.ID == "" || ids[m.ID] {
				t.Errorf("id %q of %+v is empty or given twice", m.ID, l)
			}
			ids[m.ID] = true
			if err := again.Set(m.ID + "=" + m.URL); err != nil {
				t.Errorf("%+v is not taken again: %v", m, err)
			}
		}
		if again.String() != l.String() {
			t.Errorf("%s becomes %s", l, again)
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"vm", "", "a/b", "é", "\xff", "\x00", "x y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if value.CheckName(s) != nil {
			return
		}
		var l value.Mirrors
		if err := l.Set("cawrm://host/" + url.PathEscape(s)); err != nil {
			t.Errorf("a volume may be called %q, and no mirror of it can be given: %v", s, err)
		}
	})
}

func FuzzRule(f *testing.F) {
	for _, s := range []string{"addr=10.0.0.0/8", "addr=::1,ro", "cert=backup,addr=192.168.1.7", "unix,ro", "", "addr=fe80::1%eth0", "addr=::ffff:10.0.0.0/104"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := value.ParseRule(s)
		if err != nil {
			return
		}
		if again, err := value.ParseRule(r.String()); err != nil || again != r {
			t.Errorf("%q is %+v, written as %s, which is %+v: %v", s, r, r, again, err)
		}
	})
}

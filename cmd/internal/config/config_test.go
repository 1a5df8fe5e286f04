package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

const sample = `# a site
nbd = ["unix:/run/a.sock", "127.0.0.1:10809"]
tls-cert = 'c.pem'

[volume.db]
path = "/v/db.img"   # the disk
mirror = [
  "paris=cawrm://paris/db",
  "rome=cawrm://rome/db",
]
# about the second
[volume."a b"]
path = "/v/b.img"
rescue = true
`

func TestParse(t *testing.T) {
	f, err := Parse("x.toml", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := &File{Path: "x.toml",
		Keys: []Key{{"nbd", 2, []string{"unix:/run/a.sock", "127.0.0.1:10809"}, true}, {"tls-cert", 3, []string{"c.pem"}, false}},
		Volumes: []Volume{
			{"db", 5, []Key{{"path", 6, []string{"/v/db.img"}, false}, {"mirror", 7, []string{"paris=cawrm://paris/db", "rome=cawrm://rome/db"}, true}}},
			{"a b", 12, []Key{{"path", 13, []string{"/v/b.img"}, false}, {"rescue", 14, []string{"true"}, false}}},
		},
	}
	if d := cmp.Diff(want, f); d != "" {
		t.Error(d)
	}
}

// TestMistakes: each is told with the line where it is.
func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"a = 1\nb = \n":                         "x.toml:2: ",
		"a = 1\n\na = 2\n":                      "x.toml:3: ",
		"[volume.a]\n[volume.b]\n[volume.a]\n":  "x.toml:3: ",
		"\n[mirror]\n":                          "x.toml:2: [mirror] is not known",
		"[[volume]]\n":                          "x.toml:1: [[volume]] is not known",
		"[volume.a.b]\n":                        "x.toml:1: [volume.a.b] is not known",
		"volume.db.path = '/x'\n":               "x.toml:1: key \"volume.db.path\" is not known",
		"\na = {b = 1}\n":                       "x.toml:2: key \"a\": its value must be",
		"a = [[1]]\n":                           "x.toml:1: key \"a\": its value must be",
		"a = 2026-11-21\n":                      "x.toml:1: key \"a\": its value must be",
		strings.Repeat("\n", 40) + "x = \"open": "x.toml:41: ",
	} {
		_, err := Parse("x.toml", []byte(text))
		var at *Error
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
}

func flags() (*pflag.FlagSet, *[]string, *int, *time.Duration) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	return f, f.StringArray("word", nil, "a `word`"), f.Int("number", 7, "a number"), f.Duration("wait", time.Second, "how long")
}

// TestPrecedence: defaults < file < environment < flags.
func TestPrecedence(t *testing.T) {
	file, err := Parse("f", []byte("word = ['a', 'b']\nnumber = 1_0\nwait = '3s'\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, env string
		want      []string
	}{
		{"", "", []string{"a", "b"}},
		{"", "c d", []string{"c", "d"}},
		{"--word=e", "c d", []string{"e"}},
		{"--word=e --word=f", "", []string{"e", "f"}},
	} {
		t.Setenv("CAWRM_WORD", c.env)
		f, words, number, wait := flags()
		if err := f.Parse(strings.Fields(c.args)); err != nil {
			t.Fatal(err)
		}
		if err := Env(f); err != nil {
			t.Fatal(err)
		}
		if _, err := Apply("f", file.Keys, f); err != nil {
			t.Fatal(err)
		}
		if cmp.Diff(c.want, *words) != "" || *number != 10 || *wait != 3*time.Second {
			t.Errorf("%+v: %q %d %v", c, *words, *number, *wait)
		}
	}
	t.Setenv("CAWRM_WAIT", "soon")
	f, _, _, _ := flags()
	if err := Env(f); err == nil || !strings.HasPrefix(err.Error(), "CAWRM_WAIT: ") {
		t.Error(err)
	}
}

// TestApplyRefuses: a key that no flag has, one that can be no key, and values that do not fit.
func TestApplyRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"\ncolour = 1":    `f:2: key "colour" is not known here; known are: path, number, wait, word`,
		"config = 'x'":    `f:1: key "config" is not known`,
		"number = 'ten'":  `f:1: key "number": `,
		"number = [1, 2]": `f:1: key "number": it takes one value`,
		"path = ['/a']":   `f:1: key "path" takes one value`,
	} {
		file, err := Parse("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		set, _, _, _ := flags()
		set.String("config", "", "")
		if _, err := Apply("f", file.Keys, set, "path"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}

// TestEdit: what is added is read again, what is removed is gone, and everything else stays to the byte.
func TestEdit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	link := filepath.Join(t.TempDir(), "link.toml")
	if err := os.WriteFile(path, []byte(sample), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	v := Volume{Name: "x\"\\\n\u00e9", Keys: []Key{{"path", 0, []string{"/a\x01\"b\\"}, false}, {"mirror", 0, []string{"a", "b"}, true}}}
	if err := Add(link, v); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	got := f.Volumes[2]
	if got.Name != v.Name || got.Keys[0].Texts[0] != v.Keys[0].Texts[0] || cmp.Diff(got.Keys[1].Texts, v.Keys[1].Texts) != "" {
		t.Errorf("%+v", got)
	}
	if err := Add(path, Volume{Name: "db"}); err == nil || !strings.Contains(err.Error(), "c.toml:5: there is a volume") {
		t.Error(err)
	}
	if err := Remove(path, v.Name); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != sample {
		t.Errorf("%s\nwant\n%s", b, sample)
	}
	if err := Remove(path, "db"); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if want := sample[:strings.Index(sample, "\n[volume.db]")] + sample[strings.Index(sample, "# about"):]; string(b) != want {
		t.Errorf("%s\nwant\n%s", b, want)
	}
	if err := Remove(path, "db"); err == nil {
		t.Error("removed twice")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Error(st.Mode(), err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced", err)
	}
}

// FuzzParse: whatever a file holds, it is read or refused with a line that it has; and what was read stays the same through
// adding and removing a volume.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("[volume.\"\"]\n")
	f.Add("a = [1, 0x10, 1e3, true, '''x\ny''']\n#")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f", []byte(text))
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Line < 1 || at.Line > 1+strings.Count(text, "\n") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		v := Volume{Name: "added by the test", Keys: []Key{{"path", 0, []string{text}, false}}}
		longer, err := add([]byte(text), file, v)
		if err != nil {
			return // it is there
		}
		with, err := Parse("f", longer)
		if err != nil {
			return // text that TOML cannot hold: Add refuses it
		}
		if n := len(file.Volumes); len(with.Volumes) != n+1 || with.Volumes[n].Keys[0].Texts[0] != text {
			t.Fatalf("%q: %+v, %v", text, with, err)
		}
		shorter, err := remove(longer, with, v.Name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("f", shorter)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(file, again); d != "" {
			t.Fatal(d)
		}
	})
}

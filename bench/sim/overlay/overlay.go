// Package overlay builds the simulation with some files changed, while the tree stays as it is: the compiler is told to
// read other files in their place.
//
// Changes are written as a text: "promise: " and a sentence, then edits. An edit names a file ("in: PATH", below the
// module, or "$GOROOT/..."), gives lines that go (-), which must be there once, whatever their indentation, and lines
// that come (+). # begins a remark.
package overlay

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Change is some edits and what they are for.
type Change struct {
	Promise string
	edits   []edit
}

// edit replaces lines of a file.
type edit struct {
	file     string
	old, new []string
}

// Parse reads a change.
func Parse(text string) (*Change, error) {
	c := &Change{}
	for i, line := range strings.Split(text, "\n") {
		last := len(c.edits) - 1
		switch {
		case strings.HasPrefix(line, "promise: "):
			c.Promise = strings.TrimPrefix(line, "promise: ")
		case strings.HasPrefix(line, "in: "):
			c.edits = append(c.edits, edit{file: strings.TrimPrefix(line, "in: ")})
		case strings.HasPrefix(line, "-") && last >= 0:
			c.edits[last].old = append(c.edits[last].old, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "+") && last >= 0:
			c.edits[last].new = append(c.edits[last].new, strings.TrimSpace(line[1:]))
		case strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#"):
			return nil, fmt.Errorf("line %d: %q: want promise:, in:, -, + or #", i+1, line)
		}
	}
	if c.Promise == "" || len(c.edits) == 0 {
		return nil, fmt.Errorf("a change needs a promise and an edit")
	}
	return c, nil
}

// apply makes the edit in a file's text. The lines that go must be there once.
func (e *edit) apply(text string) (string, error) {
	lines := strings.Split(text, "\n")
	at := -1
	for i := 0; i+len(e.old) <= len(lines); i++ {
		if !alike(lines[i:i+len(e.old)], e.old) {
			continue
		}
		if at >= 0 {
			return "", fmt.Errorf("%s: lines %d and %d both match: %s", e.file, at+1, i+1, strings.Join(e.old, " / "))
		}
		at = i
	}
	if at < 0 || len(e.old) == 0 {
		return "", fmt.Errorf("%s: not there any more: %s", e.file, strings.Join(e.old, " / "))
	}
	out := append(append(append([]string(nil), lines[:at]...), e.new...), lines[at+len(e.old):]...)
	return strings.Join(out, "\n"), nil
}

func alike(lines, want []string) bool {
	for i := range want {
		if strings.TrimSpace(lines[i]) != want[i] {
			return false
		}
	}
	return true
}

func place(root, file string) string {
	if rest, ok := strings.CutPrefix(file, "$GOROOT/"); ok {
		return filepath.Join(goroot(), rest)
	}
	return filepath.Join(root, file)
}

func goroot() string {
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		return strings.TrimSpace(string(out))
	}
	return runtime.GOROOT()
}

// Apply is the text of each file that the changes change, by its path. Errors: an edit that does not apply.
func Apply(root string, changes ...*Change) (map[string]string, error) {
	files := map[string]string{}
	for _, c := range changes {
		for i := range c.edits {
			e := &c.edits[i]
			path := place(root, e.file)
			text, ok := files[path]
			if !ok {
				b, err := os.ReadFile(path)
				if err != nil {
					return nil, err
				}
				text = string(b)
			}
			var err error
			if files[path], err = e.apply(text); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// write puts the changed files into dir and returns the file that tells the compiler of them.
func write(root, dir string, changes []*Change) (string, error) {
	files, err := Apply(root, changes...)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for path, text := range files {
		from, err := filepath.Abs(path)
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[from] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o644)
}

//go:embed runtime.edits
var runtimeEdits string

// Runtime is the change that makes the scheduler draw its lots from the history's seed. ok is false where this version of
// Go is another one: histories then run as well, and replay less faithfully.
func Runtime(root string) (c *Change, ok bool) {
	c, err := Parse(runtimeEdits)
	if err != nil {
		panic(err)
	}
	_, err = Apply(root, c)
	return c, err == nil
}

// Build builds the simulation's test binary in dir, with the changes, and with Runtime where that applies. Extra are
// further arguments of go test.
func Build(root, dir string, changes []*Change, extra ...string) (bin string, faithful bool, err error) {
	args := []string{"test", "-c"}
	c, faithful := Runtime(root)
	if faithful {
		changes = append([]*Change{c}, changes...)
		args = append(args, "-tags", "simreplay")
	}
	overlay, err := write(root, dir, changes)
	if err != nil {
		return "", false, err
	}
	bin = filepath.Join(dir, "sim.test")
	args = append(append(args, "-overlay", overlay, "-o", bin), extra...)
	cmd := exec.Command("go", append(args, "./bench/sim")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", false, fmt.Errorf("the simulation does not build: %v\n%s", err, out)
	}
	return bin, faithful, nil
}

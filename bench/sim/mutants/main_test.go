package main

import (
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cawrm/bench/sim/overlay"
)

const root = "../../.."

// TestFaultsApply ensures that every planted fault still finds the lines that it changes, and that what it makes of them is Go;
// make sim-mutants shows that each of them is found.
func TestFaultsApply(t *testing.T) {
	all, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	m := listModule(t)
	for _, f := range all {
		changed, err := overlay.Apply(root, f.change)
		if err != nil {
			t.Errorf("fault %s: %v", f.name, err)
			continue
		}
		for dir := range dirsOf(changed) {
			if err := m.check(dir, changed); err != nil {
				t.Errorf("fault %s does not build: %v", f.name, err)
			}
		}
	}
}

func dirsOf(files map[string]string) map[string]bool {
	dirs := map[string]bool{}
	for f := range files {
		dirs[filepath.Dir(f)] = true
	}
	return dirs
}

// module is what the compiler knows of the packages.
type module struct {
	packages map[string]listed // by directory
	set      *token.FileSet
	importer types.Importer
}

type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

func listModule(t *testing.T) *module {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", "./aodi/...", "./cawrm/...", "./gc", "./recover")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	export := map[string]string{}
	m := &module{packages: map[string]listed{}, set: token.NewFileSet()}
	m.importer = importer.ForCompiler(m.set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(export[path]) })
	for d := json.NewDecoder(out); ; {
		var p listed
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		m.packages[p.Dir], export[p.ImportPath] = p, p.Export
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return m
}

// check type-checks a package with some of its files changed, against the others as they are.
func (m *module) check(dir string, changed map[string]string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	text := map[string]string{}
	for f, s := range changed {
		if f, err = filepath.Abs(f); err != nil {
			return err
		}
		text[f] = s
	}
	var files []*ast.File
	for _, name := range m.packages[dir].GoFiles {
		name = filepath.Join(dir, name)
		var src any
		if s, ok := text[name]; ok {
			src = s
		}
		f, err := parser.ParseFile(m.set, name, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: m.importer}
	_, err = conf.Check(m.packages[dir].ImportPath, m.set, files, nil)
	return err
}

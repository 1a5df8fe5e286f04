// Package docs runs the commands of the documentation.
package docs

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cawrm/bench/internal/build"
)

// TestDocs runs every block of commands of every page, as somebody who reads it would: each host's in a shell of its own.
func TestDocs(t *testing.T) {
	bin := program(t)
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		if filepath.Base(page) == "reference.md" { // help texts: their examples are read by a test of cmd/cawrm
			continue
		}
		all := blocks(t, page)
		checkLanguages(t, page, all)
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			play(t, bin, all)
		})
	}
}

// TestReadme runs the commands of the README. Each of its sections stands for itself, so it begins with what testdata/readme.md
// has under the same heading.
func TestReadme(t *testing.T) {
	const page, before = "../../README.md", "testdata/readme.md"
	bin := program(t)
	text, all := sections(blocks(t, page)), sections(blocks(t, before))
	checkLanguages(t, page, blocks(t, page))
	for heading := range all {
		if _, ok := text[heading]; !ok {
			t.Errorf("%s: the README has no section %q with commands", before, heading)
		}
	}
	for heading, list := range text {
		t.Run(heading, func(t *testing.T) {
			t.Parallel()
			play(t, bin, append(slices.Clone(all[heading]), list...))
		})
	}
}

// TestOtherPages: what has commands is one of the pages that are run.
func TestOtherPages(t *testing.T) {
	pages, err := filepath.Glob("../../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if filepath.Base(page) == "README.md" {
			continue
		}
		for _, b := range blocks(t, page) {
			if commands(b) != "" || strings.HasPrefix(b.text, "$ ") {
				t.Errorf("%s:%d: nobody runs these commands", page, b.line)
			}
		}
	}
}

func program(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"nbdcopy", "nbdinfo", "bash", "openssl", "unshare", "nsenter", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: %s is missing", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: it needs root for networks of its own")
	}
	bin, err := build.Binary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

func checkLanguages(t *testing.T, page string, all []block) {
	t.Helper()
	for _, b := range all {
		switch {
		case b.language == "sh" || b.language == "toml" || b.language == "console":
		case b.language == "text" || b.language == "":
			if strings.HasPrefix(b.text, "$ ") || strings.HasPrefix(b.text, "cawrm ") {
				t.Errorf("%s:%d: commands that are not marked as such are not run", page, b.line)
			}
		default:
			t.Errorf("%s:%d: a block of %s is not run", page, b.line, b.language)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)]+)\)`)

// TestLinks: what pages refer to is there.
func TestLinks(t *testing.T) {
	pages, _ := filepath.Glob("../../docs/*.md")
	top, _ := filepath.Glob("../../*.md")
	for _, page := range append(pages, top...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			u, err := url.Parse(m[1])
			if err != nil || u.Scheme != "" || u.Path == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), u.Path)); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}

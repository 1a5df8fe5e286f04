// Package docs runs the commands of the documentation.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cawrm/bench/internal/build"
)

// block is one fence of a page.
type block struct {
	language, host string
	line           int
	text           string
}

var fence = regexp.MustCompile("^```([a-z]*) ?([a-z]*)$")

func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var b *block
	for i, line := range strings.Split(string(text), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case b != nil && line == "```":
			all, b = append(all, *b), nil
		case b != nil:
			b.text += line + "\n"
		case m != nil:
			b = &block{language: m[1], host: m[2], line: i + 1}
		}
	}
	return all
}

// prologue gives each host a folder with a daemon of its own; scp copies to the other host's folder.
const prologue = `set -eu
ip link set lo up 2>/dev/null && ip addr add 10.0.0.1/32 dev lo && ip addr add 10.0.0.2/32 dev lo
trap 'jobs -p | xargs -r kill -9 2>/dev/null; wait' EXIT
top=$PWD
on() { mkdir -p "$top/$1"; cd "$top/$1"; export CAWRM_CONTROL=unix:$PWD/control.sock; }
scp() { local to=${!#}; cp "${@:1:$#-1}" "$top/${to%%:*}/"; }
`

// script is a page as one script of bash.
func script(page string, all []block) string {
	var b strings.Builder
	b.WriteString(prologue)
	for _, x := range all {
		if x.host != "" {
			fmt.Fprintf(&b, "mkdir -p \"$top/%s\"\n", x.host)
		}
	}
	for _, x := range all {
		if x.language != "sh" {
			continue
		}
		host := x.host
		if host == "" {
			host = "host"
		}
		fmt.Fprintf(&b, "on %s\necho '== %s:%d' >&2\nset -x\n", host, filepath.Base(page), x.line)
		b.WriteString(x.text + "{ set +x; } 2>/dev/null\n")
	}
	return b.String()
}

// TestDocs runs every block of commands of every page, as somebody who reads it would.
func TestDocs(t *testing.T) {
	for _, tool := range []string{"nbdcopy", "bash", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is missing", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("it needs root for a network of its own")
	}
	bin, err := build.Binary(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		all := blocks(t, page)
		if filepath.Base(page) == "reference.md" { // examples of help texts, each for itself
			continue
		}
		for _, x := range all {
			switch x.language {
			case "sh", "console", "toml", "text", "":
			default:
				t.Errorf("%s:%d: a block of %s is not run", page, x.line, x.language)
			}
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			run(t, bin, page, all)
		})
	}
}

func run(t *testing.T, bin, page string, all []block) {
	dir, err := os.MkdirTemp("", "cd") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "unshare", "--net", "bash", "-c", script(page, all))
	c.Dir = dir
	c.Env = append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "HOME="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Errorf("%v\n%s", err, out.String())
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

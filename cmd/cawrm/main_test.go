package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// asProgram in the environment makes the test binary the program, so that the tests start the real thing, with
// the race detector in it.
const asProgram = "CAWRM_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is the command with a control socket of the test's own.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, args...)
	// The race detector would sleep for a second at each orderly exit.
	c.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0", "CAWRM_CONTROL=unix:"+filepath.Join(t.TempDir(), "none.sock"))
	return c
}

// result of a command that has ended.
type result struct {
	code        int
	out, stderr string
}

func runProgram(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, program(t, args...))
}

func finish(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var out, stderr bytes.Buffer
	c.Stdout, c.Stderr = &out, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// want fails the test unless the code is right and the text has part in it.
func (r result) want(t *testing.T, code int, part string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.out+r.stderr, part) {
		t.Errorf("exit code %d, want %d with %q; stdout\n%sstderr\n%s", r.code, code, part, r.out, r.stderr)
	}
}

// TestUsage: what is wrong with the command line is code 2, what is wrong with the world is code 1.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	junk, zeroes, none := file("junk", "hello"), file("zeroes", strings.Repeat("\x00", 1<<20)), filepath.Join(dir, "none")
	for _, c := range []struct {
		args string // separated by blanks
		code int
		part string
	}{
		{"", 2, "a command is missing"},
		{"frobnicate", 2, `unknown command "frobnicate"`},
		{"--frobnicate", 2, "unknown flag"},
		{"help", 0, "Available Commands"},
		{"--help", 0, "Available Commands"},
		{"help frobnicate", 2, "there is no command"},
		{"version", 0, "container format 1"},
		{"version 1", 2, "one too many"},

		{"create", 2, "PATH is missing"},
		{"create " + none, 2, "give --size SIZE for a volume, or --mirror"},
		{"create " + none + " --size", 2, "needs an argument"},
		{"create " + none + " --size 1G --mirror", 2, "exclude each other"},
		{"create " + none + " --size ten", 2, "is not a size"},
		{"create " + none + " --size 0", 2, "at least 4096 bytes"},
		{"create " + none + " --size 17T", 2, "at most 16T"},
		{"create " + none + " --size 1000000", 2, "the next larger size is 1003520"},
		{"create " + none + " more --size 1G", 2, "one too many"},
		{"create " + junk + " --size 1G", 1, "not empty"},
		{"create " + junk + " --size 1G --force", 1, "not empty"},
		{"create " + dir + " --size 1G", 1, "regular file or a block device"},
		{"create " + none + "/x --size 1G", 1, "no such file or directory"},

		{"serve", 2, "PATH is missing"},
		{"serve " + none, 1, "does not exist; make it with `cawrm create`"},
		{"serve " + junk, 1, "not a cawrm container"},
		{"serve " + zeroes, 1, "not a cawrm container"},
		{"serve " + none + " --nbd 10809", 2, "give host:port or unix:/path"},
		{"serve " + none + " --nbd unix:/a --nbd unix:/a", 2, "given twice"},
		{"serve " + none + " --peer x", 2, "is not an address"},
		{"serve " + none + " --mirror x", 2, "give [ID=]cawrm://host:port/NAME"},
		{"serve " + none + " --control localhost:1", 2, "not a control socket"},
		{"serve " + none + " --tls on", 2, "need --tls-cert and --tls-key"},
		{"serve " + none + " --tls off", 2, "none of require, on"},
		{"serve " + none + " --tls-cert x", 2, "go together"},
		{"serve " + none + " --tls-cert x --tls-key y", 1, "TLS certificate x with key y"},
		{"serve " + none + " --name a/b", 2, "give another with --name"},

		{"--version", 0, "container format"},
		{"status a b", 2, "one too many"},
		{"status", 1, "is `cawrm serve` running?"},
		{"status x --json", 1, "no daemon answers at unix:"},
		{"status --watch", 1, "no daemon answers"},
		{"status --control unix:" + none, 1, "no daemon answers at unix:" + none},

		{"attach", 2, "NAME is missing"},
		{"attach x /dev/sda", 2, "is not an nbd device"},
		{"attach x /dev/nbd0 y", 2, "one too many"},
		{"attach x --connections 0", 2, "from 1 to 16"},
		{"attach x --block-size 1000", 2, "512, 1024, 2048 or 4096"},
		{"attach x --timeout -1s", 2, "negative"},
		{"attach x --reconnect", 2, "needs the device"},
		{"mirror", 2, "a command is missing"},
		{"mirror frobnicate", 2, "unknown command"},
		{"mirror add --help", 0, "on-timeout=degrade"},
		{"mirror add", 2, "NAME is missing"},
		{"mirror add a b", 2, "URL is missing"},
		{"mirror add a b c", 2, "is not a mirror"},
		{"mirror add a b! cawrm://c/d", 2, "an id has letters"},
		{"mirror add a b cawrm://c/d mode", 2, "want KEY=VALUE"},
		{"mirror add a b cawrm://c/d", 1, "is `cawrm serve` running?"},
		{"mirror set a b", 2, "KEY=VALUE is missing"},
		{"mirror set a b mode=x", 2, "none of async flush"},
		{"mirror set a b url=x", 2, "is not a mirror"},
		{"mirror pause a", 2, "ID is missing"},
		{"mirror remove a b c", 2, "one too many"},
		{"mirror list a b", 2, "one too many"},
		{"detach", 2, "/dev/nbdN is missing"},
		{"plan", 2, "NAME or PATH is missing"},
		{"plan " + none + " --rate x", 2, "is no rate"},
		{"plan " + none + " --rate 0", 2, "a line carries something"},
		{"plan " + junk, 1, "not a cawrm container"},
		{"doctor --port unix:/x", 2, "give host:port"},
		{"config", 2, "a command of cawrm config is missing"},
		{"config check", 2, "FILE is missing"},
		{"volume frob", 2, "unknown command"},
		{"volume add x", 2, "PATH is missing"},
		{"volume add x /y --mirror z", 2, "is not a mirror"},
		{"manual man " + none, 1, "no such file"},
		{"detach /dev/sda", 2, "is not an nbd device"},

		{"check", 2, "PATH is missing"},
		{"check " + none, 1, "no such file"},
		{"check " + junk, 1, "not a cawrm container"},
		{"dump", 2, "PATH is missing"},
		{"dump " + junk, 1, "not a cawrm container"},
		{"dump " + junk + " --segment x", 2, "invalid argument"},
	} {
		t.Run(strings.ReplaceAll(c.args, dir, "DIR"), func(t *testing.T) {
			runProgram(t, strings.Fields(c.args)...).want(t, c.code, c.part)
		})
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a command that failed left a file")
	}
}

// TestErrorsAreOneLine: scripts and people read the last line.
func TestErrorsAreOneLine(t *testing.T) {
	r := runProgram(t, "serve", filepath.Join(t.TempDir(), "none"))
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "cawrm: ") || r.out != "" {
		t.Errorf("stdout %q, stderr %q", r.out, r.stderr)
	}
}

// TestHelp: every command says what it does, with an example, on stdout.
func TestHelp(t *testing.T) {
	root, _ := newRoot()
	root.SetOut(io.Discard)
	for _, c := range root.Commands() {
		if c.Hidden {
			continue
		}
		t.Run(c.Name(), func(t *testing.T) {
			r := runProgram(t, c.Name(), "--help")
			r.want(t, 0, "Examples:\n  ")
			if r.stderr != "" || c.Short == "" || !strings.Contains(c.Example, "cawrm "+c.Name()) {
				t.Errorf("stderr %q, short %q, example %q", r.stderr, c.Short, c.Example)
			}
		})
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	volume, mirror, empty := filepath.Join(dir, "v"), filepath.Join(dir, "m"), filepath.Join(dir, "e")
	runProgram(t, "create", volume, "--size", "1.5G").want(t, 0, "created "+volume+": a volume of 1536M")
	runProgram(t, "create", volume, "--size", "1.5G").want(t, 1, "not empty")
	runProgram(t, "create", mirror, "--mirror").want(t, 0, "an empty mirror")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "create", empty, "--size", "16T").want(t, 0, "a volume of 16T")
	for _, path := range []string{volume, mirror, empty} {
		runProgram(t, "check", path).want(t, 0, "OK")
		runProgram(t, "dump", path).want(t, 0, "super chunk")
	}
}

// TestCheckFindsDamage: exit code 1 and no stack of errors, the report says it.
func TestCheckFindsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "v")
	runProgram(t, "create", path, "--size", "1G").want(t, 0, "created")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), 2*4096+100); err != nil { // the first checkpoint
		t.Fatal(err)
	}
	runProgram(t, "check", path).want(t, 1, path)
	runProgram(t, "serve", path).want(t, 1, path)
	version := make([]byte, 4)
	version[0] = 99
	if _, err := f.WriteAt(version, 8); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "serve", path).want(t, 1, "another version of cawrm")
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "serve", path).want(t, 1, path)
}

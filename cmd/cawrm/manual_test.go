package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/doctor"
	"cawrm/cmd/internal/manual"
)

// TestManualPages: every command has a page that groff takes without a warning, with its options and examples.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	runProgram(t, "manual", "man", dir).want(t, 0, "pages written")
	root, _ := newRoot()
	for _, c := range manual.Commands(root) {
		name := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".1")
		b, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, part := range []string{".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXAMPLES"} {
			if !strings.Contains(string(b), part) {
				t.Errorf("%s lacks %s", name, part)
			}
		}
		if _, err := exec.LookPath("groff"); err == nil {
			out, err := exec.Command("groff", "-man", "-Tascii", "-ww", "-z", name).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
}

// TestExamples: every command that a help text gives as an example is one that this program takes.
func TestExamples(t *testing.T) {
	root, _ := newRoot()
	for _, c := range manual.Commands(root) {
		if strings.TrimSpace(c.Example) == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			for _, words := range shellCommands(line) {
				if at := slices.Index(words, "cawrm"); at >= 0 { // the rest of "ssh host cawrm ..." is one too
					if err := understood(words[at+1:]); err != nil {
						t.Errorf("%s: %s: %v", c.CommandPath(), strings.TrimSpace(line), err)
					}
				}
			}
		}
	}
}

// shellCommands splits a line as a shell would: words, quotes, what joins commands, what is redirected, a comment.
func shellCommands(line string) (all [][]string) {
	var words []string
	for _, word := range regexp.MustCompile(`(?:"[^"]*"|'[^']*'|[^\s"'])+`).FindAllString(line, -1) {
		switch {
		case strings.HasPrefix(word, "#"):
			return append(all, words)
		case strings.ContainsAny(word[:1], "|&<>"):
			all, words = append(all, words), nil
		default:
			words = append(words, strings.Trim(word, `"'`))
		}
	}
	return append(all, words)
}

// understood tells whether words are a command with flags and arguments as it wants them.
func understood(words []string) error {
	root, _ := newRoot()
	c, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if c == root {
		return fmt.Errorf("%q is no command", words)
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	return c.ValidateArgs(c.Flags().Args())
}

// TestReference: it holds every command, every flag and every key.
func TestReference(t *testing.T) {
	r := runProgram(t, "manual", "reference")
	r.want(t, 0, "# Metrics")
	for _, part := range []string{"## cawrm mirror add", "| `--latency-objective duration` |", "#latency-objective = ", "`cawrm_sync_ptr` | gauge | volume, mirror"} {
		if !strings.Contains(r.out, part) {
			t.Errorf("it lacks %s", part)
		}
	}
}

// TestCompletion: each script is one that its shell can read, and names come from the running daemon.
func TestCompletion(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}} {
		r := runProgram(t, "completion", shell)
		r.want(t, 0, "cawrm")
		if _, err := exec.LookPath(check[0]); err != nil {
			t.Logf("SKIPPED: %s is missing", shell)
			continue
		}
		file := writeFile(t, filepath.Join(t.TempDir(), "c"), r.out)
		if out, err := exec.Command(check[0], append(check[1:], file)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	runProgram(t, "completion", "tcsh").want(t, 2, "none of bash, zsh, fish")

	s := serve(t, create(t, filepath.Join(t.TempDir(), "db"), "--size", "1M"), "--mirror", "paris=cawrm://127.0.0.1:1/db")
	for args, want := range map[string]string{
		"vol":                    "volume\t",
		"volume ":                "remove\t",
		"volume remove ":         "db\n",
		"status ":                "db\n",
		"mirror pause ":          "db\n",
		"mirror pause db ":       "paris\n",
		"attach ":                "db\n",
		"completion ":            "fish\n",
		"serve disk.img --late":  "--latency-objective\t",
		"mirror pause db paris ": ":4\n", // nothing more
	} {
		words := strings.Split(args, " ")
		c := program(t, append([]string{"__complete"}, words...)...)
		c.Env = append(c.Env, "CAWRM_CONTROL="+s.control)
		if r := finish(t, c); r.code != 0 || !strings.Contains(r.out, want) {
			t.Errorf("%q: %d, %q, %s; want %q", args, r.code, r.out, r.stderr, want)
		}
	}
	s.stop()
}

// TestCompletionInShells: each shell completes with its script, as at a press of the tabulator; bash without its package of completions
// too.
func TestCompletionInShells(t *testing.T) {
	for shell, ask := range map[string][]string{
		"bash": {"--norc", "-c", `. "$0"; COMP_WORDS=(cawrm volume rem) COMP_CWORD=2 COMP_LINE="cawrm volume rem" COMP_POINT=16 COMP_TYPE=9; compopt() { :; }; __start_cawrm; echo "${COMPREPLY[@]}"`},
		"zsh":  {"-f", "-c", `compdef() { : }; . "$0"; _describe() { print -rl -- $completions }; words=(cawrm volume rem) CURRENT=3; _cawrm`},
		"fish": {"-N", "-c", `source $argv[1]; complete -C "cawrm volume rem"`},
	} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skipf("SKIPPED: %s is missing", shell)
			}
			dir := t.TempDir()
			script := writeFile(t, filepath.Join(dir, "script"), runProgram(t, "completion", shell).out)
			like := program(t)
			if err := os.Symlink(like.Path, filepath.Join(dir, "cawrm")); err != nil {
				t.Fatal(err)
			}
			c := exec.Command(shell, append(ask, script)...)
			c.Env = append(like.Env, "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "TERM=dumb")
			if out, err := c.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "remove") {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
}

// TestDoctor: a sound folder passes, a folder in memory and one that is not there do not; a daemon's troubles are told.
func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	r := runProgram(t, "doctor", "--json", dir)
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(r.out), &all); err != nil || len(all) < 8 {
		t.Fatalf("%v: %s%s", err, r.out, r.stderr)
	}
	for _, f := range all {
		if f.Grade != doctor.OK && f.Mend == "" && f.What != "clock" {
			t.Errorf("it does not say what to do: %+v", f)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("it leaves %v", left)
	}
	runProgram(t, "doctor", filepath.Join(dir, "none", "disk.img")).want(t, 1, "make the folder")
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		runProgram(t, "doctor", "/dev/shm").want(t, 1, "choose a disk")
	}
	s := serve(t, create(t, filepath.Join(dir, "db"), "--size", "1M"), "--mirror", "paris=cawrm://127.0.0.1:1/db", "--http", "127.0.0.1:0")
	s.until("down", func(v control.Volume) bool { return v.Mirrors[0].State == "down" })
	s.command("doctor").want(t, 0, "mirror paris is down")
	s.stop()
	addr := freePort(t)
	runProgram(t, "doctor", "--port", addr).want(t, 0, addr+" is free")
}

// TestVersion: the build's words, and what two programs must agree on.
func TestVersion(t *testing.T) {
	r := runProgram(t, "version", "--json")
	var v map[string]any
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || v["version"] == "" || v["commit"] == "" || v["container_format"] == nil || v["wire_protocol"] == nil {
		t.Errorf("%v: %s", err, r.out)
	}
}

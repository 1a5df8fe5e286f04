package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// withoutJSON are the commands that print no data, and why.
var withoutJSON = map[string]string{
	"serve":            "runs until it is stopped",
	"send":             "its output is the file",
	"config example":   "its output is a configuration",
	"completion":       "its output is a script",
	"manual man":       "writes pages",
	"manual reference": "its output is Markdown",
	"help":             "text",
	"bench crash":      "hidden, dies",
	"bench inside":     "hidden, prints only JSON lines",
	"wan run":          "runs until it is stopped",
}

// TestJSONIsEverywhere: a command that prints data has --json; which do not is a list with reasons.
func TestJSONIsEverywhere(t *testing.T) {
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		for _, sub := range c.Commands() {
			walk(sub, append(slices.Clone(path), sub.Name()))
		}
		if c.HasSubCommands() {
			return
		}
		name := strings.Join(path, " ")
		has := c.Flags().Lookup("json") != nil
		if reason, ok := withoutJSON[name]; ok == has {
			t.Errorf("cawrm %s: --json: %v; without it because %q", name, has, reason)
		}
	}
	root, _ := newRoot()
	walk(root, nil)
}

// TestJSON: what commands print with --json is one JSON value, with the key that says what was done.
func TestJSON(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	disk, copied, other := at("<disk>"), at("copy"), at("other")
	run := func(code int, part string, args ...string) {
		t.Helper()
		r := runProgram(t, append(args, "--json")...)
		var v any
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != code || !strings.Contains(r.out, part) || code == 0 && r.stderr != "" {
			t.Errorf("%q: code %d, %v; want %d with %s; stdout\n%sstderr\n%s", args, r.code, err, code, part, r.out, r.stderr)
		}
	}
	run(0, `/<disk>"`, "create", disk, "--size", "16M")
	run(0, `"role": "mirror"`, "create", copied, "--mirror")
	run(0, `"capacity": 67108864`, "create", other, "--size", "16M", "--capacity", "64M")
	run(0, `"ok": true`, "check", disk)
	run(0, `"title": "super chunk (byte 0)"`, "dump", disk, "--segment", "0")
	run(0, `"changed": false`, "check", disk, "--repair")
	config := writeFile(t, at("cawrm.toml"), "nbd = [\"unix:"+at("nbd")+"\"]\npeer = [\"127.0.0.1:0\"]\n[volume.db]\npath = \""+disk+"\"\n[volume.copy]\npath = \""+copied+"\"\n")
	run(0, `"volumes": [`, "config", "check", config)
	run(1, `:2: `, "config", "check", writeFile(t, at("bad.toml"), "\nfrob = 1\n"))
	run(0, `"container_format": `, "version")
	run(0, `"authority": true`, "cert", "ca", "--dir", dir)
	run(0, `"name": "berlin"`, "cert", "issue", "berlin", "--dir", dir)
	run(0, `"expired": false`, "cert", "show", at("berlin-cert.pem"))
	run(0, at("secret"), "cert", "secret", at("secret"))

	s := serve(t, "--config", config)
	ask := func(part string, args ...string) {
		t.Helper()
		run(0, part, append(args, "--control", s.control)...)
	}
	ask(`"served": true`, "volume", "add", "other", other)
	ask(`"served": false`, "volume", "remove", "other")
	ask(config, "reload")
	url := "cawrm://" + s.volumes()[0].Peer[0] + "/copy"
	ask(`"id": "paris"`, "mirror", "add", "db", "paris", url)
	ask(`"settings": "mode=flush`, "mirror", "set", "db", "paris", "mode=flush")
	ask(`"volume": "db"`, "mirror", "list")
	ask(`"id": "paris"`, "mirror", "pause", "db", "paris")
	ask(`"id": "paris"`, "mirror", "resume", "db", "paris")
	ask(`"name": "monday"`, "snapshot", "create", "db@monday")
	ask(`"name": "monday"`, "snapshot", "list", "db")
	ask(`"of": "db@monday"`, "clone", "db@monday", "test")
	ask(`"deleted": "test"`, "clone", "--delete", "test")
	ask(`"kept": "db@before-rollback-`, "snapshot", "rollback", "db@monday")
	ask(`"deleted": "db@monday"`, "snapshot", "delete", "db@monday")
	ask(`"deleted": "db/paris"`, "mirror", "remove", "db", "paris")
	ask(`"role": "mirror"`, "demote", "db")
	ask(`"role": "primary"`, "promote", "db")
	ask(`"volumes": [`, "status")
	s.stop()

	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1 // of the super chunk
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, `"changed": true`, "check", disk, "--repair")
}

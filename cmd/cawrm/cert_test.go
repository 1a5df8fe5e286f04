package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
)

// TestPeerTrust ensures that a mirror on an address that others reach wants proof, and is fed with certificates that `cawrm cert` made,
// or with a secret, and by nobody else.
func TestPeerTrust(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{"ca", "issue berlin --host 127.0.0.1", "issue amsterdam", "issue rome"} {
		runProgram(t, append([]string{"cert"}, append(strings.Fields(args), "--dir", dir)...)...).want(t, 0, "cert")
	}
	secret, other := filepath.Join(dir, "secret"), filepath.Join(dir, "other")
	runProgram(t, "cert", "secret", secret).want(t, 0, "secret")
	runProgram(t, "cert", "secret", other).want(t, 0, "secret")
	pair := func(name string) []string {
		return []string{"--peer-cert", filepath.Join(dir, name+"-cert.pem"), "--peer-key", filepath.Join(dir, name+"-key.pem"), "--peer-ca", filepath.Join(dir, "ca-cert.pem")}
	}
	for _, tt := range []struct {
		name               string
		peer, source       []string
		isMirror, isSource string // whom either side sees; "": it is refused
		refused            string
	}{
		{"certificates", append(pair("berlin"), "--peer-allow", "amsterdam"), pair("amsterdam"), "certificate 127.0.0.1, berlin", "certificate amsterdam", ""},
		{"secret", []string{"--peer-secret", secret}, []string{"--peer-secret", secret}, "secret", "secret", ""},
		{"another secret", []string{"--peer-secret", secret}, []string{"--peer-secret", other}, "", "", "does not know the secret"},
		{"not allowed", append(pair("berlin"), "--peer-allow", "amsterdam"), pair("rome"), "", "", "certificate rome may not feed volumes here"},
		{"nothing", pair("berlin"), nil, "", "", "takes only sources with a certificate or the secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			copied := create(t, filepath.Join(dir, "copy.img"), "--mirror")
			// On every address: with proof that is no danger.
			mirror := serve(t, append([]string{copied, "--name", "db", "--peer", ":0"}, tt.peer...)...)
			port := mirror.volume().Peer[0]
			port = port[strings.LastIndexByte(port, ':')+1:]
			disk := create(t, filepath.Join(dir, "disk.img"), "--size", "1M")
			source := serve(t, append([]string{disk, "--name", "db", "--mirror", "m=cawrm://127.0.0.1:" + port + "/db"}, tt.source...)...)
			v := source.until("decided", func(v control.Volume) bool {
				return v.Mirrors[0].State == control.StateSynced || v.Mirrors[0].State == control.StateDown
			})
			m := v.Mirrors[0]
			if tt.isMirror == "" {
				if m.State != control.StateDown || !strings.Contains(m.LastError, tt.refused) {
					t.Errorf("%+v", m)
				}
				return
			}
			if s := mirror.volume().Source; m.Identity != tt.isMirror || s.Identity != tt.isSource {
				t.Errorf("the mirror is %q, its source %q", m.Identity, s.Identity)
			}
		})
	}
}

// TestPeerIsNotExposed ensures that an address which others reach is not opened by oversight.
func TestPeerIsNotExposed(t *testing.T) {
	dir := t.TempDir()
	path := create(t, filepath.Join(dir, "copy.img"), "--mirror")
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:10810", "example.org:10810"} {
		runProgram(t, "serve", path, "--peer", addr).want(t, 2, "--peer-secret, or say --insecure")
	}
	conf := filepath.Join(dir, "cawrm.toml")
	if err := os.WriteFile(conf, []byte("peer = [\":0\"]\n[volume.db]\npath = \""+path+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, "serve", "--config", conf).want(t, 2, "or say --insecure")
	for _, args := range [][]string{{"127.0.0.1:0"}, {"localhost:0"}, {"[::1]:0"}, {"unix:" + filepath.Join(dir, "p.sock")}, {":0", "--insecure"}} {
		serve(t, append([]string{path, "--peer"}, args...)...).stop()
	}
}

func TestPeerFlags(t *testing.T) {
	dir := t.TempDir()
	path := create(t, filepath.Join(dir, "copy.img"), "--mirror")
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("too short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"--peer-cert x", 2, "go together"},
		{"--peer-cert x --peer-key y", 2, "go together"},
		{"--peer-cert x --peer-key y --peer-ca z --peer-secret s", 2, "give one"},
		{"--peer-allow x", 2, "needs certificates"},
		{"--peer-allow x --peer-secret s", 2, "needs certificates"},
		{"--peer-secret " + short, 1, "can be guessed"},
		{"--peer-secret " + dir + "/none", 1, "no such file"},
		{"--peer-cert x --peer-key y --peer-ca z", 1, "--peer-cert x with --peer-key y"},
	} {
		runProgram(t, append([]string{"serve", path}, strings.Fields(tt.args)...)...).want(t, tt.code, tt.says)
	}
}

// TestCert ensures that what is made says what it is, keys are for their owners alone, and nothing is overwritten.
func TestCert(t *testing.T) {
	dir := t.TempDir()
	in := []string{"--dir", dir}
	run := func(args string) result {
		return runProgram(t, append(append([]string{"cert"}, strings.Fields(args)...), in...)...)
	}
	run("issue berlin").want(t, 1, "cawrm cert ca --dir")
	run("ca --days 100").want(t, 0, "good until")
	run("ca").want(t, 1, "is left as it is")
	run("issue berlin --host 10.0.0.2 --host db.example.org --days 50").want(t, 0, "berlin, db.example.org, 10.0.0.2")
	run("issue berlin --days 50").want(t, 1, "is left as it is")
	run("issue late --days 101").want(t, 2, "authority is good until")
	run("issue ca").want(t, 2, "is the authority's")
	run("issue a/b").want(t, 2, "no slash")
	run("issue x --host a_b --days 50").want(t, 2, "neither a host's name nor an IP address")
	run("issue x --days 0").want(t, 2, "give 1 to 36500")
	runProgram(t, "cert").want(t, 2, "a command is missing")
	runProgram(t, "cert", "make").want(t, 2, `unknown command "make"`)
	for _, name := range []string{"ca-key.pem", "berlin-key.pem"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	var s shown
	r := runProgram(t, "cert", "show", "--json", filepath.Join(dir, "berlin-cert.pem"))
	if err := json.Unmarshal([]byte(r.out), &s); err != nil || s.Name != "berlin" || len(s.Hosts) != 3 || s.Issuer != "cawrm authority" || s.Expired || s.Authority {
		t.Errorf("%+v, %v", s, err)
	}
	runProgram(t, "cert", "show", filepath.Join(dir, "berlin-key.pem")).want(t, 1, "no certificate in it")
}

// TestAllow ensures that clients may do with a volume what the first rule says that holds for them, and that a reload changes it.
func TestAllow(t *testing.T) {
	dir := t.TempDir()
	path := create(t, filepath.Join(dir, "disk.img"), "--size", "1M")
	socket := "unix:" + filepath.Join(dir, "nbd.sock")
	conf := filepath.Join(dir, "cawrm.toml")
	configure := func(allow string) {
		t.Helper()
		text := "nbd = [\"127.0.0.1:0\", \"" + socket + "\"]\n[volume.db]\npath = \"" + path + "\"\nallow = [" + allow + "]\n"
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(`"unix,ro", "addr=127.0.0.0/8"`)
	s := serve(t, "--config", conf)
	tcp := s.volume().NBD[0]
	wantExport(t, tcp, "db", 1<<20, false)
	wantExport(t, socket, "db", 1<<20, true)
	configure(`"unix", "addr=10.0.0.0/8", "cert=alice"`)
	s.command("reload").want(t, 0, "")
	wantExport(t, socket, "db", 1<<20, false)
	if _, _, err := nbdkernel.Dial(context.Background(), "tcp", tcp, "db"); err == nil {
		t.Error("a client that no rule holds for is let in")
	}
	runProgram(t, "serve", path, "--allow", "everyone").want(t, 2, "is not a rule")
}

package main

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestWanShow ensures that the profiles are told as asked and as measured, to people and to programs.
func TestWanShow(t *testing.T) {
	r := runProgram(t, "wan", "show", "--no-measure")
	r.want(t, 0, "PROFILE")
	for _, name := range []string{"lan", "metro", "wan", "bad", "satellite", "flapping"} {
		if !regexp.MustCompile(`(?m)^` + name + ` `).MatchString(r.out) {
			t.Errorf("%s is not in\n%s", name, r.out)
		}
	}
	r = runProgram(t, "wan", "show", "metro", "--json")
	r.want(t, 0, "measured_rtt_seconds")
	var rows []wanRow
	if err := json.Unmarshal([]byte(r.out), &rows); err != nil || len(rows) != 1 {
		t.Fatalf("%v in %s", err, r.out)
	}
	if m := rows[0]; m.RTTSeconds != 0.005 || m.RateBps != 1e9 || m.MeasuredRTT < 0.005 || m.MeasuredBps <= 0 || m.Mode != "relay" || m.Congestion == "" {
		t.Errorf("%+v", m)
	}
}

// TestWanRun ensures that a line of one's own carries connections, late, and says what went through.
func TestWanRun(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	profile := filepath.Join(t.TempDir(), "office.toml")
	if err := os.WriteFile(profile, []byte("base = \"metro\"\nrtt = \"60ms\"\n[[step]]\nat = \"0s\"\ndo = \"rate 80Mbit\""), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "line.sock")
	c := program(t, "wan", "run", profile, "--listen", "unix:"+socket, "--to", target.Addr().String(), "--for", "20s")
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	for range 500 {
		if conn, err = net.Dial("unix", socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	conn.Write([]byte("here"))
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("there and back took %s on a line of 60ms", took)
	}
	conn.Close()
	c.Process.Signal(os.Interrupt)
	if err := c.Wait(); err != nil {
		t.Errorf("after SIGINT: %v", err)
	}
	for _, want := range []string{"office: 60ms round trip, 1 Gbit/s", "made by relay, congestion control", "rate 80Mbit", "1 connections, 4 B there, 4 B back"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it did not say %q:\n%s", want, out.String())
		}
	}
}

// TestWanWrongUsage: exit code 2, and what is wrong.
func TestWanWrongUsage(t *testing.T) {
	for line, want := range map[string]string{
		"wan":                              "a command of cawrm wan is missing",
		"wan walk":                         `unknown command "walk" of cawrm wan`,
		"wan run":                          "PROFILE is missing",
		"wan run wan":                      "--listen ADDR is missing",
		"wan run wan --listen :0":          "--to ADDR is missing",
		"wan run moon --listen :0 --to :1": `no link profile "moon", there are lan, metro, wan`,
		"wan run wan --listen :0 --to :1 --mode magic": "magic",
		"wan show moon": `no link profile "moon"`,
	} {
		runProgram(t, strings.Fields(line)...).want(t, 2, want)
	}
	runProgram(t, "wan", "run", "wan", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--congestion", "pigeon").want(t, 1, `no congestion control "pigeon"`)
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cawrm/cmd/internal/control"
)

// pageSites starts a site a with a mirror at site b, one that cannot be reached, and a page at a that shows both sites.
func pageSites(t *testing.T) (a, b *site, page string) {
	t.Helper()
	dir := t.TempDir()
	httpA, httpB, nbd := freePort(t), freePort(t), filepath.Join(dir, "nbd")
	token := writeFile(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	b = serve(t, create(t, filepath.Join(dir, "copy"), "--mirror"), "--name", "db", "--peer", "127.0.0.1:0", "--http", httpB)
	a = serve(t, create(t, filepath.Join(dir, "disk"), "--size", "64M"), "--name", "db", "--nbd", "unix:"+nbd, "--http", httpA,
		"--mirror", "paris=cawrm://"+b.volume().Peer[0]+"/db", "--mirror", "rome=cawrm://127.0.0.1:1/db",
		"--site", "paris=http://"+httpB, "--site", "oslo=http://127.0.0.1:1", "--http-token-file", token)
	client := dialNBD(t, nbd, "db")
	for i := range uint64(500) {
		client.write(i*4096, bytes.Repeat([]byte{byte(i + 1)}, 4096))
	}
	client.flush()
	client.Close()
	a.until("synced", func(v control.Volume) bool {
		return v.Mirrors[0].State == "synced" && v.Mirrors[1].State == "down"
	})
	return a, b, "http://" + httpA
}

// TestPage: everything that the page needs comes from the daemon; other sites are in its answer, also those that do not answer;
// actions need the token.
func TestPage(t *testing.T) {
	a, b, page := pageSites(t)
	_, index := get(t, page+"/", nil)
	for _, file := range []string{"app.js", "act.js", "dom.js", "past.js", "style.css", "uPlot.iife.min.js", "uPlot.min.css", "uPlot-LICENSE.txt"} {
		if code, _ := get(t, page+"/"+file, nil); code != 200 {
			t.Errorf("%s: %d", file, code)
		}
	}
	if strings.Contains(index, "http://") || strings.Contains(index, "https://") {
		t.Error("the page loads from elsewhere")
	}
	_, body := get(t, page+"/api/sites", nil)
	var answer struct {
		Sites []struct {
			Name, Error string
			Self        bool
			Status      *control.Status
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Sites) != 3 {
		t.Fatalf("%v: %s", err, body)
	}
	s := answer.Sites
	if !s[0].Self || s[0].Status.Volumes[0].Role != "primary" || s[1].Name != "paris" || s[1].Status.Volumes[0].Role != "mirror" || s[2].Error == "" {
		t.Errorf("%s", body)
	}

	const right = "Bearer 0123456789abcdef"
	pause := `{"op":"pause","volume":"db","id":"paris"}`
	for _, c := range []struct {
		token, body string
		code        int
	}{
		{"", pause, 401}, {"Bearer 0123456789abcdeg", pause, 401}, {"0123456789abcdef", pause, 401},
		{right, "{", 400}, {right, `{"op":"remove","volume":"db","id":"paris"}`, 403}, {right, `{"op":"pause","volume":"db","id":"nobody"}`, 409},
	} {
		if code, text := post(t, page+"/api/mirror", c.token, c.body); code != c.code {
			t.Errorf("%+v: %d %s", c, code, text)
		}
	}
	if st := a.volume().Mirrors[0].State; st != "synced" {
		t.Errorf("a refused request did it: %s", st)
	}
	if code, text := post(t, page+"/api/mirror", right, pause); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	a.until("paused", func(v control.Volume) bool { return v.Mirrors[0].State == "paused" })
	a.stop()
	b.stop()
	runProgram(t, "serve", "x", "--site", "paris").want(t, 2, "NAME=http://host:port")
	runProgram(t, "serve", "x", "--http-token-file", writeFile(t, filepath.Join(t.TempDir(), "t"), "short")).want(t, 1, "at least 16 characters")
}

// TestPageInBrowser: what a browser makes of the page holds the volumes, the pointers, the states and the charts. With
// CAWRM_SCREENSHOTS=DIR it leaves pictures there.
func TestPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing")
	}
	a, b, page := pageSites(t)
	v := a.volume()
	dom := browse(t, chromium, page, "--dump-dom", "--virtual-time-budget=5000")
	for _, part := range []string{">db<", ">primary<", ">mirror<", "state synced", "state down", "refused", "lacks nothing", "<canvas",
		"mirror db/rome is down", "oslo does not answer", "end_ptr 500, durable_ptr 500, sync_ptr of paris 500, sync_ptr of rome 0"} {
		if !strings.Contains(dom, part) {
			t.Errorf("the page lacks %q (end_ptr %d):\n%s", part, v.EndPtr, dom)
		}
	}
	if dir := os.Getenv("CAWRM_SCREENSHOTS"); dir != "" {
		for name, args := range map[string][]string{
			"page-light.png": {"--window-size=1280,1000"},
			"page-dark.png":  {"--window-size=1280,1000", "--blink-settings=preferredColorScheme=0"},
			"page-phone.png": {"--window-size=500,1500"},
		} {
			browse(t, chromium, page, append(args, "--virtual-time-budget=8000", "--hide-scrollbars", "--screenshot="+filepath.Join(dir, name))...)
		}
	}
	a.stop()
	b.stop()
}

func browse(t *testing.T, chromium, page string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, chromium, append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking", "--user-data-dir=" + t.TempDir()}, append(args, page+"/")...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, stderr.String())
	}
	return string(out)
}

package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cawrm/cmd/internal/control"
)

// pastSite starts a primary with a history and two snapshots, and its mirror with a page of its own.
func pastSite(t *testing.T) (a, b *site, pageA, pageB string) {
	t.Helper()
	dir := t.TempDir()
	httpA, httpB, nbd := freePort(t), freePort(t), filepath.Join(dir, "nbd")
	token := writeFile(t, filepath.Join(dir, "token"), "0123456789abcdef\n")
	b = serve(t, create(t, filepath.Join(dir, "copy"), "--mirror"), "--name", "db", "--peer", "127.0.0.1:0", "--http", httpB, "--http-token-file", token)
	a = serve(t, create(t, filepath.Join(dir, "disk"), "--size", "64M"), "--name", "db", "--nbd", "unix:"+nbd, "--http", httpA, "--history", "1h",
		"--mirror", "paris=cawrm://"+b.volume().Peer[0]+"/db", "--site", "paris=http://"+httpB, "--http-token-file", token)
	client := dialNBD(t, nbd, "db")
	for i, snap := range []string{"db@monday", "db@tuesday"} {
		client.write(0, bytes.Repeat([]byte{byte(i + 1)}, 4096))
		client.flush()
		a.command("snapshot", "create", snap).want(t, 0, "")
	}
	client.write(0, bytes.Repeat([]byte{9}, 4096))
	client.flush()
	client.Close()
	a.until("synced with both snapshots", func(v control.Volume) bool {
		return v.Mirrors[0].State == "synced" && v.HistoryFrom != "" && b.volume().Snapshots == 2
	})
	return a, b, "http://" + httpA, "http://" + httpB
}

// TestPageActions: the page's requests for snapshots and roles need the token, and do what they may and nothing else; the past of a
// volume is told, of other sites too.
func TestPageActions(t *testing.T) {
	a, b, pageA, pageB := pastSite(t)
	for _, query := range []string{"?volume=db", "?volume=db&site=paris"} {
		code, body := get(t, pageA+"/api/history"+query, nil)
		var h control.History
		if err := json.Unmarshal([]byte(body), &h); err != nil || code != 200 || len(h.Snapshots) != 2 || h.Snapshots[0].Name != "monday" || h.Now == "" {
			t.Errorf("%s: %d %v %s", query, code, err, body)
		}
		if _, err := time.Parse(time.RFC3339Nano, h.HistoryFrom); (err == nil) != !strings.Contains(query, "paris") {
			t.Errorf("%s: history from %q", query, h.HistoryFrom)
		}
	}
	for query, want := range map[string]int{"?volume=nobody": 404, "?volume=db&site=oslo": 404, "?volume=nobody&site=paris": 502} {
		if code, body := get(t, pageA+"/api/history"+query, nil); code != want {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	const right = "Bearer 0123456789abcdef"
	snapshot, promote := `{"op":"create","volume":"db","name":"wednesday"}`, `{"op":"promote","volume":"db"}`
	for _, c := range []struct {
		page, path, token, body string
		code                    int
	}{
		{pageA, "snapshot", "", snapshot, 401}, {pageB, "role", "Bearer 0123456789abcdeg", promote, 401},
		{pageA, "snapshot", right, `{"op":"delete","volume":"db","name":"monday"}`, 403},
		{pageA, "snapshot", right, `{"op":"rollback","volume":"db","name":"monday"}`, 403},
		{pageB, "role", right, `{"op":"promote","volume":"db","force":true}`, 403},
		{pageA, "role", right, `{"op":"demote","volume":"db"}`, 403},
		{pageA, "snapshot", right, `{"op":"create","volume":"db","name":"monday"}`, 409},
		{pageB, "role", right, promote, 409}, // its source is alive
		{pageA, "snapshot", right, snapshot, 200},
	} {
		code, text := post(t, c.page+"/api/"+c.path, c.token, c.body)
		if code != c.code {
			t.Errorf("%+v: %d %s", c, code, text)
		}
	}
	if v := a.volume(); v.Snapshots != 3 || v.Role != "primary" {
		t.Errorf("%d snapshots, %s", v.Snapshots, v.Role)
	}
	if v := b.volume(); v.Role != "mirror" {
		t.Errorf("a refused promotion made it %s", v.Role)
	}
	a.stop()
	if code, text := post(t, pageB+"/api/role", right, promote); code != 200 || b.volume().Role != "primary" {
		t.Errorf("%d %s", code, text)
	}
	b.stop()
}

// post sends a request of the page.
func post(t *testing.T, url, token, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String()
}

// TestPastInBrowser: the time line of a volume is opened, walked along and read by keyboard alone; what it names is an export that a
// client can open. A snapshot and a promotion go through the questions that are asked, and without the answer nothing is done.
func TestPastInBrowser(t *testing.T) {
	a, b, pageA, pageB := pastSite(t)
	w := openBrowser(t, pageA+"/", 1280, 1000)
	w.until(`document.querySelector(".card h3")?.textContent === "db"`)
	w.key("j", "h")
	w.until(`document.getElementById("past").open`)
	w.look(1280, 1000, "light")
	if marks := w.eval(`document.querySelectorAll("#line .snap").length`); marks != "2" {
		t.Errorf("%s snapshots on the line", marks)
	}
	w.eval(`document.getElementById("slide").focus()`)
	w.key("PageDown", "PageDown", "PageDown", "ArrowLeft")
	moment := w.eval(`document.querySelector("#uses code").textContent`)
	if _, err := time.Parse("db@2006-01-02T15:04:05.000Z", moment); err != nil {
		t.Errorf("picked %q: %v", moment, err)
	}
	nbd := strings.TrimPrefix(a.volume().NBD[0], "unix:")
	client := dialNBD(t, nbd, moment) // fails the test where the daemon does not know it
	client.Close()
	w.picture("page-history.png")
	w.look(400, 900, "dark")
	if wide := w.eval(`document.documentElement.scrollWidth > innerWidth || document.getElementById("past").scrollWidth > innerWidth`); wide != "" {
		t.Error("the time line is wider than a phone")
	}
	w.picture("page-history-phone.png")
	w.eval(`(() => { const s = document.getElementById("kept"); s.value = "monday"; s.dispatchEvent(new Event("change")); })()`)
	if name := w.eval(`document.querySelector("#uses code").textContent`); name != "db@monday" {
		t.Errorf("picked %q", name)
	}
	w.look(1280, 1000, "light")
	w.key("Escape")
	w.until(`!document.getElementById("past").open`)
	if at := w.eval(`document.activeElement.dataset.key`); !strings.HasSuffix(at, "/db") {
		t.Errorf("the keyboard is at %q", at)
	}

	w.key("a")
	w.write("0123456789abcdef")
	w.key("Enter")
	w.until(`[...document.querySelectorAll(".card button")].some((b) => b.textContent === "snapshot")`)
	w.eval(`[...document.querySelectorAll(".card button")].find((b) => b.textContent === "snapshot").click()`)
	w.until(`document.getElementById("keep").open`)
	w.eval(`document.getElementById("snap").select()`)
	w.write("from-the-page")
	w.key("Enter")
	a.until("another snapshot", func(v control.Volume) bool { return v.Snapshots == 3 })
	w.until(`document.getElementById("events").textContent.includes("snapshot db@from-the-page")`)
	w.picture("page-actions.png")

	// At the mirror, whose source ends: what was not confirmed is not done.
	a.stop()
	w = openBrowser(t, pageB+"/", 1280, 1000)
	w.until(`document.querySelector(".card h3")?.textContent === "db"`)
	w.eval(`sessionStorage.setItem("token", "0123456789abcdef")`)
	promote := `[...document.querySelectorAll(".card button")].find((b) => b.textContent === "promote")`
	w.until(`!!` + promote)
	w.until(`document.querySelector(".card").textContent.includes("gone for")`)
	w.eval(promote + `.click()`)
	w.until(`document.getElementById("sure").open`)
	if facts := w.eval(`document.getElementById("facts").textContent`); !strings.Contains(facts, "was heard last") || !strings.Contains(facts, "becomes a primary at position") {
		t.Errorf("it says: %s", facts)
	}
	w.write("d")
	w.key("Enter")
	if w.eval(`document.getElementById("sure").open`) == "" || b.volume().Role != "mirror" {
		t.Error("half of the name was enough")
	}
	w.write("b")
	w.picture("page-promote.png")
	w.key("Enter")
	b.until("primary", func(v control.Volume) bool { return v.Role == "primary" })
	w.until(`document.getElementById("events").textContent.includes("done: promote db")`)
	b.stop()
}

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// browser is a chromium that a test looks at and types into, by its debugging protocol over two pipes: messages are JSON, each with a
// zero byte behind it.
type browser struct {
	t       *testing.T
	out     *os.File
	in      *bufio.Reader
	id      int
	session string
}

// openBrowser opens a page, or skips the test where there is no chromium.
func openBrowser(t *testing.T, url string, width, height int) *browser {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing")
	}
	hear, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in, say, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
		"--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), fmt.Sprintf("--window-size=%d,%d", width, height), "about:blank")
	c.ExtraFiles = []*os.File{hear, say}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	hear.Close()
	say.Close()
	b := &browser{t: t, out: out, in: bufio.NewReader(in)}
	t.Cleanup(func() {
		b.call("Browser.close", nil)
		out.Close()
		in.Close()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("chromium: %.2000s", stderr.String())
		}
	})
	_ = in.SetReadDeadline(time.Now().Add(2 * patience))
	target := b.call("Target.createTarget", map[string]any{"url": "about:blank"})["targetId"]
	b.session = b.call("Target.attachToTarget", map[string]any{"targetId": target, "flatten": true})["sessionId"].(string)
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.call("Page.navigate", map[string]any{"url": url})
	return b
}

// call asks for one command and waits for its answer; what happens meanwhile is not looked at.
func (b *browser) call(method string, params map[string]any) map[string]any {
	b.t.Helper()
	b.id++
	m := map[string]any{"id": b.id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" && method != "Browser.close" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.out.Write(append(text, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		line, err := b.in.ReadBytes(0)
		if err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		var a struct {
			ID     int
			Result map[string]any
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(bytes.TrimSuffix(line, []byte{0}), &a); err != nil {
			b.t.Fatalf("%s: %v: %.200s", method, err, line)
		}
		if a.ID != b.id {
			continue
		}
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		return a.Result
	}
}

// eval is the value of an expression in the page, as text; "" for null and false.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	r := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if e, ok := r["exceptionDetails"]; ok {
		b.t.Fatalf("%s: %v", expression, e)
	}
	switch v := r["result"].(map[string]any)["value"].(type) {
	case nil:
		return ""
	case bool:
		if !v {
			return ""
		}
		return "true"
	default:
		return fmt.Sprint(v)
	}
}

// until waits for an expression to be true, and returns its value.
func (b *browser) until(expression string) string {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if v := b.eval(expression); v != "" {
			return v
		}
		if time.Now().After(end) {
			b.t.Fatalf("never true: %s; the page says:\n%s", expression, b.eval("document.body.innerText"))
		}
	}
}

// key presses keys: a letter, or a name as Tab, Enter, ArrowLeft, Escape.
func (b *browser) key(names ...string) {
	b.t.Helper()
	codes := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "PageDown": 34}
	for _, name := range names {
		p := map[string]any{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
		if len(name) == 1 {
			p["text"], p["code"], p["windowsVirtualKeyCode"] = name, "Key"+strings.ToUpper(name), int(strings.ToUpper(name)[0])
		}
		if name == "Enter" {
			p["text"] = "\r"
		}
		b.call("Input.dispatchKeyEvent", p)
		p["type"] = "keyUp"
		delete(p, "text")
		b.call("Input.dispatchKeyEvent", p)
	}
}

// write types text where the keyboard is.
func (b *browser) write(text string) {
	b.t.Helper()
	b.call("Input.insertText", map[string]any{"text": text})
}

// picture leaves one in CAWRM_SCREENSHOTS, if that is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("CAWRM_SCREENSHOTS")
	if dir == "" {
		return
	}
	data := b.call("Page.captureScreenshot", nil)["data"].(string)
	if err := os.WriteFile(filepath.Join(dir, name), decode64(b.t, data), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func decode64(t *testing.T, text string) []byte {
	t.Helper()
	var b []byte
	if err := json.Unmarshal([]byte(`"`+text+`"`), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// look tells the page how it is looked at.
func (b *browser) look(width, height int, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]any{{"name": "prefers-color-scheme", "value": scheme}}})
}

package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestartUnderQemu: a daemon that is stopped in order and started anew is not noticed by a qemu that was told to connect again
// (reconnect-delay), also by what it asks for in between: it waits, nothing fails, and what it had written is there.
func TestRestartUnderQemu(t *testing.T) {
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("qemu-io is missing")
	}
	dir := t.TempDir()
	nbd := filepath.Join(dir, "nbd")
	disk := create(t, filepath.Join(dir, "disk"), "--size", "64M")
	first := serve(t, disk, "--name", "db", "--nbd", "unix:"+nbd)
	c := exec.Command("qemu-io", "--image-opts", "driver=nbd,server.type=unix,server.path="+nbd+",export=db,reconnect-delay=60")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = c.Stdout
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	answers := bufio.NewReader(out)
	ask := func(command string) {
		if _, err := io.WriteString(in, command+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		for {
			line, err := answers.ReadString('\n')
			if err != nil || strings.Contains(line, "rror") || strings.Contains(line, "verif") {
				t.Fatalf("%v: qemu says %q, want %q", err, line, want)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	ask("write -P 7 0 4k")
	hear("wrote 4096/4096 bytes at offset 0")
	begin := time.Now()
	first.stop()
	ask("write -P 8 4k 4k") // nobody is there
	second := serve(t, disk, "--name", "db", "--nbd", "unix:"+nbd)
	t.Logf("stopped and started again in %v", time.Since(begin))
	hear("wrote 4096/4096 bytes at offset 4096")
	for i, pattern := range []int{7, 8} {
		ask(fmt.Sprintf("read -P %d %dk 4k", pattern, 4*i))
		hear(fmt.Sprintf("read 4096/4096 bytes at offset %d", 4096*i))
	}
	ask("quit")
	_, _ = io.Copy(io.Discard, answers)
	if err := c.Wait(); err != nil {
		t.Errorf("qemu-io: %v", err)
	}
	second.stop()
}

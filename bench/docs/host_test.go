package docs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// addresses of the hosts that are machines of their own, with a network namespace each, on one wire. The others are sites on one machine.
var addresses = map[string]string{"berlin": "10.0.0.1", "paris": "10.0.0.2", "rome": "10.0.0.3"}

// host is a shell with a folder, /srv, /run and /etc/hosts of its own. Daemons that it starts are its children.
type host struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	told *bufio.Reader // a line for each block that was run
	out  output
}

// output is what a shell and its daemons print.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// prologue gives a host what is its own. scp copies into another host's folder, or into its /srv.
const prologue = `set -eu
name=$1 top=$2
mkdir -p $top/$name/srv $top/$name/run
{ echo 127.0.0.1 localhost; for a in $3; do echo ${a/=/ }; done; } >$top/hosts.$name
mount --bind $top/$name/srv /srv
mount --bind $top/$name/run /run
mount --bind $top/hosts.$name /etc/hosts
ip link set lo up
cd $top/$name
unset CAWRM_CONTROL
scp() {
	local to=${!#}
	local at=${to#*:}
	case $at in /srv*) at=/srv/ ;; esac
	cp "${@:1:$#-1}" "$top/${to%%:*}$at/"
}
`

// play runs blocks in the order of their page.
func play(t *testing.T, bin string, all []block) {
	dir, err := os.MkdirTemp("", "cd") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	t.Cleanup(cancel)
	hosts := map[string]*host{}
	var names []string
	for _, b := range all {
		if name := nameOf(b); commands(b) != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var site *host // the first of those that share a machine
	var wired []*host
	for _, name := range names {
		join := 0
		if addresses[name] == "" && site != nil {
			join = site.cmd.Process.Pid
		}
		h := start(ctx, t, bin, dir, name, join)
		hosts[name] = h
		switch {
		case addresses[name] != "":
			wired = append(wired, h)
		case site == nil:
			site = h
		}
	}
	connect(t, wired)
	for _, b := range all {
		if text := commands(b); text != "" {
			hosts[nameOf(b)].run(t, b, text)
		}
	}
}

func nameOf(b block) string {
	if b.host == "" {
		return "host"
	}
	return b.host
}

// start starts a host, in the network of process join, or in one of its own.
func start(ctx context.Context, t *testing.T, bin, dir, name string, join int) *host {
	t.Helper()
	args := []string{"unshare", "--net", "--mount"}
	if join != 0 {
		args = []string{"nsenter", "--net=/proc/" + strconv.Itoa(join) + "/ns/net", "unshare", "--mount"}
	}
	var known []string
	for n, a := range addresses {
		known = append(known, a+"="+n)
	}
	args = append(args, "bash", "-s", name, dir, strings.Join(known, " "))
	h := &host{name: name, cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	told, tell, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h.told = bufio.NewReader(told)
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	h.cmd.ExtraFiles = []*os.File{tell}
	h.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "HOME="+dir)
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	h.cmd.Cancel = func() error { return syscall.Kill(-h.cmd.Process.Pid, syscall.SIGKILL) }
	h.cmd.WaitDelay = 5 * time.Second
	h.cmd.Stdout, h.cmd.Stderr = &h.out, &h.out
	err = h.cmd.Start()
	tell.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Cancel()
		_ = h.cmd.Wait()
		told.Close()
		if t.Failed() {
			t.Logf("on %s:\n%s", name, h.out.String())
		}
	})
	own, err := os.ReadFile("testdata/sites.sh")
	if err != nil {
		t.Fatal(err)
	}
	h.say(t, prologue+string(own), "its start")
	return h
}

// connect puts hosts on one wire: a bridge in the first one's network.
func connect(t *testing.T, hosts []*host) {
	t.Helper()
	for i, h := range hosts {
		if i == 0 {
			h.say(t, "ip link add wire type bridge && ip link set wire up && ip addr add "+addresses[h.name]+"/24 dev wire\n", "its network")
			continue
		}
		pair := fmt.Sprintf("ip link add to%d type veth peer name eth0 netns %d && ip link set to%d master wire up\n", i, h.cmd.Process.Pid, i)
		hosts[0].say(t, pair, "its network")
		h.say(t, "ip addr add "+addresses[h.name]+"/24 dev eth0 && ip link set eth0 up\n", "its network")
	}
}

func (h *host) run(t *testing.T, b block, text string) {
	t.Helper()
	where := fmt.Sprintf("%s:%d", b.page, b.line)
	h.say(t, fmt.Sprintf("echo '== %s' >&2\nset -x\n%s\n{ set +x; } 2>/dev/null\n", where, text), where)
}

// say lets the shell run text, and waits for it. Its daemons do not hear what comes later.
func (h *host) say(t *testing.T, text, where string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(h.in, ". %s 3>&- </dev/null; echo done >&3\n", file); err != nil {
		t.Fatalf("%s on %s: %v", where, h.name, err)
	}
	if _, err := h.told.ReadString('\n'); err != nil {
		t.Fatalf("%s on %s: a command failed", where, h.name)
	}
}

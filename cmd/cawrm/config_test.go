package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"cawrm/cmd/internal/config"
	"cawrm/cmd/internal/control"
	"cawrm/cmd/internal/nbdkernel"
)

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigCheck: what serve would refuse is told with file and line, and is no wrong usage.
func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.toml")
	for text, want := range map[string]string{
		"\n[volume.db]\npath = '/v'\ncolour = 'red'\n": file + `:4: key "colour" is not known here`,
		"nbdd = ':1'\n":                              file + `:1: key "nbdd" is not known here`,
		"[volume.db]\n":                              file + `:1: volume "db" lacks its path`,
		"[volume.db]\npath = 'v'\n":                  file + `:2: path "v" is not absolute`,
		"[volume.'a/b']\npath = '/v'\n":              file + `:1: name "a/b"`,
		"nbd = 10809\n":                              file + `:1: key "nbd": "10809" is not an address`,
		"[volume.db]\npath = '/v'\nmirror = ['x']\n": file + `:3: key "mirror": "x" is not a mirror`,
		"tls-cert = 'x'\n":                           "--tls-cert and --tls-key go together",
		"config = 'x'\n":                             file + `:1: key "config" is not known here`,
		"[volume.db]\nname = 'x'\npath = '/v'\n":     file + `:2: key "name" is not known here`,
		"nbd = [':1'\n":                              file + ":",
	} {
		writeFile(t, file, text)
		runProgram(t, "config", "check", file).want(t, 1, want)
		runProgram(t, "serve", "--config", file).want(t, map[bool]int{true: 2, false: 1}[strings.HasPrefix(want, "--")], want)
	}
	writeFile(t, file, "nbd = ':1'\n[volume.a]\npath = '/a'\n[volume.b]\npath = '/b'\n")
	runProgram(t, "config", "check", file).want(t, 0, "OK, volumes: 2")
	runProgram(t, "config", "check", file+"x").want(t, 1, "no such file")
}

// TestEveryFlagHasItsKey: the example holds a key for each flag of serve, and is a configuration when the marks are taken away.
func TestEveryFlagHasItsKey(t *testing.T) {
	example := runProgram(t, "config", "example").out
	newServe().Flags().VisitAll(func(f *pflag.Flag) {
		if has := strings.Contains(example, "\n#"+f.Name+" = "); has != config.IsKey(f) {
			t.Errorf("--%s: its key is in the example: %v", f.Name, has)
		}
	})
	file := writeFile(t, filepath.Join(t.TempDir(), "c.toml"), example)
	runProgram(t, "config", "check", file).want(t, 0, "OK, volumes: 0")
	var keys strings.Builder
	for line := range strings.Lines(example) {
		if strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "# ") {
			keys.WriteString(line[1:])
		}
	}
	f, err := config.Parse("example", []byte(keys.String()))
	if err != nil {
		t.Fatal(err)
	}
	n := 1 // path
	newServe().Flags().VisitAll(func(f *pflag.Flag) {
		if config.IsKey(f) {
			n++
		}
	})
	if got := len(f.Keys) + len(f.Volumes[0].Keys); got != n {
		t.Errorf("%d keys for %d flags:\n%s", got, n, keys.String())
	}
}

// TestPrecedenceOfServe: defaults < file < environment < flags.
func TestPrecedenceOfServe(t *testing.T) {
	dir := t.TempDir()
	socket := func(name string) string { return "unix:" + filepath.Join(dir, name) }
	file := writeFile(t, filepath.Join(dir, "c.toml"), fmt.Sprintf("nbd = [%q]\n", socket("file")))
	for _, c := range []struct{ env, flag, want string }{
		{"", "", "file"},
		{"env", "", "env"},
		{"env", "flag", "flag"},
	} {
		args := []string{"--config", file}
		if c.env != "" {
			t.Setenv("CAWRM_NBD", socket(c.env))
		}
		if c.flag != "" {
			args = append(args, "--nbd", socket(c.flag))
		}
		s := serve(t, args...)
		for _, name := range []string{"file", "env", "flag"} {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != (name == c.want) {
				t.Errorf("%+v: socket %s: %v", c, name, err)
			}
		}
		s.stop()
	}
}

// TestPrecedenceOfEveryKey: for each flag of serve, the file comes before the default, the environment before the file, and the
// command line before the environment.
func TestPrecedenceOfEveryKey(t *testing.T) {
	values := func(f *pflag.Flag) [3]string {
		switch f.Name {
		case "tls":
			return [3]string{"on", "require", "on"}
		case "site":
			return [3]string{"a=http://a:1", "b=http://b:1", "c=http://c:1"}
		case "mirror":
			return [3]string{"a=cawrm://a:1/a", "b=cawrm://b:1/b", "c=cawrm://c:1/c"}
		case "history":
			return [3]string{"1h", "2h", "3h"}
		case "allow":
			return [3]string{"addr=10.0.0.0/8", "cert=alice", "ro"}
		case "nbd", "peer", "http", "control":
			return [3]string{"unix:/a", "unix:/b", "unix:/c"}
		}
		switch f.Value.Type() {
		case "duration":
			return [3]string{"1s", "2s", "3s"}
		case "bool":
			return [3]string{"true", "false", "true"}
		}
		return [3]string{"a", "b", "c"}
	}
	newFlags := func() *pflag.FlagSet {
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		new(daemonFlags).add(flags)
		new(volumeFlags).add(flags)
		return flags
	}
	newFlags().VisitAll(func(f *pflag.Flag) {
		if !config.IsKey(f) {
			return
		}
		value := values(f)
		for given, want := range value { // so many of file, environment, command line say something
			t.Run(fmt.Sprintf("%s/%d", f.Name, given+1), func(t *testing.T) {
				file, err := config.Parse("f", fmt.Appendf(nil, "%s = %q\n", f.Name, value[0]))
				if err != nil {
					t.Fatal(err)
				}
				line, flags, sole := newFlags(), newFlags(), newFlags()
				if given > 0 {
					t.Setenv(config.EnvName(f.Name), value[1])
				}
				if given > 1 {
					err = line.Set(f.Name, value[2])
				}
				if err := errors.Join(err, config.Copy(flags, line), config.Env(flags), sole.Set(f.Name, want)); err != nil {
					t.Fatal(err)
				}
				if _, err := config.Apply("f", file.Keys, flags); err != nil {
					t.Fatal(err)
				}
				got, want := flags.Lookup(f.Name).Value.String(), sole.Lookup(f.Name).Value.String()
				if got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
	})
}

// TestVolumeFlagsWithoutPath: what would be for one volume is not silently for none.
func TestVolumeFlagsWithoutPath(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "c.toml"), "")
	runProgram(t, "serve", "--config", file, "--history", "1h").want(t, 2, "--history is for one volume")
	runProgram(t, "serve", "--config", file, "--name", "x").want(t, 2, "--name is for one volume")
	t.Setenv("CAWRM_MIRROR", "cawrm://a:1/a")
	runProgram(t, "serve", "--config", file).want(t, 2, "CAWRM_MIRROR is for one volume")
}

// TestManyVolumes: a client goes on reading and writing while the daemon reads its file again, volumes, mirrors and addresses
// come and go; what was changed live is there after a restart.
func TestManyVolumes(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"a", "b", "c", "d"} {
		create(t, path(name+".img"), "--size", "16M")
	}
	table := func(name, more string) string {
		return fmt.Sprintf("[volume.%s]\npath = %q\n%s", name, path(name+".img"), more)
	}
	nbd := fmt.Sprintf("nbd = [%q]\n", "unix:"+path("nbd"))
	file := writeFile(t, path("c.toml"), nbd+"# kept\n"+table("a", "")+table("b", ""))
	s := serve(t, "--config", file)
	names := func(want ...string) map[string]control.Volume {
		t.Helper()
		got := map[string]control.Volume{}
		for _, v := range s.volumes() {
			got[v.Name] = v
		}
		if len(got) != len(want) {
			t.Fatalf("volumes %v, want %v", got, want)
		}
		for _, n := range want {
			if _, ok := got[n]; !ok {
				t.Fatalf("volumes %v, want %v", got, want)
			}
		}
		return got
	}
	names("a", "b")
	client := dialNBD(t, path("nbd"), "a")
	want := bytes.Repeat([]byte("a"), 4096)
	exchange := func() {
		t.Helper()
		got := make([]byte, 4096)
		client.write(4096, want)
		if client.read(4096, got); !bytes.Equal(got, want) {
			t.Fatal("the client reads something else")
		}
	}
	exchange()

	// b goes, c comes, a gets a mirror, the address of before is left for two others.
	reloaded := func(text string) {
		t.Helper()
		writeFile(t, file, text)
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		s.hearPrefix("RELOADING=1\nMONOTONIC_USEC=")
		s.hear("READY=1")
	}
	nbd = fmt.Sprintf("nbd = [%q, %q]\n", "unix:"+path("nbd2"), "127.0.0.1:0")
	reloaded(nbd + "# kept\n" + table("a", "mirror = 'm=cawrm://127.0.0.1:1/a'\n") + table("c", ""))
	exchange()
	if m := names("a", "c")["a"].Mirrors; len(m) != 1 || m[0].ID != "m" {
		t.Errorf("%+v", m)
	}
	if c, err := net.Dial("unix", path("nbd")); err == nil {
		c.Close()
		t.Error("the old address still answers")
	}
	wantExport(t, "unix:"+path("nbd2"), "c", 16<<20, false)
	runProgram(t, "check", path("b.img")).want(t, 0, "OK")

	// What is wrong changes nothing.
	before, _ := os.ReadFile(file)
	reloaded("nbd = 1\n")
	exchange()
	names("a", "c")
	s.command("reload").want(t, 1, file+":1: key \"nbd\"")
	writeFile(t, file, string(before))
	s.command("reload").want(t, 0, "read again: "+file)

	// Live changes are kept, and comments stay.
	s.command("volume", "add", "d", path("d.img"), "--mirror", "x=cawrm://127.0.0.1:1/d").want(t, 0, "kept in "+file)
	s.command("volume", "add", "d", path("d.img")).want(t, 1, "there is a volume")
	s.command("volume", "add", "e", path("e.img")).want(t, 1, "does not exist")
	s.command("volume", "remove", "c").want(t, 0, "kept in "+file)
	s.command("volume", "remove", "c").want(t, 1, `no volume "c"; the daemon serves: a, d`)
	exchange()
	names("a", "d")
	text, _ := os.ReadFile(file)
	if !strings.Contains(string(text), "# kept\n") {
		t.Errorf("the comment is gone:\n%s", text)
	}
	client.flush()
	client.Close()
	s.stop()
	s = serve(t, "--config", file)
	if m := names("a", "d")["d"].Mirrors; len(m) != 1 || m[0].ID != "x" {
		t.Errorf("%+v", m)
	}
	s.stop()
}

// TestVolumeThatCannotBeOpened: the others are served, status says why this one is not, and a reload tries again.
func TestVolumeThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	good, bad := create(t, filepath.Join(dir, "good.img"), "--size", "1M"), filepath.Join(dir, "bad.img")
	file := writeFile(t, filepath.Join(dir, "c.toml"), fmt.Sprintf("[volume.good]\npath=%q\n[volume.bad]\npath=%q\n", good, bad))
	s := serve(t, "--config", file)
	v := s.volumes()
	if len(v) != 2 || v[0].Role != "primary" || v[1].Role != "failed" || !strings.Contains(v[1].Error, "does not exist") {
		t.Errorf("%+v", v)
	}
	s.status().want(t, 0, "FAILED: ")
	create(t, bad, "--size", "1M")
	s.command("reload").want(t, 0, "read again")
	if v := s.volumes(); len(v) != 2 || v[1].Role != "primary" {
		t.Errorf("%+v", v)
	}
	s.stop()
}

// TestLiveWithoutFile: a daemon of one volume takes more, and says that they are not kept.
func TestLiveWithoutFile(t *testing.T) {
	dir := t.TempDir()
	a, b := create(t, filepath.Join(dir, "a"), "--size", "1M"), create(t, filepath.Join(dir, "b"), "--size", "1M")
	s := serve(t, a)
	s.command("volume", "add", "b", b).want(t, 0, "not kept: ")
	s.command("reload").want(t, 0, "certificates")
	if len(s.volumes()) != 2 {
		t.Error("it is not there")
	}
	s.command("volume", "remove", "b").want(t, 0, "not kept: ")
	s.stop()
}

// TestWatchdog: a daemon that lives says so.
func TestWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", fmt.Sprint((100 * time.Millisecond).Microseconds()))
	s := serve(t, create(t, filepath.Join(t.TempDir(), "a"), "--size", "1M"))
	s.hear("WATCHDOG=1")
	s.hear("WATCHDOG=1")
}

// TestSocketActivation: a socket that systemd holds is served, beside those of the command line, and stays when the daemon ends.
func TestSocketActivation(t *testing.T) {
	dir := t.TempDir()
	path, socket := create(t, filepath.Join(dir, "db"), "--size", "1M"), filepath.Join(dir, "held")
	held, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	file, err := held.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := launch(t, func(c *exec.Cmd) {
		c.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, c.Path}, c.Args[1:]...)
		c.Path = "/bin/sh"
		c.Env = append(c.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=nbd")
		c.ExtraFiles = []*os.File{file}
	}, path, "--nbd", "unix:"+filepath.Join(dir, "own"))
	wantExport(t, "unix:"+socket, "db", 1<<20, false)
	wantExport(t, "unix:"+filepath.Join(dir, "own"), "db", 1<<20, false)
	s.stop()
	if _, err := os.Stat(socket); err != nil {
		t.Error(err)
	}
}

// diskClient speaks just enough NBD: simple replies, one request at a time.
type diskClient struct {
	t *testing.T
	net.Conn
}

func dialNBD(t *testing.T, socket, name string) diskClient {
	t.Helper()
	c, _, err := nbdkernel.Dial(context.Background(), "unix", socket, name)
	if err != nil {
		t.Fatal(err)
	}
	return diskClient{t, c}
}

// ask sends a request; out follows it, in follows the answer.
func (c diskClient) ask(command uint16, off uint64, length int, out, in []byte) {
	c.t.Helper()
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, uint32(command))
	b = binary.BigEndian.AppendUint64(b, 7)
	b = binary.BigEndian.AppendUint64(b, off)
	b = append(binary.BigEndian.AppendUint32(b, uint32(length)), out...)
	answer := make([]byte, 16+len(in))
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(b); err != nil {
		c.t.Fatal("the client was dropped: ", err)
	}
	if _, err := io.ReadFull(c, answer); err != nil {
		c.t.Fatal("the client was dropped: ", err)
	}
	if code := binary.BigEndian.Uint32(answer[4:]); code != 0 {
		c.t.Fatalf("command %d: error %d", command, code)
	}
	copy(in, answer[16:])
}

func (c diskClient) write(off uint64, p []byte) { c.t.Helper(); c.ask(1, off, len(p), p, nil) }
func (c diskClient) read(off uint64, p []byte)  { c.t.Helper(); c.ask(0, off, len(p), nil, p) }
func (c diskClient) flush()                     { c.t.Helper(); c.ask(3, 0, 0, nil, nil) }

// TestRemoveFedVolume: a mirror that is being fed is closed at a whole epoch, and goes on where it stood when it is back.
func TestRemoveFedVolume(t *testing.T) {
	dir := t.TempDir()
	disk, copied := create(t, filepath.Join(dir, "disk.img"), "--size", "16M"), create(t, filepath.Join(dir, "copy.img"), "--mirror")
	b := serve(t, copied, "--name", "db", "--peer", "127.0.0.1:0")
	socket := filepath.Join(dir, "nbd")
	a := serve(t, disk, "--nbd", "unix:"+socket, "--mirror", "b=cawrm://"+b.volume().Peer[0]+"/db")
	client := dialNBD(t, socket, "disk.img")
	write := func(k byte) {
		for i := range uint64(64) {
			client.write(i*4096, bytes.Repeat([]byte{k}, 4096))
		}
		client.flush()
	}
	write(1)
	a.until("fed", func(v control.Volume) bool { return v.Mirrors[0].SyncPtr > 0 })
	b.command("volume", "remove", "db").want(t, 0, "not served any more")
	runProgram(t, "check", copied).want(t, 0, "OK")
	write(2)
	a.until("down", func(v control.Volume) bool {
		return v.Mirrors[0].State == "down" && strings.Contains(v.Mirrors[0].LastError, "db")
	})
	b.command("volume", "add", "db", copied).want(t, 0, "is served")
	// A name that is not known is asked for again after some seconds only; resume asks at once.
	a.command("mirror", "pause", "disk.img", "b").want(t, 0, "")
	a.command("mirror", "resume", "disk.img", "b").want(t, 0, "")
	v := a.until("synced", func(v control.Volume) bool { return v.Mirrors[0].State == "synced" })
	if m := b.volume(); m.EndPtr != v.EndPtr {
		t.Errorf("%+v\n%+v", m, v)
	}
	client.Close()
	a.stop()
	b.stop()
}

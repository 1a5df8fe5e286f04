package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"cawrm/bench/internal/site"
	"cawrm/wan"
)

// TestPostgres ensures that a database on a mirrored disk loses nothing that it has promised: with a mirror in flush mode the source
// is killed under load, the mirror promoted at once, and the database opens there, is sound by its own checker, and has every row
// whose COMMIT was answered.
func TestPostgres(t *testing.T) {
	servers, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(servers) == 0 || os.Geteuid() != 0 {
		t.Skip("SKIPPED: no database was tried: it needs postgresql's server, and root, to start that as another user")
	}
	bin := servers[len(servers)-1]
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	programs := []string{"postgres", "psql", "pgbench", "pg_amcheck", "grep"}
	need(t, "no database was tried", append([]string{"nbdcopy", "initdb", "pg_ctl", "mke2fs"}, programs...)...)
	p := newPromotion(t, seed(t), wan.Profile{Delay: 2 * time.Millisecond, Rate: 20 << 20}, "192M")
	p.check(p.source.Stop())
	p.source.Mirrors = []string{site.MirrorURL(p.link.Addr(), "vol") + "?mode=flush&on-timeout=block"}
	p.check(p.source.Start(t.Context()))
	uid, gid := p.cluster()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p.check(p.source.WaitSynced(ctx))

	machine := func(args ...string) *machine {
		m := newMachine(t, "postgres.sh", 600*time.Second).with(args...).with("--add", "volumes.sh:lab/volumes.sh")
		for _, name := range programs {
			m.with("--bin", name)
		}
		version := filepath.Base(filepath.Dir(bin))
		share := "usr/share/postgresql/" + version
		// A server in /bin looks for its libraries in /lib.
		return m.with("--add", "/"+share+":"+share, "--add", filepath.Join(filepath.Dir(bin), "lib")+":lib")
	}
	m := machine("--disk", p.source.URI()).withTold()
	m.start(uid, gid, "write")
	var told []string
	enough, ended := make(chan struct{}), make(chan struct{})
	least := 50 + p.rng.IntN(200)
	go func() {
		defer close(ended)
		for line := range m.told {
			if _, err := strconv.Atoi(line); err != nil {
				continue // psql ends a reply of no rows with an empty line
			}
			if told = append(told, line); len(told) == least {
				close(enough)
			}
		}
	}()
	select {
	case <-enough:
	case <-ended:
		m.finish()
		t.FailNow()
	}
	p.link.Stall(true) // a mirror that nobody waits for would lack what is answered from now on
	time.Sleep(2 * time.Second)
	p.source.Kill()
	time.Sleep(time.Second) // what was answered before is told; nothing can be answered any more
	m.kill()
	_ = m.wait() // killed
	<-ended
	p.promote(ctx)
	list := filepath.Join(t.TempDir(), "told")
	p.check(os.WriteFile(list, []byte(strings.Join(append(told, ""), "\n")), 0o600))
	after := machine("--disk", p.mirror.URI(), "--add", list+":lab/told")
	after.start(uid, gid, "check")
	after.finish()
	p.check(p.mirror.Stop())
	p.check(p.mirror.Check())
	t.Logf("%d transactions were answered before the source was killed, and all are there", len(told))
}

// cluster puts an ext4 with a database into the volume, and says whose it is.
func (p *promotion) cluster() (uid, gid string) {
	p.t.Helper()
	owner, err := user.Lookup("postgres")
	p.check(err)
	dir, err := os.MkdirTemp("", "cluster") // not below a directory that only root may enter
	p.check(err)
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	p.check(os.Chmod(dir, 0o755))
	run := func(name string, args ...string) {
		p.t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			p.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	fs := filepath.Join(dir, "fs")
	data := filepath.Join(fs, "data")
	p.check(os.Mkdir(fs, 0o755))
	run("chown", "postgres", fs)
	as := func(command string, args ...any) {
		p.t.Helper()
		run("su", "postgres", "-s", "/bin/sh", "-c", fmt.Sprintf(command, args...))
	}
	as("PATH='%s' initdb -D %s --no-locale -E UTF8 -A trust >/dev/null", os.Getenv("PATH"), data)
	f, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	p.check(err)
	_, err = f.WriteString("listen_addresses = ''\nunix_socket_directories = '/tmp'\nport = 5999\nshared_buffers = 16MB\n" +
		"dynamic_shared_memory_type = mmap\nhuge_pages = off\ntimezone = 'GMT'\nlog_timezone = 'GMT'\n")
	p.check(err)
	p.check(f.Close())
	as("PATH='%s'; cd /; pg_ctl -D %s -w -l %s/log start >/dev/null && psql -X -h /tmp -p 5999 -qc 'create table acknowledged (n int primary key)' &&"+
		" pgbench -h /tmp -p 5999 -q -i -s 1 postgres >/dev/null 2>&1; pg_ctl -D %s -m fast -w stop >/dev/null", os.Getenv("PATH"), data, fs, data)
	image := filepath.Join(dir, "image")
	run("mke2fs", "-q", "-t", "ext4", "-d", fs, image, "192M")
	run("nbdcopy", "--flush", image, p.source.URI())
	return owner.Uid, owner.Gid
}

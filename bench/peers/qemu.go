package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qemu is qemu-storage-daemon with a blockdev-mirror to nbdkit at the other site.
type qemu struct {
	place
	mode string // copy-mode: background or write-blocking

	daemon, far *program
	farAddr     string
	conn        net.Conn
	lines       *bufio.Scanner
}

func (q *qemu) socket() string           { return q.path("nbd.sock") }
func (q *qemu) source() (string, string) { return "unix:" + q.socket(), "v" }
func (q *qemu) target() (string, string) { return q.farAddr, "" }
func (q *qemu) listens() string          { return q.farAddr }

func (q *qemu) start(ctx context.Context) error {
	near, err := q.image("source")
	if err != nil {
		return err
	}
	far, err := q.image("target")
	if err != nil {
		return err
	}
	if q.far, q.farAddr, err = nbdkit(ctx, far); err != nil {
		return err
	}
	q.daemon, err = run("qemu-storage-daemon",
		"--chardev", "socket,id=m,server=on,wait=off,path="+q.path("qmp.sock"), "--monitor", "chardev=m",
		"--blockdev", "driver=file,filename="+near+",node-name=f,discard=unmap",
		"--blockdev", "driver=raw,file=f,node-name=src",
		"--nbd-server", "addr.type=unix,addr.path="+q.socket(),
		"--export", "nbd,id=e,node-name=src,writable=on,name=v")
	if err != nil {
		return err
	}
	if err := q.daemon.await(ctx, "unix:"+q.socket(), "v"); err != nil {
		return err
	}
	if q.conn, err = net.Dial("unix", q.path("qmp.sock")); err != nil {
		return err
	}
	q.lines = bufio.NewScanner(q.conn)
	_, err = q.command("qmp_capabilities", nil)
	return err
}

// command sends one and waits for its result; events in between are left out.
func (q *qemu) command(name string, args any) (json.RawMessage, error) {
	ask := map[string]any{"execute": name}
	if args != nil {
		ask["arguments"] = args
	}
	q.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err := json.NewEncoder(q.conn).Encode(ask); err != nil {
		return nil, fmt.Errorf("qemu %s: %w", name, err)
	}
	for q.lines.Scan() {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(q.lines.Bytes(), &answer); err != nil {
			return nil, fmt.Errorf("qemu %s: %w", name, err)
		}
		switch {
		case answer.Error != nil:
			return nil, fmt.Errorf("qemu %s: %s", name, answer.Error.Desc)
		case answer.Return != nil:
			return answer.Return, nil
		}
	}
	return nil, fmt.Errorf("qemu %s: no answer: %v\n%s", name, q.lines.Err(), q.daemon.log.String())
}

func (q *qemu) mirror(_ context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	_, err = q.command("blockdev-add", map[string]any{
		"driver": "nbd", "node-name": "tgt", "export": "", "reconnect-delay": 600,
		"server": map[string]any{"type": "inet", "host": host, "port": port},
	})
	if err != nil {
		return err
	}
	_, err = q.command("blockdev-mirror", map[string]any{
		"job-id": "j", "device": "src", "target": "tgt", "sync": "full", "copy-mode": q.mode,
	})
	return err
}

func (q *qemu) synced(context.Context) (bool, error) {
	b, err := q.command("query-block-jobs", nil)
	if err != nil {
		return false, err
	}
	var jobs []struct {
		Offset, Len int64
		Ready       bool
	}
	if err := json.Unmarshal(b, &jobs); err != nil {
		return false, err
	}
	if len(jobs) != 1 {
		return false, fmt.Errorf("qemu's mirror has ended\n%s", q.daemon.log.String())
	}
	return jobs[0].Ready && jobs[0].Offset == jobs[0].Len, nil
}

func (q *qemu) stop() {
	if q.conn != nil {
		q.conn.Close()
	}
	q.daemon.kill()
	q.far.kill()
}

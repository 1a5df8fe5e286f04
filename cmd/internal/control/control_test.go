package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cawrm/cmd/internal/control"
)

func start(t *testing.T, status func() control.Status) (path string) {
	path = filepath.Join(t.TempDir(), "c.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(status, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestStatus(t *testing.T) {
	want := control.Status{Volumes: []control.Volume{{
		Name: "disk", Role: "primary", Size: 1 << 30, UsedBytes: 5, PhysicalBytes: 6, EndPtr: math.MaxUint64, DurablePtr: 8,
		Lineage: []control.Lineage{{ID: "l", Start: 1}},
		Mirrors: []control.Mirror{{ID: "b", URL: "cawrm://b:1/disk", State: control.StateSyncing, SyncPtr: 7, LagRecords: 1, LagSeconds: 0.25}},
		NBD:     []string{"unix:/x"}, Peer: []string{}, Source: &control.Source{Address: "a:1"},
	}}}
	path := start(t, func() control.Status { return want })
	c := control.NewClient(filepath.Join(t.TempDir(), "nobody"), path)
	defer c.Close()
	got, err := c.Status(context.Background())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	v, err := got.Volume("disk")
	if err != nil || v.Name != "disk" {
		t.Error(v, err)
	}
	if _, err := got.Volume("dsk"); err == nil || err.Error() != `no volume "dsk"; the daemon serves: disk` {
		t.Error(err)
	}
	if v, err := got.Volume(""); err != nil || v.Name != "disk" {
		t.Error(v, err)
	}
}

// TestKeys holds the contract: these keys, and lists that are never null.
func TestKeys(t *testing.T) {
	path := start(t, func() control.Status {
		return control.Status{Volumes: []control.Volume{{Mirrors: []control.Mirror{{}}}, {}}}
	})
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://x/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	body.ReadFrom(resp.Body)
	if strings.Contains(body.String(), "null") {
		t.Errorf("null in %s", body.String())
	}
	var got struct{ Volumes []map[string]any }
	if err := json.Unmarshal(body.Bytes(), &got); err != nil || len(got.Volumes) != 2 {
		t.Fatal(err, body.String())
	}
	for _, k := range strings.Fields("name role size used_bytes physical_bytes end_ptr durable_ptr lineage mirrors") {
		if _, ok := got.Volumes[0][k]; !ok {
			t.Errorf("a volume lacks %q", k)
		}
	}
	mirror := got.Volumes[0]["mirrors"].([]any)[0].(map[string]any)
	for _, k := range strings.Fields("id url state sync_ptr lag_records lag_bytes lag_seconds rate_bps eta_seconds sent_bytes last_error") {
		if _, ok := mirror[k]; !ok {
			t.Errorf("a mirror lacks %q", k)
		}
	}
}

func TestRefusals(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nobody")
	c := control.NewClient(nowhere)
	_, err := c.Status(context.Background())
	if want := "no daemon answers at unix:" + nowhere + "; is `cawrm serve` running?"; !errors.Is(err, control.ErrNoDaemon) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}

	broken := start(t, func() control.Status {
		return control.Status{Volumes: []control.Volume{{Mirrors: []control.Mirror{{LagSeconds: math.NaN()}}}}}
	})
	c = control.NewClient(broken)
	defer c.Close()
	if _, err = c.Status(context.Background()); err == nil || !strings.Contains(err.Error(), "the daemon refuses: the daemon's answer cannot") {
		t.Error(err)
	}

	foreign := filepath.Join(t.TempDir(), "foreign")
	l, err := net.Listen("unix", foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }))
	c = control.NewClient(foreign)
	defer c.Close()
	if _, err = c.Status(context.Background()); err == nil || !strings.Contains(err.Error(), "is not cawrm") {
		t.Error(err)
	}
}

func TestEmptyStatusNamesNothing(t *testing.T) {
	if _, err := (control.Status{}).Volume("x"); err == nil || !strings.Contains(err.Error(), "serves none") {
		t.Error(err)
	}
}

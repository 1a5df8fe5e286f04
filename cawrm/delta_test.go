package cawrm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cawrm/aodi"
	"cawrm/cawrm"
)

func send(t testing.TB, v *aodi.Volume, s cawrm.Send) []byte {
	t.Helper()
	var b bytes.Buffer
	check(t, cawrm.WriteDelta(context.Background(), v, s, &b))
	return b.Bytes()
}

func receive(v *aodi.Volume, file []byte) (cawrm.Received, error) {
	r, err := cawrm.OpenDelta(bytes.NewReader(file))
	if err != nil {
		return cawrm.Received{}, err
	}
	return cawrm.ReadDelta(v, r)
}

// newSent is a volume with snapshots a, b and c, and something after them.
func newSent(t testing.TB, seed uint64) *aodi.Volume {
	rng := newRand(seed)
	v := newSource(t, 1024)
	for _, name := range []string{"a", "b", "c", ""} {
		for range 600 {
			write(t, v, rng.Int64N(1024), rng.Uint64())
		}
		check(t, v.Trim(rng.Int64N(900)*chunk, 100*chunk, false))
		check(t, v.WriteZeroes(rng.Int64N(1000)*chunk, 10*chunk, true, false))
		if name != "" {
			snapshot(t, v, name)
		}
	}
	return v
}

// TestDeltaSeedsMirror ensures that files bring an empty mirror to the snapshots that they are of, and that the link then ships
// only what is newer: the bytes are counted.
func TestDeltaSeedsMirror(t *testing.T) {
	v := newSent(t, seedOf(t))
	mirror := newMirror(t)
	full, more := send(t, v, cawrm.Send{To: "a"}), send(t, v, cawrm.Send{From: "a", To: "c"})
	for i, f := range [][]byte{full, more, more} {
		got, err := receive(mirror, f)
		check(t, err)
		if got.Nothing != (i == 2) || got.Bytes != int64(len(f)) {
			t.Fatalf("file %d of %d bytes: %+v", i, len(f), got)
		}
	}
	for i, s := range v.Snapshots() {
		if i == 1 {
			continue // b, which no file was of
		}
		if !bytes.Equal(snapContent(t, v, s.Name), snapContent(t, mirror, s.Name)) {
			t.Fatalf("snapshot %s differs", s.Name)
		}
		if m := mirror.Snapshots()[i/2]; m.Name != s.Name || m.Position != s.Position || !m.Time.Equal(s.Time) {
			t.Fatalf("the source has %+v, the mirror %+v", s, m)
		}
	}
	n := newNetwork()
	newSite(t, n, mirror)
	for range 20 {
		write(t, v, 7, 7)
	}
	m := startMirror(t, v, mirrorConfig(n))
	synced(t, v, m)
	sameContent(t, v, mirror)
	fresh := newNetwork()
	newSite(t, fresh, newMirror(t))
	synced(t, v, startMirror(t, v, mirrorConfig(fresh)))
	if seeded, whole := n.carried(), fresh.carried(); 2*seeded > whole {
		t.Fatalf("%d bytes to the mirror that was seeded, %d to an empty one", seeded, whole)
	} else {
		t.Logf("%d bytes to the mirror that was seeded, %d to an empty one; files of %d and %d bytes", seeded, whole, len(full), len(more))
	}
}

// TestDeltaOfNothing ensures that a snapshot of a volume that was never written to can be sent, and one that equals the one before.
func TestDeltaOfNothing(t *testing.T) {
	v, mirror := newSource(t, 64), newMirror(t)
	snapshot(t, v, "a")
	snapshot(t, v, "b")
	for _, s := range []cawrm.Send{{To: "a"}, {From: "a", To: "b"}} {
		_, err := receive(mirror, send(t, v, s))
		check(t, err)
	}
	sameSnapshots(t, v, mirror)
}

// TestDeltaBetween ensures that a file serves any mirror that stands between its positions.
func TestDeltaBetween(t *testing.T) {
	v := newSent(t, seedOf(t))
	mirror := newMirror(t)
	for _, s := range []cawrm.Send{{To: "a"}, {From: "a", To: "b"}, {To: "c"}} {
		_, err := receive(mirror, send(t, v, s))
		check(t, err)
	}
	sameSnapshots(t, v, mirror)
}

// TestDeltaInterrupted breaks a file off at many places. The mirror shows its old state until the rest has come, by the same file
// or by what is sent for the token, and that is smaller.
func TestDeltaInterrupted(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	v := newSent(t, seed)
	base, file := send(t, v, cawrm.Send{To: "a"}), send(t, v, cawrm.Send{From: "a", To: "c"})
	for i := range 12 {
		d := newDisk(t, aodi.CreateOptions{Mirror: true})
		mirror := openVolume(t, d, aodi.Options{})
		_, err := receive(mirror, base)
		check(t, err)
		at := mirror.Snapshots()[0].Position
		var broken *cawrm.Interrupted
		for k := range 3 {
			_, err = receive(mirror, file[:200+rng.IntN(len(file)-200)])
			if !errors.As(err, &broken) || !strings.Contains(err.Error(), "breaks off") {
				t.Fatalf("a part of a file: %v", err)
			}
			if p, _ := mirror.Pointers(); p != at {
				t.Fatalf("it shows %d, not %d", p, at)
			}
			if k == 1 {
				check(t, mirror.Close())
				mirror = openVolume(t, d, aodi.Options{})
			}
		}
		rest := file
		if i%2 == 0 && broken.Resume.Base > 0 {
			token, err := cawrm.ParseResume(broken.Resume.String())
			check(t, err)
			rest = send(t, v, cawrm.Send{From: "a", To: "c", Resume: token})
			if token.Cursor > 512 && len(rest) > len(file)*3/4 {
				t.Fatalf("the rest from %v on has %d bytes, the file %d", token, len(rest), len(file))
			}
			if _, err := receive(seeded(t, base), rest); err == nil || !strings.Contains(err.Error(), "the file is the rest of one") {
				t.Fatalf("the rest alone: %v", err)
			}
		}
		_, err = receive(mirror, rest)
		check(t, err)
		if !bytes.Equal(snapContent(t, v, "c"), snapContent(t, mirror, "c")) {
			t.Fatalf("run %d: snapshot c differs", i)
		}
	}
}

func seeded(t testing.TB, file []byte) *aodi.Volume {
	t.Helper()
	v := newMirror(t)
	_, err := receive(v, file)
	check(t, err)
	return v
}

// TestDeltaRefused ensures that a file which a mirror cannot use is refused with the reason, and changes nothing.
func TestDeltaRefused(t *testing.T) {
	v, other := newSent(t, 1), newSent(t, 2)
	first := send(t, v, cawrm.Send{To: "a"})
	for _, c := range []struct {
		name   string
		file   []byte
		mirror func() *aodi.Volume
		want   string
	}{
		{"wrong base", send(t, v, cawrm.Send{From: "b", To: "c"}), func() *aodi.Volume { return seeded(t, first) }, "the wrong base, the mirror stands at"},
		{"no base", send(t, v, cawrm.Send{From: "a", To: "b"}), func() *aodi.Volume { return newMirror(t) }, "the wrong base"},
		{"other volume", send(t, other, cawrm.Send{To: "b"}), func() *aodi.Volume { return seeded(t, first) }, "the file is of volume " + other.Info().Volume.String()},
		{"beyond", first, func() *aodi.Volume { return seeded(t, send(t, v, cawrm.Send{To: "b"})) }, "already"},
		{"primary", first, func() *aodi.Volume { return newSource(t, 64) }, "a primary takes none"},
	} {
		m := c.mirror()
		before, _ := m.Pointers()
		had := names(m)
		if _, err := receive(m, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %q", c.name, err, c.want)
		}
		if after, _ := m.Pointers(); after != before || names(m) != had {
			t.Errorf("%s: the mirror went from %d to %d", c.name, before, after)
		}
	}
	for _, s := range []cawrm.Send{{From: "b", To: "a"}, {To: "none"}, {From: "none", To: "a"}, {To: "a", Resume: cawrm.Resume{Base: 1 << 40}}} {
		if err := cawrm.WriteDelta(context.Background(), v, s, &bytes.Buffer{}); err == nil {
			t.Errorf("%+v was sent", s)
		}
	}
}

// TestDeltaDamaged flips bits and leaves out or repeats bytes: such a file is never shown, wherever it is damaged.
func TestDeltaDamaged(t *testing.T) {
	seed := seedOf(t)
	rng := newRand(seed)
	v := newSent(t, seed)
	base, file := send(t, v, cawrm.Send{To: "a"}), send(t, v, cawrm.Send{From: "a", To: "b"})
	mirror := seeded(t, base)
	at, _ := mirror.Pointers()
	for i := range 150 {
		bad, k := bytes.Clone(file), rng.IntN(len(file))
		if i%10 == 0 {
			k = rng.IntN(120)
		}
		switch i % 3 {
		case 0:
			bad[k] ^= 1 << rng.IntN(8)
		case 1:
			bad = append(bad[:k], bad[min(len(bad), k+1+rng.IntN(5000)):]...)
		case 2:
			k = max(1, k) // else nothing is repeated
			bad = append(bad[:k:k], file[max(0, k-1-rng.IntN(5000)):]...)
		}
		if _, err := receive(mirror, bad); err == nil {
			t.Fatalf("damage %d at byte %d of %d was not found", i, k, len(file))
		}
		if p, _ := mirror.Pointers(); p != at {
			t.Fatalf("damage %d at byte %d of %d is shown", i, k, len(file))
		}
	}
	_, err := receive(mirror, append(bytes.Clone(file), 0))
	if err == nil {
		t.Fatal("a byte behind the end was not found")
	}
	_, err = receive(mirror, file)
	check(t, err)
	if !bytes.Equal(snapContent(t, v, "b"), snapContent(t, mirror, "b")) {
		t.Fatal("snapshot b differs")
	}
}

// TestDeltaNotBesideFeed ensures that a mirror takes a file or a source, and never both.
func TestDeltaNotBesideFeed(t *testing.T) {
	v := newSent(t, 1)
	n := newNetwork()
	s := newSite(t, n, newMirror(t))
	m := startMirror(t, v, mirrorConfig(n))
	synced(t, v, m)
	r, err := cawrm.OpenDelta(bytes.NewReader(send(t, v, cawrm.Send{To: "a"})))
	check(t, err)
	if _, err := s.peer.Receive("vm", r); err == nil || !strings.Contains(err.Error(), "is being fed") {
		t.Fatal(err)
	}
	m.Close()
	snapshot(t, v, "d")
	r, err = cawrm.OpenDelta(bytes.NewReader(send(t, v, cawrm.Send{From: "c", To: "d"})))
	check(t, err)
	eventually(t, "the feed has ended", func() bool { return !s.peer.Status()[0].Connected }, func() any { return fmt.Sprint(s.peer.Status()) })
	_, err = s.peer.Receive("vm", r)
	check(t, err)
	sameSnapshots(t, v, s.v)
}

// TestDeltaAfterEpochThatWasNotShown ensures that a mirror takes a file when the feed before it ended between the coming of a whole epoch
// and its commit: what comes then follows the epoch, not what is shown.
func TestDeltaAfterEpochThatWasNotShown(t *testing.T) {
	v, mirror := newSource(t, 64), newMirror(t)
	write(t, v, 1, 1)
	snapshot(t, v, "a")
	for i := range int64(5) {
		write(t, v, 2+i, uint64(2+i))
	}
	snapshot(t, v, "b")
	_, err := receive(mirror, send(t, v, cawrm.Send{To: "a"}))
	check(t, err)
	at, _ := mirror.Pointers()
	r, err := v.ReadLog(at)
	check(t, err)
	defer r.Close()
	var b aodi.LogBatch
	check(t, r.Next(at+2, 1<<20, &b))
	check(t, mirror.Stage(&b, true))
	_, err = receive(mirror, send(t, v, cawrm.Send{From: "a", To: "b"}))
	check(t, err)
	sameSnapshots(t, v, mirror)
	sameContent(t, v, mirror)
}

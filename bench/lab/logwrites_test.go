package lab

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cawrm/aodi"
	"cawrm/aodi/disk"
	"cawrm/bench/lab/load"
	recovery "cawrm/recover"
)

const (
	logDisk      = 1 << 30
	logMiB       = 320 // of the file system
	regionBlocks = 2048
)

// TestLogWrites ensures that a container on a block device can be opened after
// a crash at any moment: at each entry of the log that dm-log-writes has kept
// of it, and with any part of the writes that no flush had covered, the
// container opens, `cawrm check` agrees, and what was marked durable is there;
// and at some the file system on its volume mounts and is sound.
func TestLogWrites(t *testing.T) {
	need(t, "no writes were logged and replayed", filesystems.programs...)
	r := &recording{t: t, fs: words("CAWRM_LOG_FS", "ext4")[0], seed: seed(t), phases: number(t, "CAWRM_LOG_PHASES", 2),
		steps: number(t, "CAWRM_LOG_STEPS", 150), files: number(t, "CAWRM_LOG_FILES", 15)}
	dir := cmp.Or(os.Getenv("CAWRM_LOG_DIR"), t.TempDir())
	data, log := filepath.Join(dir, "data"), filepath.Join(dir, "log")
	if _, err := os.Stat(log); err != nil {
		r.record(data, log)
	}
	l, err := openLog(log)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &replay{recording: r, log: l, rng: newRand(r.seed, 0x109), checks: make(chan func(), 1),
		points: number(t, "CAWRM_LOG_POINTS", 200), mounts: number(t, "CAWRM_LOG_MOUNTS", 3)}
	p.run(data)
	p.mount()
}

// recording is a run in the machine whose writes were logged.
type recording struct {
	t            *testing.T
	fs           string
	seed         uint64
	phases       int
	steps, files int
}

func (r *recording) record(data, log string) {
	for path, size := range map[string]int64{data: logDisk, log: 8 << 30} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
			r.t.Fatal(err)
		}
	}
	m := newMachine(r.t, "log-record.sh", 1200*time.Second).withGuest().with("--disk", data, "--disk", log)
	args := []string{strconv.FormatUint(r.seed, 10), r.fs}
	for _, n := range []int{logMiB, regionBlocks, r.phases, r.steps, r.files} {
		args = append(args, strconv.Itoa(n))
	}
	m.start(args...)
	m.finish()
}

// region is the byte of the volume at which the blocks of a phase begin.
func region(phase int) int64 { return logMiB<<20 + int64(phase)*regionBlocks*load.BlockSize }

// replay goes through a log, entry by entry.
type replay struct {
	*recording
	log    *logFile
	rng    *rand.Rand
	points int // entries to crash at; all of them if there are no more
	mounts int // points whose file system is mounted

	whole *disk.Memory // all entries so far
	loose *disk.Memory // the same, and what was not flushed can be lost
	told  told

	writes, flushes, marks int

	checks  chan func()
	wg      sync.WaitGroup
	mounted []mountPoint
}

// told is what the marks so far say is durable.
type told struct {
	made      bool              // the file system
	blocks    map[int64]uint64  // by region: all changes up to this one
	files     map[string]uint64 // newest version
	fileCount int
}

func (d *told) blockCount() (n uint64) {
	for _, seq := range d.blocks {
		n += seq
	}
	return n
}

func (d *told) mark(text string) error {
	words := strings.Split(text, ":")
	switch {
	case text == "made":
		d.made = true
	case words[0] == "blocks" && len(words) == 3:
		at, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return err
		}
		d.blocks[at], err = strconv.ParseUint(words[2], 10, 64)
		return err
	case words[0] == "file" && len(words) == 3:
		v, err := strconv.ParseUint(words[2], 10, 64)
		d.files[words[1]] = max(d.files[words[1]], v)
		d.fileCount++
		return err
	case text != "created" && text != "dm-log-writes-end":
		return fmt.Errorf("who marked %q?", text)
	}
	return nil
}

type mountPoint struct {
	entry int
	disk  *disk.Memory
	files map[string]uint64
}

// run replays the log, checks the chosen points, and compares the end with the
// device that was written.
func (r *replay) run(data string) {
	t := r.t
	for range runtime.NumCPU() {
		r.wg.Go(func() {
			for check := range r.checks {
				check()
			}
		})
	}
	disks := newDisks(t, 2, logDisk)
	r.whole, r.loose = disks[0], disks[1]
	r.told = told{blocks: map[int64]uint64{}, files: map[string]uint64{}}
	// The first flushes make the container; before the mark nothing need be one.
	first := 1 + slices.IndexFunc(r.log.Entries, func(e logEntry) bool { return e.Mark == "created" })
	count := len(r.log.Entries) - first
	at := r.choose(first, count, r.points)
	mount := r.choose(first+count/8, count-count/8, r.mounts)
	for i, e := range r.log.Entries {
		if at[i] {
			r.crash(i, r.loose.Crash(r.rng), "before it, unflushed writes lost or torn")
		}
		if mount[i] && r.told.made {
			r.mounted = append(r.mounted, mountPoint{i, r.loose.Crash(r.rng), maps.Clone(r.told.files)})
		}
		if at[i] && e.Len > logSector {
			r.crash(i, r.torn(i, e), "in the middle of it")
		}
		r.apply(i, e)
		if at[i] {
			r.crash(i, r.whole.Crash(r.rng), "after it")
		}
		if strings.HasPrefix(e.Mark, "blocks:") {
			r.marks++
			r.crash(i, r.loose.Crash(r.rng), "right after its mark")
		}
	}
	close(r.checks)
	r.wg.Wait()
	r.compare(data)
	t.Logf("%d entries, a crash before, in and after %d of them and after %d marks; %d flushes, %d writes; %d files and %d flushed changes of blocks were told",
		len(r.log.Entries), len(at), r.marks, r.flushes, r.writes, r.told.fileCount, r.told.blockCount())
}

// choose draws n of the count entries from first on, spread over all, or takes all of them.
func (r *replay) choose(first, count, n int) map[int]bool {
	n = min(n, count)
	chosen := map[int]bool{}
	for k := range n {
		from, to := k*count/n, (k+1)*count/n
		chosen[first+from+r.rng.IntN(to-from)] = true
	}
	return chosen
}

// apply does an entry's write, and learns from a mark.
func (r *replay) apply(i int, e logEntry) {
	r.t.Helper()
	if e.Mark != "" {
		if err := r.told.mark(e.Mark); err != nil {
			r.t.Fatalf("entry %d: %v", i, err)
		}
		return
	}
	b, err := r.log.Data(e)
	if err != nil {
		r.t.Fatalf("entry %d: %v", i, err)
	}
	for _, d := range []*disk.Memory{r.whole, r.loose} {
		if err := d.WriteCached(b, e.Off); err != nil {
			r.t.Fatalf("entry %d: %v", i, err)
		}
	}
	if e.Len > 0 {
		r.writes++
	}
	_ = r.whole.Sync()
	if e.Flags&(logFlush|logFUA) != 0 {
		r.flushes++
		_ = r.loose.Sync()
	}
}

// torn is the device with all entries so far and a first part of the next, or all but a first part. Chance alone
// would hardly ever tear a batch and leave its header whole.
func (r *replay) torn(i int, e logEntry) *disk.Memory {
	r.t.Helper()
	d := r.whole.Crash(r.rng)
	b, err := r.log.Data(e)
	cut := logSector * (1 + r.rng.Int64N(e.Len/logSector-1))
	if off := e.Off; err == nil && r.rng.IntN(3) > 0 {
		err = d.WriteCached(b[:cut], off)
	} else if err == nil {
		err = d.WriteCached(b[cut:], off+cut)
	}
	if err != nil {
		r.t.Fatalf("entry %d: %v", i, err)
	}
	return d
}

// crash has one of the goroutines check a disk as it was left at entry i.
func (r *replay) crash(i int, d *disk.Memory, how string) {
	blocks := maps.Clone(r.told.blocks)
	r.checks <- func() {
		defer d.Free()
		if err := r.check(d, blocks, i%4 == 0); err != nil {
			r.t.Errorf("CAWRM_SEED=%d: entry %d, %s: %v", r.seed, i, how, err)
		}
	}
}

// check opens the container, and checks it before, and with again also after.
func (r *replay) check(d *disk.Memory, blocks map[int64]uint64, again bool) error {
	if err := agree(d); err != nil {
		return err
	}
	v, err := aodi.OpenOn(d, aodi.Options{})
	if err != nil {
		return fmt.Errorf("the container does not open: %w", err)
	}
	err = r.compareBlocks(v, blocks)
	if closed := v.Close(); err == nil {
		err = closed
	}
	if err == nil && again {
		err = agree(d)
	}
	return err
}

func agree(d *disk.Memory) error {
	report, err := recovery.Check(d, recovery.CheckOptions{})
	if err == nil && report.OK() {
		return nil
	}
	var text bytes.Buffer
	if report != nil {
		_ = report.Print(&text)
	}
	return fmt.Errorf("cawrm check: %v\n%s", err, text.Bytes())
}

// compareBlocks holds each region to what was marked. The regions are written
// one after the other.
func (r *replay) compareBlocks(v *aodi.Volume, durable map[int64]uint64) error {
	for phase := range r.phases {
		at := region(phase)
		_, err := load.CheckBlocks(func(p []byte, off int64) error { return v.ReadAt(p, at+off) },
			r.seed+uint64(phase), regionBlocks, durable[at])
		if err != nil {
			return fmt.Errorf("the blocks at %d: %w", at, err)
		}
	}
	return nil
}

// compare ensures that the replay of all is what is on the device.
func (r *replay) compare(data string) {
	r.t.Helper()
	f, err := os.Open(data)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < logDisk; off += int64(len(a)) {
		if _, err := io.ReadFull(f, a); err != nil {
			r.t.Fatal(err)
		}
		if err := r.whole.ReadAt(b, off); err != nil {
			r.t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			r.t.Fatalf("the replay differs from the device within the MiB at %d: the log is not all that was written", off)
		}
	}
}

// mount boots the machine on the chosen points.
func (r *replay) mount() {
	t := r.t
	var mems []*disk.Memory
	var names []string
	list := filepath.Join(t.TempDir(), "told")
	var text strings.Builder
	for _, p := range r.mounted {
		name := fmt.Sprintf("%s-%d", r.fs, p.entry)
		mems, names = append(mems, p.disk), append(names, name)
		for file, version := range p.files {
			_, file, _ = strings.Cut(file, "/")
			fmt.Fprintf(&text, "file %s/%s %d\n", name, file, version)
		}
	}
	if err := os.WriteFile(list, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, uris := serveDisks(t, mems)
	m := newMachine(t, "log-points.sh", time.Duration(120+30*len(names))*time.Second).withGuest().with("--add", list+":lab/told")
	for _, uri := range uris {
		m.with("--disk", uri)
	}
	m.start(names...)
	m.finish()
}

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// reach is a figure that this project wants to reach, as a ratio of two points or one point of an experiment.
type reach struct {
	what       string
	limit      float64
	most       bool // the ratio is to be at most the limit, else at least
	experiment string
	of, over   [2]string // series and x; over[0] empty: of is the ratio
}

// nbdCase is a ratio of two servers in a case of bench/nbd.
func nbdCase(what string, limit float64, name, over string) reach {
	return reach{what: what, limit: limit, experiment: "nbd/" + name, of: [2]string{"cawrm", name}, over: [2]string{over, name}}
}

func goal(what string, limit float64, most bool, name, series, x string) reach {
	return reach{what: what, limit: limit, most: most, experiment: "goal/" + name, of: [2]string{series, x}}
}

// reaches is the table of figures to reach.
var reaches = []reach{
	goal("writer's rate with a mirror on a link 10 times too slow, over without a mirror", 0.95, false, "slow-link", "tight", "ratio"),
	goal("writer's p99 during an outage, over before", 1.1, true, "outage-latency", "tight", "ratio, outage"),
	goal("writer's p99 in the minute after an outage, over before", 1.1, true, "outage-latency", "tight", "ratio, after"),
	goal("bytes of resume over unique dirty bytes, uncompressed (wan)", 1.02, true, "resume-bytes", "tight", "ratio, wan"),
	goal("bytes of resume over unique dirty bytes, uncompressed (bad without loss)", 1.02, true, "resume-bytes", "tight", "ratio, bad"),
	goal("use of the link during catch-up (wan)", 0.95, false, "link-use", "tight", "ratio, wan"),
	goal("use of the link during catch-up (bad without loss)", 0.95, false, "link-use", "tight", "ratio, bad"),
	goal("initial sync of a volume with 10 % stored, over traditional", 9, false, "initial-sync", "both", "ratio"),
	nbdCase("random 4 KiB write, flush every 64, over nbdkit file", 6, "randwrite-4k-qd32-f64", "nbdkit-file"),
	nbdCase("random 4 KiB write, flush every 64, over qemu-nbd cache=none", 3, "randwrite-4k-qd32-f64", "qemu-none"),
	nbdCase("random 4 KiB write without flush, over nbdkit's memory plugin", 1, "randwrite-4k-qd32", "nbdkit-memory"),
	nbdCase("random 4 KiB read from memory, over nbdkit file", 1, "randread-4k-qd32", "nbdkit-file"),
	nbdCase("256 KiB sequential read, over nbdkit file", 1, "seqread-256k", "nbdkit-file"),
	nbdCase("256 KiB sequential write, over nbdkit file", 1, "seqwrite-256k", "nbdkit-file"),
	{what: "server CPU time per 4 KiB request, over nbdkit file", limit: 1, most: true, experiment: "cpu/request",
		of: [2]string{"cawrm", "random write"}, over: [2]string{"nbdkit-file", "random write"}},
	goal("random write throughput, tight over traditional (local)", 5, false, "random-write-local", "both", "ratio"),
	goal("random write with mirror on loopback, tight over loose", 1, false, "random-write-mirrored", "both", "ratio"),
	goal("recovery after SIGKILL, much written over little, in time", 1.2, true, "recovery", "tight", "ratio"),
}

// sections are the parts of the document, by the beginning of the experiments' names.
var sections = []struct{ prefix, title, text string }{
	{"machine/", "The machine's own limits", "What the disk, a socket and memory do without any server: the goal is the limit, not the peer."},
	{"goal/", "What the ratios are of", ""},
	{"paper/", "The paper's experiments", "The three architectures of the paper over one line, in turns on one disk."},
	{"seeds/", "The headline results of related systems", "On the same kind of work, beside what their papers claim; their machines were others."},
	{"peers/vm-", "Beside DRBD and md, in a virtual machine", peersText},
	{"peers/", "Beside other systems", ""},
	{"cpu/", "CPU time", ""},
	{"gc/", "Cleaning", "What cleaning costs (`make bench-gc`): data written for each chunk that a client writes, and the longest write, as fast as the volume takes them."},
	{"nbd/", "NBD servers", "One server at a time, with fio's nbd engine over unix sockets."},
	{"nbd-mirror/", "The price of a mirror on the same machine", "Both sites and the client share the processors."},
}

const peersText = `DRBD (protocols A, B, C), md's raid1 over nbd with write-behind, and cawrm, each in a machine of its own for each turn: one kernel,
disks of memory, a veth pair with netem, the same writer on a block device (cawrm's through the kernel's nbd driver).

- These are two rounds of short turns (` + "`--quick`" + `), beside other work: orders of magnitude, waits, bytes and states are in them, and no more.
- The processors are emulated (qemu TCG; no KVM), on a host that did other work. A program is slowed down by that far more than the kernel: cawrm without a
  mirror has a twentieth of the rate of the kernel's own disk here, or less. Read what a mirror takes away (with over without), the latency of the writer of 200 a
  second, the waits, the bytes and the states; not the rates of one system against another's.
- The plain TCP connection is what the machine got out of the line at that time, which is the limit for all of them.
- DRBD is told the line's rate for its synchronisation (its own controller starts at a few hundred KiB a second); md's bitmap has chunks of 1 MiB, and its far
  disk is the first member, without which Linux 6.1 does no write-behind; cawrm's mirror has compress=off, as theirs have no compression.
- Taken out of service and in again is an operator's command for each (DRBD disconnect and connect, md --fail, --remove and --re-add, cawrm mirror pause
  and resume). DRBD and md themselves call the far disk inconsistent while they resynchronise it, and nobody would use it without a snapshot from before. Looked at
  were four moments of each system. In the outage the line is silent, and nobody is told: it is shorter than the time-outs of all.
- A single client that waits for each write cannot ask for 200 a second where one takes longer than 5 ms; its latencies are corrected for what it did not ask.`

const head = `# Benchmarks

This file is generated from [bench/results](bench/results) by ` + "`make benchmarks`" + `; change it there.

## Before the numbers are used

- They were measured on a shared virtual machine of two cores. The figures to reach but the one on recovery, cleaning, and the five cases of fio
  that those need were measured while nothing else ran; the others beside other work, with load averages of up to 39, which are noted. Single turns
  differ by more than a factor of two there, and latencies by orders of magnitude. Medians of turns taken in alternation can be compared with each
  other; they are not what a quiet machine gives.
- Client, servers, both sites and the emulated line share those cores. What a mirror costs where they are not the limit
  is less.
- The disk is a virtual one without seeks: a random write costs little more than a sequential one, which is the opposite of the
  paper's disks, and of what a log is best at.
- A server with a write-back cache answers into the page cache; cawrm answers into its own memory, for at most 50 ms. Rates are counted
  until a flush has made the writes durable, where a line does not say otherwise.
- A relay carries streams: it has no loss and no congestion control of its own. The congestion control in use is named with each line.
- Figures with a small number of rounds, or of short turns (` + "`--quick`" + `), are there to be repeated, not to be quoted.
- What was left out: a first, short run of the figures to reach, whose volumes were too small (slow link 0.51, initial sync 5.2,
  recovery 3.87, and an outage of 0.62 that would have been reached); a rerun of fio beside other load, at a tenth of the usual
  rates (flush every 64 at 1.34 of nbdkit and 3.48 of qemu, sequential read 2.01 and write 0.45, random read 0.90); and a run of 7 rounds at
  real-time priority: flush every 64 at 3.49 and 1.95, no flush 0.91, random read 1.36, sequential read 1.40 and write 1.18.
  In the comparison with peers, moments of the mirror were judged by a check that was wrong, and are not shown.

## How to repeat

` + "```" + `
make build
bin/cawrm bench paper --quick                 # less than 50 s, needs nothing
bin/cawrm bench paper --out results           # half an hour
bin/cawrm bench goals --out results           # the ratios below
bin/cawrm bench peers --out results           # needs qemu-storage-daemon, nbdkit, nbdcopy; DRBD and md in a virtual machine
make bench-nbd ARGS='--out results/nbd.jsonl' # needs fio, nbdkit and qemu-nbd
bin/cawrm bench diff bench/results results    # yours beside these
` + "```" + `

`

const tail = `## Those that are not reached, and what the limit is

- **The writer's rate over a slow link** is limited by the processors, not by the link: without a mirror the writer takes all of both, at 0.9 GB/s, and
  with one, reading what is shipped, sending, relaying, receiving and writing it again at 67 MB/s is done by the same two. A writer that fell to the
  link's rate would be at 0.1. At real-time priority, where nothing else of the machine comes in between, five rounds gave 0.91.
- **The writer's 99th percentile in an outage** is 20 to 140 microseconds here, as it is before: one wait for a processor more or less. Single rounds
  range from 0.79 to 4.15. At real-time priority five rounds gave 0.58 in the outage and 0.98 after.
- **Random write, flush every 64.** Where time goes, of 1.1 ms for 64 writes: 0.42 ms are the flush (0.25 ms to write 240 KiB past the page cache,
  0.18 ms fdatasync), in which fio waits; the rest is fio, its socket, and the server's reading from it. Alone on the machine the disk takes 0.12 and 0.06 ms
  for the same: the remainder is waiting for a processor, since at each flush fio sends 32 of them, one for each request that it keeps under way. Of the
  server's samples (perf), 23 % are the switching between threads, 7.1 % the copy out of the socket, 5.5 % wake-ups, 3.5 % the doorbell of the virtual
  disk, 1.8 % pinning pages for it, 1.6 % the copy into the batch, 1.5 % the map, 1.1 % the checksum. Without a client, called directly, the volume takes 119,000
  to 142,000 such writes a second (make bench-snapshots); over NBD nbdkit's memory plugin, which does nothing for a flush, takes 99,000. So 6 times
  nbdkit file (71,000) and 3 times qemu (91,000) are near all that this client gets from any server on this machine.
  Tried without gain: closing batches early, so that the disk has less to do at the flush; flushing in the goroutine that reads
  the socket; reading once more before answering; a shorter time slice; more of Go's processors (8 % more here, 10 % less without flushes).
- **Random write without flush, over nbdkit's memory plugin.** That copies each 4 KiB once and is done; here the same 4 KiB are summed, mapped, copied
  into a batch and written to a disk by the same two processors. What was not tried is a socket that does without Go's poller.
- **Random read from memory, over nbdkit file** is 0.93 here and 1.36 in seven rounds at real-time priority: a client and a server that never rest fill both
  processors, and Go's runtime has threads of its own beside.

`

// Document writes BENCHMARKS.md from the newest of each experiment.
func Document(w io.Writer, all []*Experiment) error {
	list := Newest(all)
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	if err := writeReaches(w, list); err != nil {
		return err
	}
	if _, err := io.WriteString(w, tail); err != nil {
		return err
	}
	for _, s := range sections {
		var part []*Experiment
		for _, e := range list {
			if sectionOf(e.Name) == s.prefix {
				part = append(part, e)
			}
		}
		if len(part) == 0 {
			continue
		}
		fmt.Fprintf(w, "## %s\n\n", s.title)
		if s.text != "" {
			fmt.Fprintf(w, "%s\n\n", s.text)
		}
		for _, e := range part {
			if err := e.Markdown(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// sectionOf is the prefix of the first section that an experiment is of.
func sectionOf(name string) string {
	for _, s := range sections {
		if strings.HasPrefix(name, s.prefix) {
			return s.prefix
		}
	}
	return ""
}

func writeReaches(w io.Writer, list []*Experiment) error {
	fmt.Fprint(w, "## Figures to reach\n\n| what | wanted | measured | |\n|---|---|---|---|\n")
	for _, r := range reaches {
		measured, verdict := "not measured yet", ""
		if v, ok := r.value(list); ok {
			measured, verdict = Number(v), "**not reached**"
			if r.reached(v) {
				verdict = "reached"
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", r.what, r.wanted(), measured, verdict)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// Verdicts says of each figure to reach that was measured whether it is reached.
func Verdicts(w io.Writer, list []*Experiment) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range reaches {
		if v, ok := r.value(list); ok {
			verdict := "not reached"
			if r.reached(v) {
				verdict = "reached"
			}
			fmt.Fprintf(t, "%s\t%s, wanted %s\t%s\n", verdict, Number(v), r.wanted(), r.what)
		}
	}
	return t.Flush()
}

func (r reach) reached(v float64) bool {
	if r.most {
		return v <= r.limit
	}
	return v >= r.limit
}

func (r reach) wanted() string {
	if r.most {
		return fmt.Sprintf("at most %g", r.limit)
	}
	return fmt.Sprintf("at least %g", r.limit)
}

// value is the median that is to be reached, or the ratio of two.
func (r reach) value(list []*Experiment) (float64, bool) {
	i := slices.IndexFunc(list, func(e *Experiment) bool { return e.Name == r.experiment })
	if i < 0 {
		return 0, false
	}
	of, ok := list[i].Get(r.of[0], r.of[1])
	if !ok || r.over[0] == "" {
		return of, ok
	}
	over, ok := list[i].Get(r.over[0], r.over[1])
	if !ok || over == 0 || of == 0 {
		return 0, false
	}
	return of / over, true
}

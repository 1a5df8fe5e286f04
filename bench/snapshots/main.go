// Command snapshots measures what snapshots cost a writer: two volumes on the same disk, one with many snapshots and one with
// none, written to in turns.
//
// Usage: go run ./bench/snapshots [--snapshots 1000] [--mib 1024] [--rounds 5] [--seconds 1] [--dir DIR]
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"cawrm/aodi"
)

const chunk = 4096

// flushEvery is how many writes come before each flush.
const flushEvery = 64

func main() {
	snapshots := pflag.Int("snapshots", 1000, "snapshots of the one volume")
	size := pflag.Int64("mib", 1024, "size of each volume, MiB, written whole beforehand")
	rounds := pflag.Int("rounds", 5, "turns of each")
	seconds := pflag.Float64("seconds", 1, "length of a turn")
	dir := pflag.String("dir", ".", "where the containers go")
	pflag.Parse()
	if err := run(*dir, *size<<20, *snapshots, *rounds, time.Duration(*seconds*float64(time.Second))); err != nil {
		fmt.Fprintln(os.Stderr, "snapshots:", err)
		os.Exit(1)
	}
}

func run(dir string, size int64, snapshots, rounds int, turn time.Duration) error {
	dir, err := os.MkdirTemp(dir, "snapshots")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	seed := rand.Uint64()
	fmt.Printf("random writes of 4 KiB, a flush every %d, over %d MiB; %d turns of %v each; seed %d\n", flushEvery, size>>20, rounds, turn, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	without, err := fill(filepath.Join(dir, "without"), size)
	if err != nil {
		return err
	}
	defer without.Close()
	with, err := fill(filepath.Join(dir, "with"), size)
	if err != nil {
		return err
	}
	defer with.Close()
	made := time.Now()
	for i := range snapshots {
		if _, err := writes(with, rng, 0); err != nil {
			return err
		}
		if _, err := with.CreateSnapshot(fmt.Sprintf("s%d", i)); err != nil {
			return err
		}
	}
	fmt.Printf("%d snapshots, %d writes before each: %.1f ms a snapshot\n", snapshots, flushEvery, time.Since(made).Seconds()*1000/float64(max(1, snapshots)))
	var ratios []float64
	for i := range rounds {
		a, err := writes(without, rng, turn)
		if err != nil {
			return err
		}
		b, err := writes(with, rng, turn)
		if err != nil {
			return err
		}
		fmt.Printf("turn %d: %8.0f writes/s without, %8.0f with: %.2f; processor time a write %.1f and %.1f us\n", i+1, a.rate, b.rate, b.rate/a.rate, a.cpu, b.cpu)
		ratios = append(ratios, b.rate/a.rate)
	}
	slices.Sort(ratios)
	fmt.Printf("with %d snapshots over without: median %.2f (%.2f to %.2f)\n", snapshots, ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
	return nil
}

func fill(path string, size int64) (*aodi.Volume, error) {
	if err := aodi.Create(path, aodi.CreateOptions{Size: size}); err != nil {
		return nil, err
	}
	v, err := aodi.Open(path, aodi.Options{})
	if err != nil {
		return nil, err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(p)) {
		p[0] = byte(off >> 20)
		if err := v.WriteAt(p, off, false); err != nil {
			return nil, err
		}
	}
	return v, v.Checkpoint()
}

// speed is what a turn gave.
type speed struct {
	rate float64 // writes a second
	cpu  float64 // microseconds of processor time a write, which tells more than the rate when others use the machine
}

// writes writes for so long, at least once until a flush.
func writes(v *aodi.Volume, rng *rand.Rand, turn time.Duration) (speed, error) {
	p := make([]byte, chunk)
	n, start, used := 0, time.Now(), processorTime()
	for n == 0 || time.Since(start) < turn {
		for range flushEvery {
			p[0] = byte(n)
			if err := v.WriteAt(p, rng.Int64N(v.Size()/chunk)*chunk, false); err != nil {
				return speed{}, err
			}
			n++
		}
		if err := v.Flush(); err != nil {
			return speed{}, err
		}
	}
	return speed{float64(n) / time.Since(start).Seconds(), float64((processorTime() - used).Microseconds()) / float64(n)}, nil
}

func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err) // the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

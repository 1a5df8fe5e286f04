package format_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cawrm/aodi/format"
)

var update = flag.Bool("update", false, "write the golden files of the present version")

// TestGolden ensures that what version 1 wrote is read, and that version 1 is still what is written. A change
// here is a new version of the format, with a directory of its own beside this one.
func TestGolden(t *testing.T) {
	for _, s := range structures() {
		t.Run(s.name, func(t *testing.T) {
			path := filepath.Join("testdata", "v1", s.name+".bin")
			got := s.encode()
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if i := firstDifference(got, want); i >= 0 {
				t.Errorf("byte %d differs from what version 1 wrote (%d bytes now, %d then)", i, len(got), len(want))
			}
			v, err := s.decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !same(v, s.want) {
				t.Errorf("decoded %+v\nwant    %+v", v, s.want)
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestThreeErrors ensures that what is not ours, what is of another version and what is damaged are told apart.
func TestThreeErrors(t *testing.T) {
	for _, s := range structures() {
		if !s.sealed {
			continue
		}
		version := 8 // of a structure with a long magic
		if s.name == "summary" || strings.HasPrefix(s.name, "batch") {
			version = 4
		}
		rows := []struct {
			name   string
			change func(b []byte) []byte
			want   error
		}{
			{"nothing", func(b []byte) []byte { clear(b); return b }, format.ErrMagic},
			{"another magic", func(b []byte) []byte { b[0] ^= 0x20; return b }, format.ErrMagic},
			{"too short", func(b []byte) []byte { return b[:format.ChunkSize-1] }, format.ErrMagic},
			{"empty", func(b []byte) []byte { return nil }, format.ErrMagic},
			{"another version", func(b []byte) []byte { b[version]++; return b }, format.ErrVersion},
			{"torn in the middle", func(b []byte) []byte { copy(b[512:], bytes.Repeat([]byte{7}, 512)); return b }, format.ErrChecksum},
			{"checksum itself", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, format.ErrChecksum},
		}
		for _, row := range rows {
			t.Run(s.name+"/"+row.name, func(t *testing.T) {
				_, err := s.decode(row.change(s.encode()))
				for _, e := range []error{format.ErrMagic, format.ErrVersion, format.ErrChecksum, format.ErrInvalid} {
					if errors.Is(err, e) != (e == row.want) {
						t.Errorf("error is %v, want %v", err, row.want)
					}
				}
			})
		}
	}
}

// TestFlippedBit ensures that one flipped bit anywhere in a sealed structure is refused.
func TestFlippedBit(t *testing.T) {
	for _, s := range structures() {
		if !s.sealed {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			b := s.encode()
			for bit := range len(b) * 8 {
				b[bit/8] ^= 1 << (bit % 8)
				if _, err := s.decode(b); err == nil {
					t.Fatalf("bit %d of byte %d is flipped, and it was accepted", bit%8, bit/8)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		})
	}
}

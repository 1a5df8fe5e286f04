package nbdsrv_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestChecklist finds lines of this list, of what a first-class server has to do, that no test names.
// A test names the lines that it covers in a comment after its opening brace.
//
//	 1 greeting: fixed newstyle, NO_ZEROES        21 READ answered by chunks, extended replies only
//	 2 unknown client flag: close                 22 chunks cover a read once, DF, holes
//	 3 EXPORT_NAME, any client flags              23 FLUSH covers answered writes, FUA everywhere
//	 4 INFO then GO agree                         24 MULTI_CONN
//	 5 information requests                       25 TRIM and WRITE_ZEROES, unaligned
//	 6 GO without BLOCK_SIZE                      26 FAST_ZERO and ENOTSUP
//	 7 unknown export                             27 CACHE, flags on the wrong command
//	 8 malformed INFO and GO                      28 BLOCK_STATUS
//	 9 ABORT                                      29 64-bit lengths, payload filter
//	10 LIST                                       30 out of range, also past 2^64
//	11 unknown options                            31 unknown command
//	12 STARTTLS                                   32 length 0
//	13 TLS versions, FORCEDTLS                    33 32 MiB payloads, larger refused cleanly
//	14 STRUCTURED_REPLY                           34 trim and zero up to 2^32-1
//	15 metadata contexts                          35 absurd write, bad magic
//	16 EXTENDED_HEADERS                           36 DISC answers what is outstanding
//	17 option lengths                             37 read-only
//	18 bounds and timeout of the handshake        38 shutdown
//	20 cookies, order, segments                   39 ROTATIONAL, no RESIZE
//	                                              40 one client never harms another
func TestChecklist(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	test := regexp.MustCompile(`(?m)^func Test\w+\(t \*testing\.T\) \{ // ([0-9, ]+)$`)
	line := regexp.MustCompile(`[0-9]+`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range test.FindAllStringSubmatch(string(text), -1) {
			for _, n := range line.FindAllString(m[1], -1) {
				named[n] = true
			}
		}
	}
	text, err := os.ReadFile("checklist_test.go")
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`(?:^//\t ?|\s{2})([0-9]{1,2}) \w`)
	found := 0
	for _, l := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(l, "//\t") {
			continue
		}
		for _, m := range entry.FindAllStringSubmatch(l, -1) {
			if found++; !named[m[1]] {
				t.Errorf("no test names line %s", m[1])
			}
		}
	}
	if found != 39 {
		t.Errorf("%d lines", found)
	}
}

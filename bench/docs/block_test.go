package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// block is one fence of a page.
//
//	sh HOST       commands
//	console HOST  a session: commands behind "$ ", and what they printed
//	console       a session that is not run
//	toml          a configuration
type block struct {
	language, host, page, section string
	line                          int
	text                          string
}

var fence = regexp.MustCompile("^```([a-z]*) ?([a-z]*)$")

func blocks(t *testing.T, page string) (all []block) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var b *block
	section := ""
	for i, line := range strings.Split(string(text), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case b != nil && line == "```":
			all, b = append(all, *b), nil
		case b != nil:
			b.text += line + "\n"
		case m != nil:
			b = &block{language: m[1], host: m[2], page: filepath.Base(page), section: section, line: i + 1}
		case strings.HasPrefix(line, "## "):
			section = line[3:]
		}
	}
	if b != nil {
		t.Errorf("%s:%d: the block has no end", page, b.line)
	}
	return all
}

// sections are those that have something to run.
func sections(all []block) map[string][]block {
	by := map[string][]block{}
	for _, b := range all {
		if commands(b) != "" {
			by[b.section] = append(by[b.section], b)
		}
	}
	return by
}

// commands is what of a block is run. A command of a session that printed an error has to fail, as it did.
func commands(b block) string {
	switch {
	case b.language == "sh":
		return b.text
	case b.language == "toml":
		return "cat >checked.toml <<'END'\n" + b.text + "END\ncawrm config check checked.toml\n"
	case b.language != "console" || b.host == "":
		return ""
	}
	var out strings.Builder
	for _, part := range strings.Split("\n"+b.text, "\n$ ")[1:] {
		command, printed, _ := strings.Cut(part, "\n")
		if strings.Contains("\n"+printed, "\ncawrm: ") {
			command = "{ " + command + "; } && { echo 'it did not fail'; exit 1; } || true"
		}
		out.WriteString(command + "\n")
	}
	return out.String()
}

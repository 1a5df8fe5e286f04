package manual

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// Write writes a page of section 1 for each command to a folder, and returns their names.
func Write(root *cobra.Command, dir, version string) (names []string, err error) {
	for _, c := range Commands(root) {
		name := page(c) + ".1"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(Page(c, version)), 0o644); err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// Page is a command's manual page.
func Page(c *cobra.Command, version string) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" %s \"cawrm manual\"\n", quoted(strings.ToUpper(page(c))), quoted("cawrm "+version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", text(page(c)), text(c.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.nf\n%s\n.fi\n", text(c.UseLine()))
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s", paragraphs(long(c)))
	if list := flags(c); len(list) > 0 {
		b.WriteString(".SH OPTIONS\n")
		for _, f := range list {
			name, usage := flag(f)
			fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", text(name), text(usage))
		}
	}
	if c.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", text(c.Example))
	}
	b.WriteString(".SH EXIT STATUS\n0: done; 1: failed; 2: wrong usage.\n")
	b.WriteString(seeAlso(c))
	return b.String()
}

// paragraphs keeps the lines of what is indented, and fills the rest.
func paragraphs(long string) string {
	var b strings.Builder
	for p := range strings.SplitSeq(long, "\n\n") {
		if b.Len() > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(p, " ") || strings.Contains(p, "\n ") {
			fmt.Fprintf(&b, ".nf\n%s\n.fi\n", text(p))
		} else {
			fmt.Fprintf(&b, "%s\n", text(p))
		}
	}
	return b.String()
}

func seeAlso(c *cobra.Command) string {
	var pages []string
	if c.HasParent() {
		pages = append(pages, page(c.Parent()))
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			pages = append(pages, page(sub))
		}
	}
	if pages == nil {
		return ""
	}
	for i := range pages {
		pages[i] = "\\fB" + text(pages[i]) + "\\fR(1)"
	}
	return ".SH SEE ALSO\n" + strings.Join(pages, ", ") + "\n"
}

// text keeps roff from taking a text for requests.
func text(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func quoted(s string) string { return `"` + strings.ReplaceAll(text(s), `"`, `\(dq`) + `"` }

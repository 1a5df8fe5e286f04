package manual

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Markdown is the reference of the commands.
func Markdown(root *cobra.Command) string {
	var b strings.Builder
	for _, c := range Commands(root) {
		fmt.Fprintf(&b, "## %s\n\n%s.\n\n```\n%s\n```\n\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."), c.UseLine())
		if c.Long != "" {
			fmt.Fprintf(&b, "```text\n%s\n```\n\n", c.Long)
		}
		if list := flags(c); len(list) > 0 {
			b.WriteString("| flag | |\n|---|---|\n")
			for _, f := range list {
				name, usage := flag(f)
				fmt.Fprintf(&b, "| `%s` | %s |\n", cell(name), cell(usage))
			}
			b.WriteString("\n")
		}
		if c.Example != "" {
			fmt.Fprintf(&b, "```sh\n%s\n```\n\n", unindent(c.Example))
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// cell keeps a text in its column.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

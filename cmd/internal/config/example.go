package config

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Example is a configuration that holds every key, each with what its flag's help says. Keys are commented out: the defaults
// are as good as any.
func Example(daemon, volume *pflag.FlagSet) string {
	var b strings.Builder
	b.WriteString("# cawrm.toml: what `cawrm serve --config` serves. Each key is a flag of `cawrm serve`.\n\n")
	writeKeys(&b, daemon)
	b.WriteString("# One table for each volume, with its name.\n#[volume.db]\n\n# container, made with `cawrm create`\n#path = \"/var/lib/cawrm/db.img\"\n\n")
	writeKeys(&b, volume)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func writeKeys(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !IsKey(f) || f.Hidden {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "# %s\n#%s = %s\n\n", usage, f.Name, exampleValue(f, kind))
	})
}

func exampleValue(f *pflag.Flag, kind string) string {
	_, many := f.Value.(pflag.SliceValue)
	switch t := f.Value.Type(); {
	case many:
		return fmt.Sprintf("[%q]", kind)
	case t == "bool" || t == "int" || t == "float64" || t == "uint":
		return f.DefValue
	case f.DefValue != "":
		return quote(f.DefValue)
	}
	return quote(kind)
}

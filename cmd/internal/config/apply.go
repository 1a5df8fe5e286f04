package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Apply gives the flags what the keys say. A flag that is already set is left as it is: whoever set it, the command line or
// the environment, comes before the file. A key that is no flag is an error, and so is a value that the flag refuses.
// keep holds names that are keys and no flags; Apply returns their values.
func Apply(path string, keys []Key, flags *pflag.FlagSet, keep ...string) (map[string]Key, error) {
	kept := map[string]Key{}
	for _, k := range keys {
		if slices.Contains(keep, k.Name) {
			if k.List {
				return nil, &Error{path, k.Line, fmt.Errorf("key %q takes one value, not a list", k.Name)}
			}
			kept[k.Name] = k
			continue
		}
		f := flags.Lookup(k.Name)
		if f == nil || !IsKey(f) {
			return nil, &Error{path, k.Line, unknown(k.Name, flags, keep)}
		}
		if err := set(f, k.Texts, k.List); err != nil {
			return nil, &Error{path, k.Line, fmt.Errorf("key %q: %w", k.Name, err)}
		}
	}
	return kept, nil
}

// set leaves a flag alone that is set already.
func set(f *pflag.Flag, texts []string, list bool) error {
	many, ok := f.Value.(pflag.SliceValue)
	switch {
	case !ok && list:
		return errors.New("it takes one value, not a list")
	case f.Changed:
		return nil
	case ok:
		if err := many.Replace(texts); err != nil {
			return err
		}
	default:
		if err := f.Value.Set(texts[0]); err != nil {
			return err
		}
	}
	f.Changed = true
	return nil
}

// Copy gives the flags what is set in others of the same names.
func Copy(to, from *pflag.FlagSet) error {
	var failed error
	from.Visit(func(f *pflag.Flag) {
		g := to.Lookup(f.Name)
		if g == nil || failed != nil {
			return
		}
		texts := []string{f.Value.String()}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			texts = many.GetSlice()
		}
		failed = set(g, texts, false)
	})
	return failed
}

// Env gives the flags that are not set what the environment says: CAWRM_TLS_CERT for --tls-cert. Several values are
// separated by blanks.
func Env(flags *pflag.FlagSet) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		text, ok := os.LookupEnv(EnvName(f.Name))
		if !ok || text == "" || f.Changed || !IsKey(f) || failed != nil {
			return
		}
		texts := []string{text}
		if _, many := f.Value.(pflag.SliceValue); many {
			texts = strings.Fields(text)
		}
		if err := set(f, texts, false); err != nil {
			failed = fmt.Errorf("%s: %w", EnvName(f.Name), err)
		}
	})
	return failed
}

// EnvName is the variable that stands for a flag.
func EnvName(flag string) string {
	return "CAWRM_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// notKeys are flags that say which file or which volume is meant, so they cannot stand in the file.
var notKeys = map[string]bool{"config": true, "name": true, "help": true, "json": true}

// IsKey tells whether a flag may stand in a file and in the environment.
func IsKey(f *pflag.Flag) bool { return !notKeys[f.Name] }

// unknown names what was perhaps meant.
func unknown(name string, flags *pflag.FlagSet, keep []string) error {
	known := append([]string{}, keep...)
	flags.VisitAll(func(f *pflag.Flag) {
		if IsKey(f) {
			known = append(known, f.Name)
		}
	})
	return fmt.Errorf("key %q is not known here; known are: %s", name, strings.Join(known, ", "))
}

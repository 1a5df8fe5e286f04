package value

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName keeps a name usable as an NBD export name, a path element of a URL and a column of a table.
const maxName = 255

// CheckName refuses what cannot name a volume: it is the NBD export name and the last part of cawrm://host:port/NAME.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the name of a volume cannot be empty")
	case len(name) > maxName:
		return fmt.Errorf("name %.20q...: at most %d bytes", name, maxName)
	case !utf8.ValidString(name), strings.ContainsFunc(name, unicode.IsControl), strings.ContainsAny(name, "/?#"):
		return fmt.Errorf("name %q: it may not hold / ? # or control characters", name)
	}
	return nil
}

// Choice is a flag that takes one of a few words.
type Choice struct {
	Value string // set beforehand: the default
	Words []string

	changed bool
}

// Changed tells that the flag was given.
func (c *Choice) Changed() bool { return c.changed }

// Set takes one of the words.
func (c *Choice) Set(text string) error {
	for _, w := range c.Words {
		if w == text {
			c.Value, c.changed = w, true
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(c.Words, ", "))
}

func (c *Choice) String() string { return c.Value }

// Type names the value in the help text.
func (c *Choice) Type() string { return strings.Join(c.Words, "|") }

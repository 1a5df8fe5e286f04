package value

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rule lets some NBD clients use a volume. Words that are not given do not matter.
type Rule struct {
	Net      netip.Prefix // the client's address; zero: any
	Unix     bool         // clients of unix sockets only
	Cert     string       // a name of its certificate
	ReadOnly bool
}

const ruleForm = "addr=CIDR,cert=NAME,unix,ro"

// ParseRule reads words with commas between them: addr=10.0.0.0/8 or an address, cert=NAME, unix, ro.
func ParseRule(text string) (Rule, error) {
	var r Rule
	for word := range strings.SplitSeq(text, ",") {
		key, v, _ := strings.Cut(word, "=")
		var err error
		switch {
		case key == "addr" && !r.Net.IsValid():
			r.Net, err = parseNet(v)
		case key == "cert" && v != "" && r.Cert == "":
			r.Cert = v
		case word == "unix" && !r.Unix:
			r.Unix = true
		case word == "ro" && !r.ReadOnly:
			r.ReadOnly = true
		default:
			err = fmt.Errorf("%q is out of place", word)
		}
		if err != nil {
			return r, fmt.Errorf("%q is not a rule: %w; give some of %s", text, err, ruleForm)
		}
	}
	if r.Unix && r.Net.IsValid() {
		return r, fmt.Errorf("%q is not a rule: a client of a unix socket has no address", text)
	}
	return r, nil
}

func parseNet(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q is neither an address nor a network as 10.0.0.0/8", text)
	}
	return p.Masked(), nil
}

// Holds tells whether the rule is for a client with that address, which a client of a unix socket has not, and those names.
func (r Rule) Holds(addr netip.Addr, names []string) bool {
	return (!r.Unix || !addr.IsValid()) && (!r.Net.IsValid() || r.Net.Contains(addr.Unmap().WithZone(""))) && (r.Cert == "" || slices.Contains(names, r.Cert))
}

func (r Rule) String() string {
	var words []string
	if r.Net.IsValid() {
		words = append(words, "addr="+r.Net.String())
	}
	if r.Cert != "" {
		words = append(words, "cert="+r.Cert)
	}
	if r.Unix {
		words = append(words, "unix")
	}
	if r.ReadOnly {
		words = append(words, "ro")
	}
	return strings.Join(words, ",")
}

// Rules are a repeatable flag. The first rule that holds for a client counts; with none of them it may do nothing.
type Rules []Rule

// Set adds one rule.
func (l *Rules) Set(text string) error {
	r, err := ParseRule(text)
	if err == nil {
		*l = append(*l, r)
	}
	return err
}

func (l Rules) String() string { return strings.Join(l.GetSlice(), " ") }

// Type names the value in the help text.
func (Rules) Type() string { return ruleForm }

// Append is Set; with Replace and GetSlice it makes the flag a list for configuration files.
func (l *Rules) Append(text string) error { return l.Set(text) }

// Replace forgets what was set.
func (l *Rules) Replace(texts []string) error { return replace(l, texts) }

// GetSlice is what was set, as texts.
func (l Rules) GetSlice() []string {
	texts := make([]string, len(l))
	for i, r := range l {
		texts[i] = r.String()
	}
	return texts
}

package value

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Mirror is one --mirror: where a mirror is and by which id status speaks of it.
type Mirror struct {
	ID  string
	URL string // cawrm://host:port/NAME[?settings], the port may be left out; or nbd://host:port/EXPORT
}

// Mirrors is the repeatable flag. Ids are unique in it: one that is not given is made of the URL.
type Mirrors []Mirror

const mirrorForm = "[ID=]cawrm://host:port/NAME"

// Set adds one mirror. An id that was not given is the host's name, or host:port when that is taken, so that
// the id of an earlier mirror does not change when another one is added after it.
func (l *Mirrors) Set(text string) error {
	id, link, u, err := splitMirror(text)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(*l, func(m Mirror) bool { return m.URL == link }) {
		return fmt.Errorf("%s is given twice", link)
	}
	if id != "" {
		if l.has(id) {
			return fmt.Errorf("%q: id %s is taken by another mirror; choose one with ID=", text, id)
		}
	} else if id = l.free(idsOf(u)...); id != "" && !validID(id) {
		return fmt.Errorf("%q: no id can be made of %s; choose one with ID=", text, u.Host)
	} else if id == "" {
		return fmt.Errorf("%q: its ids are all taken by other mirrors; choose one with ID=", text)
	}
	*l = append(*l, Mirror{ID: id, URL: link})
	return nil
}

// idsOf are ids that can be made of a URL.
func idsOf(u *url.URL) []string {
	if u.Scheme == "nbd+unix" {
		path := u.Query().Get("socket")
		return []string{filepath.Base(path), path, path + u.Path}
	}
	return []string{u.Hostname(), u.Host, u.Host + u.Path}
}

// splitMirror checks the form; what the name means is the mirror's business.
func splitMirror(text string) (id, link string, u *url.URL, err error) {
	link = text
	if before, after, ok := strings.Cut(text, "="); ok && !strings.Contains(before, "://") {
		if id, link = before, after; !validID(id) {
			return "", "", nil, fmt.Errorf("%q: an id has letters, digits and . _ : / - only", text)
		}
	}
	u, err = url.Parse(link)
	if err != nil || u.Scheme == "" {
		return "", "", nil, fmt.Errorf("%q is not a mirror; give %s", text, mirrorForm)
	}
	if u.Scheme == "nbd" || u.Scheme == "nbd+unix" {
		return id, link, u, nil // the rest is the mirror's business
	}
	if u.Scheme != "cawrm" {
		return "", "", nil, fmt.Errorf("%q: a mirror of kind %s:// is not known; give %s", text, u.Scheme, mirrorForm)
	}
	switch name := strings.TrimPrefix(u.Path, "/"); {
	case u.Hostname() == "":
		return "", "", nil, fmt.Errorf("%q lacks the host; give %s", text, mirrorForm)
	case strings.Contains(u.Hostname(), ":") && !strings.HasPrefix(u.Host, "["):
		return "", "", nil, fmt.Errorf("%q: an IPv6 address stands in brackets, as [::1]", text)
	case u.Port() != "" && !validPort(u.Port()), strings.HasSuffix(u.Host, ":"):
		return "", "", nil, fmt.Errorf("%q: port %q is not a number from 1 to 65535", text, u.Port())
	case name == "":
		return "", "", nil, fmt.Errorf("%q lacks the name of the volume at the mirror; give %s", text, mirrorForm)
	case u.User != nil || u.Fragment != "":
		return "", "", nil, fmt.Errorf("%q says more than %s", text, mirrorForm)
	}
	return id, link, u, nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

func validID(id string) bool {
	for _, r := range id {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("._:/-", r) {
			return false
		}
	}
	return id != "" && len(id) <= 255
}

func (l Mirrors) has(id string) bool {
	return slices.ContainsFunc(l, func(m Mirror) bool { return m.ID == id })
}

// free returns the first of ids that no mirror has, or "".
func (l Mirrors) free(ids ...string) string {
	for _, id := range ids {
		if !l.has(id) {
			return id
		}
	}
	return ""
}

func (l Mirrors) String() string {
	texts := make([]string, len(l))
	for i, m := range l {
		texts[i] = m.ID + "=" + m.URL
	}
	return strings.Join(texts, ",")
}

// Type names the value in the help text.
func (Mirrors) Type() string { return mirrorForm }

// Append is Set; with Replace and GetSlice it makes the flag a list for configuration files.
func (l *Mirrors) Append(text string) error { return l.Set(text) }

// Replace forgets what was set.
func (l *Mirrors) Replace(texts []string) error { return replace(l, texts) }

// GetSlice is what was set, as texts, each with its id.
func (l *Mirrors) GetSlice() []string {
	texts := make([]string, len(*l))
	for i, m := range *l {
		texts[i] = m.ID + "=" + m.URL
	}
	return texts
}

package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Add appends a volume to a file. Errors: it has one of that name; the file system's.
func Add(path string, v Volume) error {
	return edit(path, func(text []byte, f *File) ([]byte, error) { return add(text, f, v) })
}

func add(text []byte, f *File, v Volume) ([]byte, error) {
	for _, have := range f.Volumes {
		if have.Name == v.Name {
			return nil, &Error{f.Path, have.Line, fmt.Errorf("there is a volume %q already", v.Name)}
		}
	}
	if n := len(text); n > 0 && text[n-1] != '\n' {
		text = append(text, '\n')
	}
	return append(text, "\n"+v.text()...), nil
}

// Remove takes a volume's table out of a file. The comments above the next table stay. Errors: it has none of that name; the
// file system's.
func Remove(path, name string) error {
	return edit(path, func(text []byte, f *File) ([]byte, error) { return remove(text, f, name) })
}

func remove(text []byte, f *File, name string) ([]byte, error) {
	for i, v := range f.Volumes {
		if v.Name != name {
			continue
		}
		lines := bytes.SplitAfter(text, []byte("\n"))
		end := len(lines)
		if i+1 < len(f.Volumes) {
			end = f.Volumes[i+1].Line - 1
		}
		// What stands right above the next header speaks of that one.
		for end > v.Line && comment(lines[end-1]) && end < len(lines) {
			end--
		}
		start := v.Line - 1
		if start > 0 && len(bytes.TrimSpace(lines[start-1])) == 0 {
			start--
		}
		return bytes.Join(append(lines[:start:start], lines[end:]...), nil), nil
	}
	return nil, fmt.Errorf("%s: there is no volume %q", f.Path, name)
}

func comment(line []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) }

// edit changes a file whole or not at all, and never into one that cannot be read.
func edit(path string, change func([]byte, *File) ([]byte, error)) error {
	text, err := readText(path)
	if err != nil {
		return err
	}
	f, err := Parse(path, text)
	if err != nil {
		return err
	}
	if text, err = change(text, f); err != nil {
		return err
	}
	if _, err := Parse(path, text); err != nil {
		return fmt.Errorf("%s: the change would make it unreadable; make it by hand: %w", path, err)
	}
	return write(path, text)
}

// write replaces a file, keeping its mode and owner. A link is followed: it is the file behind it that is the configuration.
func write(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once it was renamed
	defer tmp.Close()
	if err := tmp.Chmod(st.Mode().Perm()); err != nil {
		return err
	}
	_ = keepOwner(tmp, st) // only root can, and only root needs to
	if _, err := tmp.Write(text); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// text is the table as it stands in a file.
func (v Volume) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[volume.%s]\n", bareOrQuoted(v.Name))
	for _, k := range v.Keys {
		quoted := make([]string, len(k.Texts))
		for i, t := range k.Texts {
			quoted[i] = quote(t)
		}
		value := strings.Join(quoted, ", ")
		if k.List {
			value = "[" + value + "]"
		}
		fmt.Fprintf(&b, "%s = %s\n", k.Name, value)
	}
	return b.String()
}

func bareOrQuoted(name string) string {
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == "" {
		return name
	}
	return quote(name)
}

// quote writes a basic string. What TOML lacks of Go's escapes is written by number.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u00` + strconv.FormatInt(0x100+int64(r), 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

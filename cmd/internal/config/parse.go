package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds what is read: a configuration of a thousand volumes takes a tenth of it.
const maxFile = 1 << 20

// File is what a configuration says, in the order of its lines.
type File struct {
	Path    string
	Keys    []Key // of the daemon
	Volumes []Volume
}

// Volume is one table [volume.NAME].
type Volume struct {
	Name string
	Line int
	Keys []Key
}

// Key is one key with the texts of its values.
type Key struct {
	Name  string
	Line  int
	Texts []string
	List  bool // written as a list
}

// Error is what is wrong, and where.
type Error struct {
	Path string
	Line int
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }

// Unwrap gives the reason without the place.
func (e *Error) Unwrap() error { return e.Err }

// Read reads a file. Errors: the file system's; Error.
func Read(path string) (*File, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s: a configuration has at most %d bytes", path, maxFile)
	}
	return text, nil
}

// Parse reads the text of a file; path is for messages. Errors: Error.
func Parse(path string, text []byte) (*File, error) {
	// The whole first, for rules between lines: a key given twice, a table that is opened again.
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		line := 1
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ = at.Position()
		}
		return nil, &Error{path, line, errors.New(strings.TrimPrefix(err.Error(), "toml: "))}
	}
	r := reader{file: &File{Path: path}, text: text}
	r.p.Reset(text)
	for r.p.NextExpression() {
		if err := r.expression(r.p.Expression()); err != nil {
			return nil, &Error{path, r.line, err}
		}
	}
	if err := r.p.Error(); err != nil {
		return nil, &Error{path, r.line, err}
	}
	return r.file, nil
}

// reader walks the lines. The parser gives a tree of each, which is gone with the next one.
type reader struct {
	p    unstable.Parser
	text []byte
	file *File
	line int // of what is being read
}

func (r *reader) expression(n *unstable.Node) error {
	names := r.names(n)
	switch n.Kind {
	case unstable.KeyValue:
		return r.keyValue(n, names)
	case unstable.Table:
		if len(names) != 2 || names[0] != "volume" {
			return fmt.Errorf("[%s] is not known; volumes are [volume.NAME]", strings.Join(names, "."))
		}
		r.file.Volumes = append(r.file.Volumes, Volume{Name: names[1], Line: r.line})
		return nil
	}
	return fmt.Errorf("[[%s]] is not known; volumes are [volume.NAME]", strings.Join(names, "."))
}

// names are the parts of a dotted key; the first one tells the line.
func (r *reader) names(n *unstable.Node) (names []string) {
	for it := n.Key(); it.Next(); {
		key := it.Node()
		if names == nil {
			r.line = 1 + strings.Count(string(r.text[:key.Raw.Offset]), "\n")
		}
		names = append(names, string(key.Data))
	}
	return names
}

func (r *reader) keyValue(n *unstable.Node, names []string) error {
	name := strings.Join(names, ".")
	if len(names) > 1 {
		return fmt.Errorf("key %q is not known; a volume is a table: [volume.NAME]", name)
	}
	k := Key{Name: name, Line: r.line}
	v := n.Value()
	if v.Kind == unstable.Array {
		k.List, k.Texts = true, []string{}
		for it := v.Children(); it.Next(); {
			text, err := scalar(it.Node())
			if err != nil {
				return fmt.Errorf("key %q: %w", name, err)
			}
			k.Texts = append(k.Texts, text)
		}
	} else {
		text, err := scalar(v)
		if err != nil {
			return fmt.Errorf("key %q: %w", name, err)
		}
		k.Texts = []string{text}
	}
	if i := len(r.file.Volumes); i > 0 {
		r.file.Volumes[i-1].Keys = append(r.file.Volumes[i-1].Keys, k)
	} else {
		r.file.Keys = append(r.file.Keys, k)
	}
	return nil
}

// scalar is the text that a flag would be given.
func scalar(n *unstable.Node) (string, error) {
	switch n.Kind {
	case unstable.String, unstable.Bool, unstable.Float:
		return string(n.Data), nil
	case unstable.Integer:
		return strings.ReplaceAll(string(n.Data), "_", ""), nil
	}
	return "", errors.New("its value must be a text, a number, true or false, or a list of such")
}

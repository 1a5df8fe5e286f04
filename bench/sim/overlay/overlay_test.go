package overlay

import (
	"strings"
	"testing"
)

// TestEditIsStrict ensures that an edit whose lines are not there, or there twice, is refused.
func TestEditIsStrict(t *testing.T) {
	c, err := Parse("promise: p\nin: a.go\n-\tb()\n+\tc()\n")
	if err != nil {
		t.Fatal(err)
	}
	e := &c.edits[0]
	if got, err := e.apply("a()\n\t\tb()\nd()"); err != nil || got != "a()\nc()\nd()" {
		t.Errorf("%q, %v", got, err)
	}
	for text, want := range map[string]string{"a()": "not there any more", "b()\nb()": "both match"} {
		if _, err := e.apply(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "promise: p", "promise: p\nin: a\nx"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

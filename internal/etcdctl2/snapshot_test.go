package etcdctl2

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	never  = `"ExpireTime":"0001-01-01T00:00:00Z"`
	oldKey = `{"Root":{"Path":"/",` + never + `,"Value":"","Children":{"k":{"Path":"/k",` + never + `,"Value":"v","Children":null}}}}`
)

func walked(text string) (string, error) {
	var b strings.Builder
	err := walkSnapshot(strings.NewReader(text), func(n snapNode) error {
		fmt.Fprintf(&b, "%s=%s", n.path, n.value)
		if n.dir {
			b.WriteString("/")
		}
		if !n.expires.IsZero() {
			b.WriteString("@" + n.expires.UTC().Format(time.DateOnly))
		}
		b.WriteString(" ")
		return nil
	})
	return strings.TrimSpace(b.String()), err
}

func TestWalkSnapshot(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"one key", oldKey, "/=/ /k=v"},
		{"empty", `{"Root":{"Path":"/","Children":{}}}`, "/=/"},
		{"other fields", `{"WatcherHub":{"EventHistory":{"Queue":{"Events":[null,{"a":[1]}]}}},"Root":{"Path":"/","ACL":"","CreatedIndex":1,"Children":{}},"Stats":{"x":1},"CurrentIndex":7}`, "/=/"},
		{"no Children is a key", `{"Root":{"Path":"/","Children":{"k":{"Path":"/k","Value":"v"}}}}`, "/=/ /k=v"},
		{"a directory's time counts below it", `{"Root":{"Path":"/","Children":{"d":{"Path":"/d","ExpireTime":"2030-01-01T00:00:00Z","Children":{
			"early":{"Path":"/d/early","ExpireTime":"2029-01-01T00:00:00Z","Value":"","Children":null},
			"late":{"Path":"/d/late","ExpireTime":"2031-01-01T00:00:00Z","Value":"","Children":null},
			"none":{"Path":"/d/none",` + never + `,"Value":"","Children":null}}}}}}`,
			"/=/ /d=/@2030-01-01 /d/early=@2029-01-01 /d/late=@2030-01-01 /d/none=@2030-01-01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := walked(c.text)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestWalkSnapshotRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":           "",
		"not JSON":          "\x08\x96\x01",
		"a list":            "[]",
		"no root":           `{"CurrentIndex":1}`,
		"root is a number":  `{"Root":1}`,
		"children a list":   `{"Root":{"Path":"/","Children":[]}}`,
		"children first":    `{"Root":{"Children":{},"Path":"/"}}`,
		"no path":           `{"Root":{"Value":"x"}}`,
		"value is a number": `{"Root":{"Path":"/","Value":1}}`,
		"bad time":          `{"Root":{"Path":"/","ExpireTime":"soon"}}`,
		"too deep":          `{"Root":` + strings.Repeat(`{"Path":"/","Children":{"d":`, deepest+2),
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := walked(text); err == nil {
				t.Errorf("got %q", got)
			}
		})
	}
	for cut := range len(oldKey) {
		if got, err := walked(oldKey[:cut]); err == nil {
			t.Errorf("cut at %d: got %q", cut, got)
		}
	}
}

// TestSnapshotPage reads the example of the page that describes the format.
func TestSnapshotPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "v2.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(page), "    {\"Root\"")
	example, _, end := strings.Cut(example, "\n\n")
	if !found || !end {
		t.Fatal("docs/v2.md has no example")
	}
	got, err := walked(`{"Root"` + example)
	if err != nil || got != "/=/ /greeting=hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzWalkSnapshot(f *testing.F) {
	f.Add(oldKey)
	f.Add(`{"Root":{"Path":"/","Children":{}},"Stats":{"x":[{}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		nodes := 0
		err := walkSnapshot(strings.NewReader(text), func(n snapNode) error {
			nodes++
			if n.path == "" {
				t.Error("a node without a path")
			}
			return nil
		})
		if err == nil && nodes == 0 {
			t.Error("a tree without nodes")
		}
	})
}

func TestKeyspaces(t *testing.T) {
	spaces := newKeyspaces([]string{"_coreos.com/", "/a/_x"})
	for key, want := range map[string]bool{
		"/":                      true,
		"/a":                     true,
		"/a/b":                   true,
		"/a_b":                   true,
		"/_h":                    false,
		"/a/_h/k":                false,
		"/a/_x":                  true,
		"/a/_x/k":                true,
		"/a/_x/_y":               false,
		"/a/_xy":                 false,
		"/_coreos.com":           true,
		"/_coreos.com/fleet/job": true,
		"/_coreos.com/_h":        false,
		"/_coreos.computer":      false,
	} {
		if got := spaces.hold(key); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

func TestTimeToLive(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		expires time.Time
		want    time.Duration
	}{
		{time.Time{}, 0},
		{now.Add(time.Nanosecond), time.Second},
		{now.Add(time.Second), time.Second},
		{now.Add(1500 * time.Millisecond), 2 * time.Second},
		{now, -time.Second},
		{now.Add(-time.Hour), -time.Second},
	} {
		if got := timeToLive(c.expires, now); got != c.want {
			t.Errorf("%v before its end: %v, want %v", c.expires.Sub(now), got, c.want)
		}
	}
}

package prove

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// listing is a key tree as one line a node: key, kind, created and modified
// index, expiry and value. Two trees are the same if their listings are.
type listing struct {
	lines []string
	keys  int
	dirs  int
}

func (l *listing) add(key string, dir bool, created, modified uint64, expires time.Time, value string) {
	kind := "key"
	if l.keys++; dir {
		kind = "dir"
		l.keys--
		l.dirs++
	}
	until := "-"
	if !expires.IsZero() {
		until = expires.UTC().Format(time.RFC3339Nano)
	}
	l.lines = append(l.lines, fmt.Sprintf("%q %s created %d modified %d expires %s %q", key, kind, created, modified, until, value))
}

// digest is the SHA-256 of the lines, in hex.
func (l *listing) digest() string {
	h := sha256.New()
	for _, line := range l.lines {
		fmt.Fprintln(h, line)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// difference tells the first nodes that are not the same, "" if all are.
func (l *listing) difference(want *listing) string {
	for i := range min(len(l.lines), len(want.lines)) {
		if l.lines[i] != want.lines[i] {
			return fmt.Sprintf("is %s, want %s", l.lines[i], want.lines[i])
		}
	}
	switch n := len(want.lines); {
	case len(l.lines) > n:
		return "not expected: " + l.lines[n]
	case len(l.lines) < n:
		return "missing: " + want.lines[len(l.lines)]
	}
	return ""
}

// addTree lists what a client is shown below n: hidden nodes are left out, and
// their keys returned.
func (l *listing) addTree(key string, n *node) (hidden []string) {
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		child, childKey := n.children[name], key+"/"+name
		if child.hidden() {
			hidden = append(hidden, childKey)
			continue
		}
		l.addNode(childKey, child)
		hidden = append(hidden, l.addTree(childKey, child)...)
	}
	return hidden
}

func (l *listing) addNode(key string, n *node) {
	l.add(asJSON(key), n.isDir(), n.created, n.modified, n.expires, asJSON(n.value))
}

// asJSON is what a text is after it went through JSON: bytes that are no UTF-8
// are replaced one by one.
func asJSON(text string) string { return string([]rune(text)) }

// addAPI lists what the API showed below n.
func (l *listing) addAPI(n apiNode) {
	slices.SortFunc(n.Nodes, func(a, b apiNode) int { return strings.Compare(a.Key, b.Key) })
	for _, child := range n.Nodes {
		l.addAPINode(child)
		l.addAPI(child)
	}
}

func (l *listing) addAPINode(n apiNode) {
	l.add(n.Key, n.Dir, n.CreatedIndex, n.ModifiedIndex, n.Expiration, n.Value)
}

package etcdctl2

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// deepest bounds how far directories nest in a snapshot that is believed.
const deepest = 10_000

// snapNode is a key or a directory of a snapshot.
type snapNode struct {
	path    string
	value   string
	dir     bool
	expires time.Time // its own or that of a directory above, whichever comes first; zero: never
}

// walkSnapshot reads a v2 store as store.Save (store/store.go, 0.4 and 2.x)
// writes it: {"Root": node, …} with nodes {"Path", "ExpireTime", "Value",
// "Children", …} in this order, Children null for a key and an object for a
// directory. It hands each node to visit, a directory before its children,
// and holds one path of nodes at a time.
func walkSnapshot(r io.Reader, visit func(snapNode) error) error {
	w := &snapWalker{dec: json.NewDecoder(r), visit: visit}
	found := false
	err := w.object(func(name string) error {
		if name != "Root" {
			return w.skip()
		}
		found = true
		return w.node(snapNode{}, 0)
	})
	if err == nil && !found {
		err = errors.New("no Root in it")
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("key tree in JSON, offset %d: %w", w.dec.InputOffset(), err)
	}
	return nil
}

type snapWalker struct {
	dec   *json.Decoder
	visit func(snapNode) error
}

// node reads a node below parent.
func (w *snapWalker) node(parent snapNode, depth int) error {
	if depth > deepest {
		return fmt.Errorf("directories nest deeper than %d", deepest)
	}
	n, visited := snapNode{expires: parent.expires}, false
	err := w.object(func(name string) error {
		switch name {
		case "Path":
			return w.dec.Decode(&n.path)
		case "Value":
			return w.dec.Decode(&n.value)
		case "ExpireTime":
			return w.expireTime(&n)
		case "Children":
			visited = true
			return w.children(n, depth)
		}
		return w.skip()
	})
	if err != nil || visited {
		return err
	}
	return w.see(n)
}

func (w *snapWalker) see(n snapNode) error {
	if n.path == "" {
		return errors.New("a node has no Path before its Children")
	}
	return w.visit(n)
}

func (w *snapWalker) expireTime(n *snapNode) error {
	var t time.Time
	if err := w.dec.Decode(&t); err != nil {
		return err
	}
	if !t.IsZero() && (n.expires.IsZero() || t.Before(n.expires)) {
		n.expires = t
	}
	return nil
}

// children reads the Children of n, and has n visited first.
func (w *snapWalker) children(n snapNode, depth int) error {
	open, err := w.dec.Token()
	if err != nil {
		return err
	}
	n.dir = open != nil
	if err := w.see(n); err != nil || !n.dir {
		return err
	}
	if open != json.Delim('{') {
		return fmt.Errorf("children of %s are %v, want an object", n.path, open)
	}
	return w.fields(func(string) error { return w.node(n, depth+1) })
}

// object reads an object and calls field for each name; field reads the
// value.
func (w *snapWalker) object(field func(name string) error) error {
	open, err := w.dec.Token()
	if err != nil {
		return err
	}
	if open != json.Delim('{') {
		return fmt.Errorf("%v, want an object", open)
	}
	return w.fields(field)
}

// fields is object behind the opening brace.
func (w *snapWalker) fields(field func(name string) error) error {
	for w.dec.More() {
		name, err := w.dec.Token()
		if err != nil {
			return err
		}
		if err := field(fmt.Sprint(name)); err != nil {
			return err
		}
	}
	_, err := w.dec.Token()
	return err
}

// skip reads over a value, however large.
func (w *snapWalker) skip() error {
	depth := 0
	for {
		token, err := w.dec.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

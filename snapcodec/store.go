package snapcodec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// Node is one key or directory of the v2 store. Path and Value are the walker's
// memory: valid until the callback returns.
type Node struct {
	Path          []byte
	Value         []byte // of a key
	CreatedIndex  uint64 // v2 index
	ModifiedIndex uint64
	ExpireTime    time.Time // zero: never
	Dir           bool
	Offset        int64 // of the node's object, bytes from the start of the JSON
}

// Hidden tells whether the node's own name starts with an underscore, so that
// a listing of its directory leaves it out.
func (n *Node) Hidden() bool {
	return bytes.HasPrefix(n.Path[bytes.LastIndexByte(n.Path, '/')+1:], []byte("_"))
}

// StoreInfo is what the v2 store keeps beside its tree.
type StoreInfo struct {
	CurrentIndex   uint64 // the last v2 index given
	CurrentVersion uint64 // of the store format: 2
	History        HistoryInfo
	Stats          map[string]uint64 // the member's own counters
}

// HistoryInfo describes the window of past events that watchers may ask for.
type HistoryInfo struct {
	StartIndex, LastIndex uint64 // v2 indexes
	Size, Capacity        uint64 // events
}

// WalkStore visits every node of a v2 store saved as JSON, parents first, in
// the file's order, which is that of the names in each directory. It keeps one
// node in memory, not the tree. fn may return fs.SkipAll to stop: the
// StoreInfo, most of which follows the tree, is then incomplete.
//
// The order of fields is the one that every etcd writes, since it is that of
// the struct: Children comes last in a node. Source: v2store/node.go and
// store.go, etcd 3.7; store/ in 2.0 (which has ACL too).
func WalkStore(r io.Reader, fn func(*Node) error) (StoreInfo, error) {
	info, err := newWalker(r, copyBuffer, fn).walk()
	return info, atOffset(err, "", 0)
}

// atOffset turns damage found in the JSON into a CorruptError of the file that
// holds it at base. Other errors stay as they are.
func atOffset(err error, name string, base int64) error {
	if j, ok := err.(*jsonError); ok {
		return &CorruptError{File: name, Offset: base + j.off, Cause: fmt.Errorf("v2 store: %w", j.cause)}
	}
	return err
}

type walker struct {
	*scanner
	fn      func(*Node) error
	stopped bool
	node    Node
	path    []byte // of the node at hand, as its place in the tree says
	scratch []byte // values that could not stay in the scanner's buffer
	name    []byte // the same for names, paths and times
	info    StoreInfo
}

// newWalker reads r through a buffer of the given size in bytes.
func newWalker(r io.Reader, buffer int, fn func(*Node) error) *walker {
	return &walker{scanner: newScanner(r, buffer), fn: fn}
}

// walk reads the whole store, and makes sure that nothing follows it.
func (w *walker) walk() (StoreInfo, error) {
	seenRoot := false
	err := w.members(func(name []byte) error {
		seenRoot = seenRoot || string(name) == "Root"
		return w.top(name)
	})
	if err == fs.SkipAll {
		w.stopped = true
		return w.info, nil
	}
	if err != nil {
		return w.info, err
	}
	if !seenRoot {
		return w.info, w.fail("no Root")
	}
	return w.info, w.atEnd()
}

func (s *scanner) atEnd() error {
	c, err := s.peek()
	var j *jsonError
	if errors.As(err, &j) && j.cause == errStoreEnd {
		return nil
	}
	if err != nil {
		return err
	}
	return s.fail("%q after the end of the store", c)
}

// top takes one field of the store.
func (w *walker) top(name []byte) (err error) {
	switch string(name) {
	case "Root":
		w.path = append(w.path[:0], '/')
		return w.walkNode()
	case "CurrentIndex":
		w.info.CurrentIndex, err = w.uint()
	case "CurrentVersion":
		w.info.CurrentVersion, err = w.uint()
	case "Stats":
		w.info.Stats = make(map[string]uint64)
		return w.members(w.stat)
	case "WatcherHub":
		return w.only("EventHistory", func() error { return w.members(w.history) })
	default:
		return w.skip()
	}
	return err
}

// only calls fn at one member of an object and skips the others.
func (s *scanner) only(want string, fn func() error) error {
	return s.members(func(name []byte) error {
		if string(name) == want {
			return fn()
		}
		return s.skip()
	})
}

// maxStats bounds the counters kept; etcd has sixteen.
const maxStats = 256

func (w *walker) stat(name []byte) error {
	if len(w.info.Stats) == maxStats {
		return w.fail("more than %d counters", maxStats)
	}
	key := string(name)
	n, err := w.uint()
	w.info.Stats[key] = n
	return err
}

func (w *walker) history(name []byte) (err error) {
	switch string(name) {
	case "StartIndex":
		w.info.History.StartIndex, err = w.uint()
	case "LastIndex":
		w.info.History.LastIndex, err = w.uint()
	case "Queue":
		return w.members(w.queue)
	default:
		return w.skip()
	}
	return err
}

func (w *walker) queue(name []byte) (err error) {
	switch string(name) {
	case "Size":
		w.info.History.Size, err = w.uint()
	case "Capacity":
		w.info.History.Capacity, err = w.uint()
	default:
		return w.skip()
	}
	return err
}

// nodeFields says which fields of a node were there.
type nodeFields struct {
	path, children bool
	value          int // bytes held in the scanner's buffer, or -1: in scratch
}

// walkNode takes one node and everything below it. w.path is its path.
func (w *walker) walkNode() error {
	if err := w.open('{'); err != nil {
		return err
	}
	w.node = Node{Offset: w.offset() - 1}
	w.scratch = w.scratch[:0]
	seen := nodeFields{value: -1}
	for first := true; ; first = false {
		more, err := w.more('}', first)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if err := w.nodeField(&seen); err != nil {
			return err
		}
	}
	if !seen.children {
		return w.fail("node %.80q has no Children", w.path)
	}
	return nil
}

// nodeField takes a name and its value.
func (w *walker) nodeField(seen *nodeFields) error {
	name, err := w.fieldName()
	if err != nil {
		return err
	}
	if seen.children {
		return w.fail("node %.80q: a field after Children", w.path)
	}
	if seen.value >= 0 && string(name) != "Children" {
		w.settle(seen)
	}
	switch string(name) {
	case "Path":
		seen.path = true
		return w.checkPath()
	case "CreatedIndex":
		w.node.CreatedIndex, err = w.uint()
	case "ModifiedIndex":
		w.node.ModifiedIndex, err = w.uint()
	case "ExpireTime":
		w.node.ExpireTime, err = w.time()
	case "Value":
		w.scratch, seen.value, err = w.token(w.scratch[:0])
	case "Children":
		if !seen.path {
			return w.fail("node %.80q has no Path before Children", w.path)
		}
		seen.children = true
		return w.children(seen)
	default:
		return w.skip()
	}
	return err
}

// settle moves a held value out of the scanner's buffer: it is only held when
// Children follows at once, as in everything that etcd writes.
func (w *walker) settle(seen *nodeFields) {
	w.scratch = append(w.scratch[:0], w.held(seen.value)...)
	w.release()
	seen.value = -1
}

// fieldName takes a name and the colon. It is valid until the next token.
func (w *walker) fieldName() ([]byte, error) {
	if err := w.expect('"'); err != nil {
		return nil, err
	}
	b := w.buf[w.pos:w.end]
	n := bytes.IndexByte(b, '"')
	if n > 0 && n+1 < len(b) && b[n-1] != '\\' && b[n+1] == ':' {
		w.pos += n + 2
		return b[:n], nil
	}
	return w.slowName()
}

// slowName takes a name that crosses the buffer's end or has white space after.
func (w *walker) slowName() (_ []byte, err error) {
	if w.name, err = w.rest(w.name[:0]); err != nil {
		return nil, err
	}
	return w.name, w.expect(':')
}

// text takes a string; it is valid until the next token.
func (w *walker) text() ([]byte, error) {
	var n int
	var err error
	w.name, n, err = w.token(w.name[:0])
	if err != nil || n < 0 {
		return w.name, err
	}
	b := w.held(n)
	w.release()
	return b, nil
}

// checkPath compares the node's own idea of its path with its place.
func (w *walker) checkPath() error {
	got, err := w.text()
	if err != nil {
		return err
	}
	if !bytes.Equal(got, w.path) {
		return w.fail("node %.80q says that its path is %.80q", w.path, got)
	}
	return nil
}

// permanent is how encoding/json writes the zero time.
const permanent = "0001-01-01T00:00:00Z"

func (w *walker) time() (time.Time, error) {
	text, err := w.text()
	if err != nil {
		return time.Time{}, err
	}
	if string(text) == permanent {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return time.Time{}, w.fail("expire time %.40q", text)
	}
	return t, nil
}

// children reports the node, whose other fields are all read, and walks on
// below it.
func (w *walker) children(seen *nodeFields) error {
	c, err := w.peek()
	if err != nil {
		return err
	}
	w.node.Dir = c == '{'
	if err := w.report(seen); err != nil {
		return err
	}
	if c != '{' {
		return w.literal("null")
	}
	return w.below()
}

func (w *walker) report(seen *nodeFields) error {
	w.node.Path = w.path
	w.node.Value = w.scratch
	if seen.value >= 0 {
		w.node.Value = w.held(seen.value)
	}
	err := w.fn(&w.node)
	w.release()
	if cap(w.scratch) > keepScratch {
		w.scratch = nil
	}
	return err
}

// keepScratch is how much memory one large value may leave behind, in bytes.
const keepScratch = 1 << 20

func (w *walker) below() error {
	if err := w.open('{'); err != nil {
		return err
	}
	length := len(w.path)
	for first := true; ; first = false {
		more, err := w.more('}', first)
		if err != nil || !more {
			return err
		}
		if err := w.child(length); err != nil {
			return err
		}
		w.path = w.path[:length]
	}
}

// child takes one entry of Children of the directory whose path has length
// bytes.
func (w *walker) child(length int) (err error) {
	if length > 1 {
		w.path = append(w.path, '/')
	}
	if w.path, err = w.string(w.path); err != nil {
		return err
	}
	if err := w.expect(':'); err != nil {
		return err
	}
	return w.walkNode()
}

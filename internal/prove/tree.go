package prove

import (
	"container/heap"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// tree is a v2 key tree that carries out requests as etcd's v2 store does
// (etcdserver/api/v2store/store.go and node.go, 3.4), without its events. It
// is written apart from that code, so that the two can be compared.
type tree struct {
	index    uint64 // of the last change
	root     *node
	expiring expiryQueue
}

// node is a key, or a directory if it has children, none included.
type node struct {
	name     string
	value    string
	created  uint64
	modified uint64
	expires  time.Time // zero: never
	parent   *node
	children map[string]*node // nil for a key
	queued   int              // place in the expiry queue
}

// Directories that requests can't change, the root among them.
const (
	clusterDir = "/0"
	keysDir    = "/1"
	authDir    = "/2"
)

func newTree() *tree {
	t := &tree{root: &node{children: map[string]*node{}}}
	t.put(clusterDir, &node{children: map[string]*node{}})
	t.put(keysDir, &node{children: map[string]*node{}})
	return t
}

// put hangs a node into its directory, which must be there.
func (t *tree) put(p string, n *node) bool {
	dir, name := path.Split(p)
	parent := t.get(dir)
	if parent == nil || !parent.isDir() {
		return false
	}
	n.name, n.parent = name, parent
	parent.children[name] = n
	t.expire(n, n.expires)
	return true
}

// load adds what a snapshot holds.
func (t *tree) load(snap *snapcodec.Snap) error {
	info, err := snap.Walk(func(n *snapcodec.Node) error {
		p := clean(string(n.Path))
		if p == "/" {
			return nil
		}
		held := &node{value: string(n.Value), created: n.CreatedIndex, modified: n.ModifiedIndex, expires: n.ExpireTime}
		if n.Dir {
			held.children = map[string]*node{}
		}
		if !t.put(p, held) {
			return fmt.Errorf("snapshot: %s has no directory", p)
		}
		return nil
	})
	t.index = info.CurrentIndex
	return err
}

func clean(p string) string { return path.Clean("/" + p) }

func readOnly(p string) bool { return p == "/" || p == clusterDir || p == keysDir }

func (n *node) isDir() bool { return n.children != nil }

func (n *node) hidden() bool { return strings.HasPrefix(n.name, "_") }

// get finds a node; nil if it is not there or below a key.
func (t *tree) get(p string) *node {
	n := t.root
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		if n = n.children[name]; n == nil {
			return nil
		}
	}
	return n
}

// change is what a request asks for.
type change struct {
	value     string
	dir       bool
	expires   time.Time
	refresh   bool // keep the value
	prevValue string
	prevIndex uint64
}

// oldest is the earliest time of expiry that a new node takes; before it, none
// is meant (minExpireTime in store.go).
var oldest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// create makes a node and the directories above it. Unless asked to replace,
// it must be new; a directory is never replaced.
func (t *tree) create(p string, c change, replace bool) bool {
	p = clean(p)
	if readOnly(p) {
		return false
	}
	parent := t.directories(path.Dir(p))
	if parent == nil {
		return false
	}
	held := parent.children[path.Base(p)]
	if held != nil && (!replace || held.isDir()) {
		return false
	}
	if held != nil {
		t.drop(held)
	}
	t.index++
	n := &node{value: c.value, created: t.index, modified: t.index, name: path.Base(p), parent: parent}
	if c.dir {
		n.value, n.children = "", map[string]*node{}
	}
	parent.children[n.name] = n
	if !c.expires.Before(oldest) {
		t.expire(n, c.expires)
	}
	return true
}

// directories makes those that are missing on the path, which get the index of
// the change to come; nil if a key is in the way.
func (t *tree) directories(p string) *node {
	n := t.root
	for name := range strings.SplitSeq(p, "/") {
		if name == "" {
			continue
		}
		child := n.children[name]
		if child == nil {
			child = &node{name: name, created: t.index + 1, modified: t.index + 1, parent: n, children: map[string]*node{}}
			n.children[name] = child
		}
		if n = child; !n.isDir() {
			return nil
		}
	}
	return n
}

// createInOrder makes a child named by the index of the change.
func (t *tree) createInOrder(p string, c change) bool {
	return t.create(fmt.Sprintf("%s/%020d", p, t.index+1), c, false)
}

func (t *tree) set(p string, c change) bool {
	if c.refresh {
		n := t.get(clean(p))
		if n == nil {
			return false
		}
		c.value = n.value
	}
	return t.create(p, c, true)
}

// update changes value and expiry; of a directory the expiry only.
func (t *tree) update(p string, c change) bool {
	p = clean(p)
	n := t.get(p)
	if readOnly(p) || n == nil || n.isDir() && c.value != "" {
		return false
	}
	t.index++
	t.write(n, c)
	return true
}

func (t *tree) write(n *node, c change) {
	if !n.isDir() {
		n.modified = t.index
		if !c.refresh {
			n.value = c.value
		}
	}
	t.expire(n, c.expires)
}

func (n *node) matches(c change) bool {
	return (c.prevIndex == 0 || c.prevIndex == n.modified) && (c.prevValue == "" || c.prevValue == n.value)
}

func (t *tree) compareAndSwap(p string, c change) bool {
	p = clean(p)
	n := t.get(p)
	if readOnly(p) || n == nil || n.isDir() || !n.matches(c) {
		return false
	}
	t.index++
	t.write(n, c)
	return true
}

func (t *tree) compareAndDelete(p string, c change) bool {
	n := t.get(clean(p))
	if n == nil || n.isDir() || !n.matches(c) {
		return false
	}
	t.index++
	t.drop(n)
	return true
}

// remove deletes a key, an empty directory if dir is set, or all that is there
// if recursive is.
func (t *tree) remove(p string, dir, recursive bool) bool {
	p = clean(p)
	n := t.get(p)
	if readOnly(p) || n == nil {
		return false
	}
	if n.isDir() && !recursive && (!dir || len(n.children) > 0) {
		return false
	}
	t.index++
	t.drop(n)
	return true
}

// drop takes a node out, and everything below it.
func (t *tree) drop(n *node) {
	for _, child := range n.children {
		t.drop(child)
	}
	t.expire(n, time.Time{})
	delete(n.parent.children, n.name)
}

// expireAll removes what expires at the time or before, one change for each.
func (t *tree) expireAll(now time.Time) {
	for len(t.expiring) > 0 && !t.expiring[0].expires.After(now) {
		t.index++
		t.drop(t.expiring[0])
	}
}

// expire sets when a node expires; the zero time is never.
func (t *tree) expire(n *node, at time.Time) {
	if n.queued > 0 {
		heap.Remove(&t.expiring, n.queued-1)
	}
	if n.expires = at; !at.IsZero() {
		heap.Push(&t.expiring, n)
	}
}

// expiryQueue has the node that expires first in front. A node's queued is one
// above its place, 0 for one that is not in it.
type expiryQueue []*node

func (q expiryQueue) Len() int           { return len(q) }
func (q expiryQueue) Less(i, j int) bool { return q[i].expires.Before(q[j].expires) }

func (q expiryQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].queued, q[j].queued = i+1, j+1
}

// Push is for package heap.
func (q *expiryQueue) Push(x any) {
	n, ok := x.(*node)
	if !ok {
		return
	}
	*q = append(*q, n)
	n.queued = len(*q)
}

// Pop is for package heap.
func (q *expiryQueue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	(*q)[last] = nil
	*q, n.queued = (*q)[:last], 0
	return n
}

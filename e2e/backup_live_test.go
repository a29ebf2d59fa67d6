//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// v2Write is a write that the etcd acknowledged.
type v2Write struct {
	index      uint64
	key, value string
}

// v2Load writes to an etcd at full speed and remembers every answer.
type v2Load struct {
	e    *etcd
	stop chan struct{}
	done sync.WaitGroup

	mu   sync.Mutex
	acks []v2Write
	err  error
}

// startLoad starts the writers; [v2Load.finish] ends them.
func startLoad(e *etcd, writers int) *v2Load {
	l := &v2Load{e: e, stop: make(chan struct{})}
	for w := range writers {
		l.done.Add(1)
		go func() {
			defer l.done.Done()
			l.write(w)
		}()
	}
	return l
}

// write sets keys of its own in turn until the load stops. The values are big
// enough that segments are cut while a backup reads them.
func (l *v2Load) write(writer int) {
	const keys = 20
	padding := strings.Repeat("x", 64<<10)
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		default:
		}
		w := v2Write{key: fmt.Sprintf("/load/%d-%d", writer, n%keys), value: fmt.Sprintf("%d %s", n, padding)}
		resp, err := l.e.v2(http.MethodPut, w.key, nil, url.Values{"value": {w.value}})
		if err == nil && resp.Status/100 != 2 {
			err = fmt.Errorf("set %s: %d %s", w.key, resp.Status, resp.Message)
		}
		if err != nil {
			l.fail(err)
			return
		}
		w.index = resp.Node.ModifiedIndex
		l.ack(w)
	}
}

func (l *v2Load) ack(w v2Write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks = append(l.acks, w)
}

func (l *v2Load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// last is the highest index acknowledged so far.
func (l *v2Load) last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last uint64
	for _, w := range l.acks {
		last = max(last, w.index)
	}
	return last
}

// await returns once the index is acknowledged.
func (l *v2Load) await(index uint64) {
	l.e.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for l.last() < index {
		if time.Now().After(deadline) {
			l.e.t.Fatalf("index %d not reached within a minute: %v", index, l.failure())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *v2Load) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// finish stops the writers and returns what was acknowledged, by index.
func (l *v2Load) finish() map[uint64]v2Write {
	l.e.t.Helper()
	close(l.stop)
	l.done.Wait()
	if err := l.failure(); err != nil {
		l.e.t.Fatal(err)
	}
	byIndex := map[uint64]v2Write{}
	for _, w := range l.acks {
		byIndex[w.index] = w
	}
	return byIndex
}

// treeAt is what /load must hold after the writes up to the index.
func treeAt(writes map[uint64]v2Write, index uint64) map[string]v2Write {
	tree := map[string]v2Write{}
	for _, w := range writes {
		if w.index <= index && w.index >= tree[w.key].index {
			tree[w.key] = w
		}
	}
	return tree
}

// Each backup of an etcd that writes at full speed must hold exactly its first
// n writes, and all that were acknowledged before the backup began.
func TestBackupOfWriterIsPrefix(t *testing.T) {
	for _, r := range []release{etcd23, etcd34} {
		t.Run(string(r), func(t *testing.T) { backUpWriter(t, r) })
	}
}

func backUpWriter(t *testing.T, r release) {
	e := start(t, r, newDataDir(t), "--snapshot-count", "1000")
	load := startLoad(e, 8)
	type backup struct {
		dir   string
		floor uint64 // acknowledged before the backup began
	}
	var backups []backup
	for range soak(t, 5) {
		load.await(load.last() + 300)
		b := backup{filepath.Join(t.TempDir(), "backup"), load.last()}
		e.settle()
		lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", b.dir)
		backups = append(backups, b)
	}
	writes := load.finish()
	e.Kill()
	segments, err := filepath.Glob(filepath.Join(e.dir, "member", "wal", "*.wal"))
	if err != nil || len(segments) < 2 {
		t.Errorf("segments %v (%v): none was cut while backups were taken", segments, err)
	}
	for _, b := range backups {
		checkPrefix(t, r, b.dir, writes, b.floor)
	}
}

func checkPrefix(t *testing.T, r release, dir string, writes map[uint64]v2Write, floor uint64) {
	t.Helper()
	e := start(t, r, dir, "--force-new-cluster")
	defer e.Kill()
	nodes := e.v2Dump("/load").Nodes
	var last uint64
	for _, n := range nodes {
		last = max(last, n.ModifiedIndex)
	}
	t.Logf("acknowledged before the backup: up to %d; in it: up to %d", floor, last)
	if last < floor {
		t.Errorf("write %d was acknowledged before the backup began, but it ends at %d", floor, last)
	}
	want := treeAt(writes, last)
	for _, n := range nodes {
		if got := (v2Write{n.ModifiedIndex, n.Key, n.Value}); got != want[n.Key] {
			t.Errorf("%s at index %d, want the write of index %d", n.Key, n.ModifiedIndex, want[n.Key].index)
		}
	}
	if len(nodes) != len(want) {
		t.Errorf("%d keys, want %d", len(nodes), len(want))
	}
}

// The backend of a running etcd can't be copied as a file. With v2 keys beside
// it they are backed up alone, and it says so; without, it is refused.
func TestBackupOfLiveBackend(t *testing.T) {
	t.Parallel()
	e := start(t, etcd34, newDataDir(t))
	writeHistory(e)
	dst := filepath.Join(t.TempDir(), "backup")
	o := finish(t, lifeboatCommand("backup", "--data-dir", e.dir, "--backup-dir", dst))
	if o.code != 1 || !strings.Contains(o.stderr, "etcd is running") || !strings.Contains(o.stderr, "snapshot save") {
		t.Errorf("v3 data alone: exit %d\n%s", o.code, o.stderr)
	}
	mustHoldOnly(t, filepath.Dir(dst))

	e.v2Set("/a/b", "c")
	s := source{dir: e.dir, v2: e.v2Dump("/").lines()}
	o = lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", dst)
	if !strings.Contains(o.stderr, "the v3 data is NOT in this backup") {
		t.Errorf("it does not say that the v3 data is left out:\n%s", o.stderr)
	}
	s.prove(t, etcd34, dst)
	if err := e.put("/still", "alive"); err != nil {
		t.Errorf("the source after its backup: %v", err)
	}
}

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
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

// The backup of a member that writes at full speed, while its database is
// compacted and defragmented, boots with everything that was acknowledged
// before, and with the very keys that the member had at that revision.
func TestBackupLiveUnderLoad(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t), "--snapshot-count", "300")
			writeHistory(e)
			load := startV3Load(e, 4)
			load.keepBusy(700*time.Millisecond, func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.Defragment(ctx, e.client)
				return err
			})
			time.Sleep(time.Second)
			var other *liveBackup
			if r.hasV2() {
				b := backUpLive(t, load, "--for", "3.7")
				other = &b
			}
			var last liveBackup
			for range soak(t, 3) {
				last = backUpLive(t, load)
				last.check(t)
			}
			load.finish()
			last.prove(t, r, e)
			e.Kill()
			if other != nil {
				other.check(t)
				other.prove(t, etcd37, nil)
			}
		})
	}
}

// One member's backup holds what it acknowledged, though it asked the others.
func TestBackupLiveOfOneOfThree(t *testing.T) {
	for _, r := range []release{etcd35, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			members := startCluster(t, r, 3, "--snapshot-count", "300")
			e := members[1]
			writeHistory(e)
			load := startV3Load(e, 4)
			time.Sleep(time.Second)
			var last liveBackup
			for range soak(t, 2) {
				last = backUpLive(t, load)
				last.check(t)
			}
			load.finish()
			last.prove(t, r, e)
		})
	}
}

// What was copied of a running member can seed one that was added to its cluster.
func TestBackupLiveSeedsAMember(t *testing.T) {
	for _, r := range []release{etcd34, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			members := startCluster(t, r, 3)
			writeHistory(members[0])
			joining := newMembers(t, r, 1, nil)[0]
			id := fmt.Sprintf("%x", addMember(members[0], joining.peer))
			joining.name, joining.dir = "m4", newDataDir(t)
			joining.cluster = members[0].cluster + ",m4=" + joining.peer
			joining.flags = []string{"--initial-cluster-state", "existing"}
			persist(t, "a read through m3, which knows m4 then", func() error {
				_, err := members[2].v3().Get(callContext(t), "/k/1")
				return err
			})
			load := startPuts(members[0])
			dir := newDataDir(t)
			lifeboat(t, "backup", "--data-dir", members[2].dir, "--backup-dir", dir, "--keep-cluster-id")
			lifeboat(t, "member", "seed", "--from", dir, "--node-id", id, "--data-dir", joining.dir)
			if err := joining.Restart(); err != nil {
				t.Fatal(err)
			}
			load.stop(t)
			sameState(t, members[0], joining)
			if err := joining.put("/seeded", "writes"); err != nil {
				t.Errorf("a write through the new member: %v", err)
			}
		})
	}
}

// liveBackup is a backup that was taken under load.
type liveBackup struct {
	dir    string
	acked  map[string]string // before it began
	report struct {
		Live    string
		Log     struct{ Commit uint64 }
		Backend struct {
			Action          string
			ConsistentIndex uint64 `json:"consistent_index"`
			Revision        int64
		}
	}
}

// backUpLive backs up an etcd while its old revisions are compacted.
func backUpLive(t *testing.T, load *v3Load, flags ...string) liveBackup {
	t.Helper()
	b := liveBackup{dir: filepath.Join(t.TempDir(), "backup"), acked: load.ackedNow()}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer func() { cancel(); group.Wait() }()
	client, first := load.e.v3(), load.e.revision()-400
	group.Go(func() {
		for n := int64(0); n < 39 && ctx.Err() == nil; n++ {
			client.Compact(ctx, first+10*n) // may be compacted already
			time.Sleep(20 * time.Millisecond)
		}
	})
	args := append([]string{"backup", "--data-dir", load.e.dir, "--backup-dir", b.dir, "-o", "json"}, flags...)
	o := lifeboat(t, args...)
	if err := json.Unmarshal([]byte(o.stdout), &b.report); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s%+v", o.stderr, b.report)
	return b
}

// revision is the newest one.
func (e *etcd) revision() int64 {
	e.t.Helper()
	resp, err := e.v3().Get(callContext(e.t), "/k/1")
	if err != nil {
		e.t.Fatal(err)
	}
	return resp.Header.Revision
}

// check compares the report with what was written.
func (b liveBackup) check(t *testing.T) {
	t.Helper()
	lifeboat(t, "db", "check", filepath.Join(b.dir, "member/snap/db"))
	dir, err := datadir.Inspect(t.Context(), b.dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r := b.report
	if r.Live != "running" || r.Backend.Action != "copied" || r.Backend.Revision == 0 {
		t.Errorf("report %+v", r)
	}
	if dir.Backend.ConsistentIndex != r.Backend.ConsistentIndex || dir.Log.Last != r.Log.Commit || dir.Log.Last < r.Backend.ConsistentIndex {
		t.Errorf("report %+v; the backend ends at %d, the log at %d", r, dir.Backend.ConsistentIndex, dir.Log.Last)
	}
}

// prove boots the backup. The member that it is of, if it still runs, must have
// had the same keys.
func (b liveBackup) prove(t *testing.T, r release, of *etcd) {
	t.Helper()
	e := start(t, r, b.dir, "--force-new-cluster")
	held := map[string]string{}
	dump := e.v3Dump()
	for _, p := range dump.Pairs {
		held[string(p.Key)] = string(p.Value)
	}
	mustHoldValues(t, held, b.acked)
	if newest := dump.Header.Revision; newest < b.report.Backend.Revision {
		t.Errorf("revision %d, though the backend was at %d", newest, b.report.Backend.Revision)
	} else if of != nil {
		if got, want := e.hashCompacted(newest), of.hashCompacted(newest); got != want {
			t.Errorf("hashkv %d at revision %d, the member has %d", got, newest, want)
		}
	}
	e.soleMember()
	e.checkNoAlarms()
	takeWrites(e)
	e.settle()
	e.Kill()
	e.Plain()
	checkWrites(e)
	e.Kill()
}

// hashCompacted is the hash at a revision of keys that are compacted up to the
// one before: the hash of two members is the same then.
func (e *etcd) hashCompacted(revision int64) uint32 {
	e.t.Helper()
	if _, err := e.v3().Compact(callContext(e.t), revision-1, clientv3.WithCompactPhysical()); err != nil {
		e.t.Fatalf("compact up to %d: %v", revision-1, err)
	}
	return e.hashKV(revision)
}

// The backup of a running member holds v2 keys and v3 keys; on request the v2
// keys alone.
func TestBackupLiveKeepsV2Keys(t *testing.T) {
	for _, r := range []release{etcd34, etcd35} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t), "--snapshot-count", "50")
			writeHistory(e)
			e.v2Set("/a/b", "c")
			s := source{dir: e.dir, v2: e.v2Dump("/").lines(), v3: e.v3Dump().lines(), hash: e.hashKV(0)}
			unchanged := untouchedLive(t, e)
			both, v2 := filepath.Join(t.TempDir(), "both"), filepath.Join(t.TempDir(), "v2")
			o := lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", both)
			if !strings.Contains(o.stdout, "running") || !strings.Contains(o.stdout, "as of one commit, while etcd was running") {
				t.Errorf("it does not say that etcd was running:\n%s", o.stdout)
			}
			lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", v2, "--with-v3=false")
			unchanged()
			s.prove(t, r, both)
			source{v2: s.v2}.prove(t, r, v2)
			if err := e.put("/still", "alive"); err != nil {
				t.Errorf("the source after its backup: %v", err)
			}
		})
	}
}

// untouchedLive remembers which files an etcd has; the returned function fails
// the test if others are there.
func untouchedLive(t *testing.T, e *etcd) func() {
	t.Helper()
	names := func() string {
		var all []string
		for _, folder := range []string{"member", "member/snap", "member/wal"} {
			entries, err := os.ReadDir(filepath.Join(e.dir, folder))
			if err != nil {
				t.Fatal(err)
			}
			for _, entry := range entries {
				all = append(all, entry.Name())
			}
		}
		return strings.Join(all, "\n")
	}
	before := names()
	return func() {
		t.Helper()
		if after := names(); after != before {
			t.Errorf("the member's files were\n%s\nand are\n%s", before, after)
		}
	}
}

// A member that is killed and started again and again is backed up at any moment.
func TestBackupLiveOfAMemberThatRestarts(t *testing.T) {
	for _, r := range []release{etcd34, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t), "--snapshot-count", "300")
			writeHistory(e)
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			defer func() { cancel(); group.Wait() }()
			var acked atomic.Int64
			client := e.v3()
			group.Go(func() { writeThroughRestarts(ctx, client, &acked) })
			group.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					time.Sleep(time.Duration(150+n*37%400) * time.Millisecond)
					e.Kill()
					if err := e.Restart(); err != nil {
						t.Error(err)
						return
					}
				}
			})
			for range soak(t, 8) {
				time.Sleep(100 * time.Millisecond)
				want, dir := acked.Load(), newDataDir(t)
				o := lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", dir)
				t.Log(o.stderr)
				lifeboat(t, "db", "check", filepath.Join(dir, "member/snap/db"))
				if got := max(lastLogged(t, dir), lastCommitted(t, dir)); got < want {
					t.Errorf("the last value is %d, though %d was acknowledged before", got, want)
				}
			}
		})
	}
}

// lastCommitted is the last number in the backend of a data dir.
func lastCommitted(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(filepath.Join(path, "member/snap/db"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	db, err := snapcodec.OpenDB(f, info.Size(), snapcodec.DBOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	err = db.Keys(snapcodec.Revision{}, func(r *snapcodec.KeyRecord) error {
		kv, err := r.KeyValue()
		if err != nil || string(kv.Key) != "/n" {
			return err
		}
		last, err = strconv.ParseInt(string(kv.Value), 10, 64)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// A backend that is copied while its member takes all the writes that it can,
// compacts and defragments, is sound, and has the hash that the member answers
// for its revision.
func TestCopyLiveUnderLoad(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			e := start(t, r, newDataDir(t), "--quota-backend-bytes", "8000000000", "--snapshot-count", "5000")
			l := startFullLoad(t, e, int64(soak(t, 24))<<20)
			defer l.stop()
			var compared int
			end := time.Now().Add(time.Duration(soak(t, 2)) * time.Second)
			for n := 0; time.Now().Before(end) || (compared == 0 && n < 20); n++ {
				side := l.meanwhile(n)
				if l.copyAndCompare() {
					compared++
				}
				side.Wait()
			}
			t.Logf("%d copies compared", compared)
			if compared == 0 {
				t.Error("no copy could be compared")
			}
			l.bootCopy(r)
		})
	}
}

// fullLoad is a member under full load.
type fullLoad struct {
	testing.TB
	*etcd
	client *clientv3.Client
	cancel context.CancelFunc
	group  sync.WaitGroup
	bytes  atomic.Int64 // written
	last   atomic.Int64 // revision of a recent put
}

// startFullLoad returns when so many bytes are written; the load goes on.
func startFullLoad(t testing.TB, e *etcd, fill int64) *fullLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &fullLoad{TB: t, etcd: e, client: e.v3(), cancel: cancel}
	for i := range 8 {
		l.group.Go(func() { l.write(ctx, mathrand.New(mathrand.NewSource(int64(i)))) })
	}
	for l.bytes.Load() < fill && !e.proc.ended() {
		time.Sleep(20 * time.Millisecond)
	}
	return l
}

func (l *fullLoad) stop() {
	l.cancel()
	l.group.Wait()
}

// write makes transactions of puts and deletions, and a put after each.
func (l *fullLoad) write(ctx context.Context, rnd *mathrand.Rand) {
	pool := make([]byte, 1<<20)
	rand.Read(pool)
	for ctx.Err() == nil {
		var ops []clientv3.Op
		size := 0
		for i, n := range rnd.Perm(20_000)[:1+rnd.Intn(60)] {
			key := fmt.Sprintf("/load/%d", n)
			if i%7 == 6 {
				ops = append(ops, clientv3.OpDelete(key))
				continue
			}
			length := rnd.Intn(1 + rnd.Intn(4096))
			if rnd.Intn(500) == 0 {
				length = rnd.Intn(300_000)
			}
			at := rnd.Intn(len(pool) - length)
			ops = append(ops, clientv3.OpPut(key, string(pool[at:at+length])))
			size += length
		}
		if _, err := l.client.Txn(ctx).Then(ops...).Commit(); err != nil {
			continue
		}
		l.bytes.Add(int64(size))
		if resp, err := l.client.Put(ctx, "/put", "x"); err == nil {
			l.last.Store(resp.Header.Revision)
		}
	}
}

// meanwhile starts what members do now and then, beside a copy.
func (l *fullLoad) meanwhile(n int) *sync.WaitGroup {
	var side sync.WaitGroup
	ctx := l.Context()
	switch n % 4 {
	case 1, 2:
		// At a put: the hash of old releases depends on deletions just there.
		rev := l.last.Load()
		side.Go(func() { l.client.Compact(ctx, rev) })
	case 3:
		side.Go(func() { l.client.Defragment(ctx, l.etcd.client) })
	}
	return &side
}

// copyAndCompare tells whether the copy could be compared: only the hash at
// the same compaction means anything.
func (l *fullLoad) copyAndCompare() bool {
	l.Helper()
	path := filepath.Join(l.TempDir(), "db")
	begin := time.Now()
	c := l.copy(path)
	took := time.Since(begin)
	got := l.hash(path, c)
	os.Remove(path)
	want, err := l.client.HashKV(l.Context(), l.etcd.client, got.HashRevision)
	if err != nil {
		l.Logf("hash at %d: %v", got.HashRevision, err)
		return false
	}
	l.Logf("%d MB in %v, revision %d, %+v", c.Size>>20, took, got.HashRevision, c)
	if want.CompactRevision != got.CompactRevision {
		return false
	}
	if want.Hash != got.Hash {
		l.Errorf("commit %d, revision %d: hash %d, want %d", c.TxID, got.HashRevision, got.Hash, want.Hash)
	}
	return true
}

// hash checks a copy and computes its hash.
func (l *fullLoad) hash(path string, c snapcodec.LiveCopy) snapcodec.HashKV {
	l.Helper()
	f, err := os.Open(path)
	if err != nil {
		l.Fatal(err)
	}
	defer f.Close()
	db, err := snapcodec.OpenDB(f, c.Size, snapcodec.DBOptions{Name: "copy"})
	if err != nil {
		l.Fatal(err)
	}
	if report, err := db.Check(); err != nil || report.Total > 0 {
		l.Fatalf("commit %d: %v, %d problems, the first %v", c.TxID, err, report.Total, append(report.Problems, nil)[0])
	}
	h, err := db.HashKV(0)
	if err != nil {
		l.Fatal(err)
	}
	return h
}

// bootCopy lets the release's own tool and server take a copy.
func (l *fullLoad) bootCopy(r release) {
	l.Helper()
	path, dir := filepath.Join(l.TempDir(), "db"), newDataDir(l)
	want := l.hash(path, l.copy(path))
	l.stop()
	l.Kill()
	restoredByEtcd(l, r, path, dir, "--skip-hash-check", "--name", "m1",
		"--initial-cluster", soleCluster, "--initial-advertise-peer-urls", "http://127.0.0.1:2380")
	if got := start(l, r, dir).hashKV(want.HashRevision); got != want.Hash {
		l.Errorf("booted, revision %d: hash %d, want %d", want.HashRevision, got, want.Hash)
	}
}

// copy copies the backend, again when it was replaced meanwhile.
func (l *fullLoad) copy(path string) snapcodec.LiveCopy {
	l.Helper()
	for range 20 {
		c, err := copyLiveFile(l.Context(), filepath.Join(l.dir, "member", "snap", "db"), path)
		if err == nil {
			return c
		}
		if !errors.Is(err, snapcodec.ErrReplaced) {
			l.Fatalf("%v (%+v)", err, c)
		}
	}
	l.Fatal("replaced again and again")
	return snapcodec.LiveCopy{}
}

func copyLiveFile(ctx context.Context, from, to string) (snapcodec.LiveCopy, error) {
	src, err := os.Open(from)
	if err != nil {
		return snapcodec.LiveCopy{}, err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return snapcodec.LiveCopy{}, err
	}
	defer dst.Close()
	return snapcodec.CopyLive(ctx, src, dst, snapcodec.LiveCopyOptions{})
}

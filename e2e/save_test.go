//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/backup/save"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func newRepository(t testing.TB) *repository.Repository {
	t.Helper()
	repo, err := repository.Init(t.Context(), storagetest.NewMemory(), repository.InitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// loadBackup brings a backup back into a folder.
func loadBackup(t testing.TB, repo *repository.Repository, b *repository.Backup) string {
	t.Helper()
	dir := t.TempDir()
	if err := repo.Load(t.Context(), b, dir, repository.Identities{}, repository.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func clientConfig(members ...*etcd) clientv3.Config {
	cfg := clientv3.Config{DialTimeout: callTimeout, Logger: zap.NewNop()}
	for _, m := range members {
		cfg.Endpoints = append(cfg.Endpoints, m.client)
	}
	return cfg
}

// logging has a save tell the test what it does.
func logging(t testing.TB) save.Options {
	tell := func(text string) { t.Log(text) }
	return save.Options{Info: tell, Warn: tell, Progress: func(int64) {}}
}

// v3Load writes to an etcd at full speed and remembers what it acknowledged.
type v3Load struct {
	e    *etcd
	ctx  context.Context // of the writers
	stop context.CancelFunc
	done sync.WaitGroup

	mu    sync.Mutex
	acked map[string]string // the newest value of each key, a growing number
	err   error
}

// startV3Load starts the writers; [v3Load.finish] ends them. Each writes to
// some keys of its own and deletes others.
func startV3Load(e *etcd, writers int) *v3Load {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	l := &v3Load{e: e, ctx: ctx, stop: cancel, acked: map[string]string{}}
	client := e.v3()
	for w := range writers {
		l.done.Go(func() { l.end(l.write(client, w)) })
	}
	return l
}

func (l *v3Load) write(client *clientv3.Client, writer int) error {
	ctx := l.ctx
	padding := strings.Repeat("x", 2000)
	for n := 0; ctx.Err() == nil; n++ {
		key, value := fmt.Sprintf("/w/%d/%d", writer, n%50), fmt.Sprintf("%09d", n)
		if _, err := client.Put(ctx, key, value+padding); err != nil {
			return err
		}
		l.mu.Lock()
		l.acked[key] = value
		l.mu.Unlock()
		gone := fmt.Sprintf("/gone/%d/%d", writer, n%7)
		_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version(gone), "=", 0)).
			Then(clientv3.OpPut(gone, value)).Else(clientv3.OpDelete(gone)).Commit()
		if err != nil {
			return err
		}
	}
	return nil
}

// end keeps an error that is not that of the load's own end.
func (l *v3Load) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.err == nil && !strings.Contains(err.Error(), context.Canceled.Error()) {
		l.err = err
	}
}

// ackedNow is what was acknowledged up to now.
func (l *v3Load) ackedNow() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.acked)
}

func (l *v3Load) finish() {
	l.e.t.Helper()
	l.stop()
	l.done.Wait()
	if l.err != nil {
		l.e.t.Fatal(l.err)
	}
}

// keepBusy repeats what an operator may do at any time.
func (l *v3Load) keepBusy(every time.Duration, what func(ctx context.Context, c *clientv3.Client) error) {
	l.e.t.Helper()
	client := l.e.v3()
	l.done.Go(func() {
		var err error
		for err == nil {
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(every):
				err = what(l.ctx, client)
			}
		}
		l.end(err)
	})
}

// compactBehind keeps the last revisions.
func compactBehind(ctx context.Context, c *clientv3.Client) error {
	resp, err := c.Get(ctx, "/w/0/0")
	if err != nil {
		return err
	}
	_, err = c.Compact(ctx, max(1, resp.Header.Revision-200))
	if errors.Is(err, rpctypes.ErrCompacted) {
		return nil // little was written since the last time
	}
	return err
}

// What the manifest of a live backup says is what its image holds, whatever is
// written and compacted meanwhile.
func TestSaveLiveUnderLoad(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t))
			writeHistory(e)
			load := startV3Load(e, 4)
			repo := newRepository(t)
			hashes := 0
			for i := range soak(t, 4) {
				time.Sleep(300 * time.Millisecond)
				if i%2 == 1 {
					if err := compactBehind(t.Context(), e.v3()); err != nil {
						t.Fatal(err)
					}
				}
				acked := load.ackedNow()
				b, err := save.Live(t.Context(), repo, "c", clientConfig(e), save.LiveOptions{Options: logging(t)})
				if err != nil {
					t.Fatal(err)
				}
				if checkManifest(t, filepath.Join(loadBackup(t, repo, b), "db"), b.Manifest, acked) {
					hashes++
				}
			}
			load.finish()
			if hashes == 0 {
				t.Error("no backup has a hash")
			}
		})
	}
}

// checkManifest compares a manifest with the backend in a file, and tells
// whether it has a hash.
func checkManifest(t *testing.T, path string, m repository.Manifest, acked map[string]string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	db, err := snapcodec.OpenDB(f, info.Size(), snapcodec.DBOptions{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	hash, err := db.HashKV(0)
	if err != nil {
		t.Fatal(err)
	}
	status, err := db.Status()
	if err != nil {
		t.Fatal(err)
	}
	if m.Revision != hash.CurrentRevision || m.CompactRevision != hash.CompactRevision || m.StorageVersion != status.Version {
		t.Errorf("manifest: revision %d, compacted %d, storage %q; image: %+v, storage %q",
			m.Revision, m.CompactRevision, m.StorageVersion, hash, status.Version)
	}
	if m.Keys == nil || *m.Keys != status.TotalKey {
		t.Errorf("manifest: keys %v (%q), image: %d", m.Keys, m.Notes, status.TotalKey)
	}
	if m.MemberName != "m1" || len(m.Members) == 0 || m.RaftIndex == 0 || m.EtcdVersion == "" {
		t.Errorf("manifest: %+v", m)
	}
	mustHoldKeys(t, db, acked)
	if m.HashKV == nil {
		return false
	}
	if *m.HashKV != hash.Hash || m.HashRevision != hash.HashRevision {
		t.Errorf("manifest: hash %d at %d, image: %+v", *m.HashKV, m.HashRevision, hash)
	}
	return true
}

// mustHoldKeys looks for values in a backend that are at least as new.
func mustHoldKeys(t *testing.T, db *snapcodec.DB, acked map[string]string) {
	t.Helper()
	held := map[string]string{}
	err := db.Keys(snapcodec.Revision{}, func(r *snapcodec.KeyRecord) error {
		kv, err := r.KeyValue()
		if err == nil {
			held[string(kv.Key)] = string(kv.Value)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	mustHoldValues(t, held, acked)
}

func mustHoldValues(t *testing.T, held, acked map[string]string) {
	t.Helper()
	missed := 0
	for key, value := range acked {
		if held[key] < value {
			missed++
			t.Logf("%s is %.9q, though %q was acknowledged before", key, held[key], value)
		}
	}
	if missed > 0 || len(acked) == 0 {
		t.Errorf("%d of %d acknowledged values are missing", missed, len(acked))
	}
}

// When the member dies in mid-stream, another one is asked.
func TestSaveLiveOutlivesAMember(t *testing.T) {
	t.Parallel()
	members := startCluster(t, etcd36, 3)
	big := strings.Repeat("x", 1<<20)
	for i := range 16 {
		if err := members[0].put(fmt.Sprintf("/big/%d", i), big); err != nil {
			t.Fatal(err)
		}
	}
	var killed *etcd
	var from string // the endpoint that is being read
	o := save.LiveOptions{Options: logging(t), Timeout: 2 * time.Second}
	o.Info = func(text string) {
		t.Log(text)
		if rest, ok := strings.CutPrefix(text, "taking the snapshot from "); ok {
			from = strings.Fields(rest)[0]
		}
	}
	o.Progress = func(int64) {
		for _, m := range members {
			if killed == nil && m.client == from {
				killed = m
				m.Kill()
			}
		}
	}
	repo := newRepository(t)
	b, err := save.Live(t.Context(), repo, "c", clientConfig(members...), o)
	if err != nil {
		t.Fatal(err)
	}
	if killed == nil || b.Manifest.Endpoint == killed.client || len(b.Manifest.Members) != 3 {
		t.Errorf("taken from %s, members %v", b.Manifest.Endpoint, b.Manifest.Members)
	}
	info, err := os.Stat(filepath.Join(loadBackup(t, repo, b), "db"))
	if err != nil || info.Size() < 16<<20 {
		t.Errorf("image %v (%v)", info, err)
	}
}

// With authentication on, root gets everything, and others are told.
func TestSaveLiveWithAPassword(t *testing.T) {
	for _, r := range []release{etcd34, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t))
			writeHistory(e)
			enableAuth(e)
			cfg := clientConfig(e)
			for _, user := range []string{"", "reader"} {
				cfg.Username, cfg.Password = user, user
				repo := newRepository(t)
				_, err := save.Live(t.Context(), repo, "c", cfg, save.LiveOptions{Options: logging(t)})
				if err == nil || !live.Denied(err) {
					t.Errorf("user %q: error %v", user, err)
				}
				t.Logf("user %q: %v", user, err)
			}
			cfg.Username, cfg.Password = "root", "root"
			repo := newRepository(t)
			b, err := save.Live(t.Context(), repo, "c", cfg, save.LiveOptions{Options: logging(t)})
			if err != nil {
				t.Fatal(err)
			}
			if !checkManifest(t, filepath.Join(loadBackup(t, repo, b), "db"), b.Manifest, map[string]string{"/k/1": ""}) {
				t.Errorf("no hash: %q", b.Manifest.Notes)
			}
		})
	}
}

// enableAuth makes root, and a reader of /k/, each with its name as password.
func enableAuth(e *etcd) {
	e.t.Helper()
	c, ctx := e.v3(), callContext(e.t)
	must := func(_ any, err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	for _, name := range []string{"root", "reader"} {
		must(c.RoleAdd(ctx, name))
		must(c.UserAdd(ctx, name, name))
		must(c.UserGrantRole(ctx, name, name))
	}
	must(c.RoleGrantPermission(ctx, "reader", "/k/", "/k0", clientv3.PermissionType(clientv3.PermRead)))
	must(c.AuthEnable(ctx))
}

// The files of a member that writes at full speed, while its database is
// compacted and defragmented, hold everything that was acknowledged before.
func TestSaveFilesUnderLoad(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t), "--snapshot-count", "300")
			writeHistory(e)
			load := startV3Load(e, 4)
			load.keepBusy(200*time.Millisecond, compactBehind)
			load.keepBusy(700*time.Millisecond, func(ctx context.Context, c *clientv3.Client) error {
				_, err := c.Defragment(ctx, e.client)
				return err
			})
			time.Sleep(time.Second)
			type taken struct {
				backup *repository.Backup
				acked  map[string]string
			}
			var all []taken
			repo := newRepository(t)
			for range soak(t, 3) {
				time.Sleep(200 * time.Millisecond)
				acked := load.ackedNow()
				b, err := save.Files(t.Context(), repo, "c", e.dir, save.FilesOptions{Options: logging(t), Scratch: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, taken{b, acked})
			}
			load.finish()
			e.Kill()
			for i, s := range all {
				proveFiles(t, r, loadBackup(t, repo, s.backup), s.backup.Manifest, s.acked, i == len(all)-1)
			}
		})
	}
}

// proveFiles restores what was loaded and, if told to, boots it.
func proveFiles(t *testing.T, r release, dir string, m repository.Manifest, acked map[string]string, booted bool) {
	t.Helper()
	if !checkManifest(t, filepath.Join(dir, "member/snap/db"), m, map[string]string{"/k/1": ""}) {
		t.Errorf("no hash: %q", m.Notes)
	}
	out := newDataDir(t)
	restored(t, dir, "--data-dir", out, "--initial-cluster", soleCluster)
	if !booted {
		return
	}
	held := map[string]string{}
	e := start(t, r, out)
	for _, p := range e.v3Dump().Pairs {
		held[string(p.Key)] = string(p.Value)
	}
	mustHoldValues(t, held, acked)
	e.Kill()
}

// The files of a 2.3 that writes at full speed hold a prefix of what it wrote.
func TestSaveFilesOfAV2Writer(t *testing.T) {
	t.Parallel()
	e := start(t, etcd23, newDataDir(t), "--snapshot-count", "1000")
	load := startLoad(e, 8)
	load.await(300)
	floor := load.last()
	e.settle()
	repo := newRepository(t)
	b, err := save.Files(t.Context(), repo, "c", e.dir, save.FilesOptions{Options: logging(t)})
	if err != nil {
		t.Fatal(err)
	}
	writes := load.finish()
	e.Kill()
	if !b.Manifest.V2 || b.Manifest.MemberName != "m1" {
		t.Errorf("manifest %+v", b.Manifest)
	}
	out := filepath.Join(t.TempDir(), "backup")
	lifeboat(t, "backup", "--data-dir", loadBackup(t, repo, b), "--backup-dir", out)
	checkPrefix(t, etcd23, out, writes, floor)
}

// A member that is killed and started again and again is saved at any moment.
func TestSaveFilesOfAMemberThatRestarts(t *testing.T) {
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
			repo := newRepository(t)
			for range soak(t, 8) {
				time.Sleep(100 * time.Millisecond)
				want := acked.Load()
				b, err := save.Files(t.Context(), repo, "c", e.dir, save.FilesOptions{Options: logging(t), Scratch: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				dir, out := loadBackup(t, repo, b), newDataDir(t)
				restored(t, dir, "--data-dir", out, "--initial-cluster", soleCluster)
				if got := lastLogged(t, dir); got < want {
					t.Errorf("the last value is %d, though %d was acknowledged before", got, want)
				}
			}
		})
	}
}

// writeThroughRestarts puts ever higher numbers and keeps the last that was
// acknowledged.
func writeThroughRestarts(ctx context.Context, client *clientv3.Client, acked *atomic.Int64) {
	for n := int64(1); ctx.Err() == nil; n++ {
		once, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := client.Put(once, "/n", fmt.Sprint(n)); err == nil {
			acked.Store(n)
		}
		cancel()
	}
}

// lastLogged is the last number in the log of a data dir.
func lastLogged(t *testing.T, path string) int64 {
	t.Helper()
	var last int64
	src, err := datadir.Inspect(t.Context(), path, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	err = src.Entries(0, func(_ walcodec.Record, e walcodec.Entry) error {
		if walcodec.ClassifyEntry(e) != walcodec.V3Request {
			return nil
		}
		r, err := walcodec.ParseInternalRequest(e.Data)
		if err != nil || r.Put == nil || string(r.Put.Key) != "/n" {
			return err
		}
		last, err = strconv.ParseInt(string(r.Put.Value), 10, 64)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

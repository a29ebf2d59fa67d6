package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

var errBroken = errors.New("broken")

// newKey makes a key pair.
func newKey(t testing.TB) (Recipients, Identities) {
	t.Helper()
	secret, public, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	to, err := ReadRecipients(RecipientOptions{Keys: []string{public}})
	if err != nil {
		t.Fatal(err)
	}
	var ids Identities
	if err := ids.addPlain([]byte(secret.Reveal())); err != nil {
		t.Fatal(err)
	}
	return to, ids
}

func begin(t testing.TB, repo *Repository, o DraftOptions) *Draft {
	t.Helper()
	d, err := repo.Begin(t.Context(), "prod", o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func db() Part { return Part{Name: "db", Role: RoleDB} }

var facts = Manifest{Kind: Live, Tool: "test"}

// mustList lists what is in a store.
func mustList(t testing.TB, s storage.Store) *Listing {
	t.Helper()
	repo, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPartsOfEverySize(t *testing.T) {
	to, ids := newKey(t)
	for _, o := range []DraftOptions{{}, {Recipients: to, Compression: CompressBetter}} {
		c := contents{}
		for i, size := range []int{0, 1, 2, 4096, frameSize - 1, frameSize, frameSize + 1, 2*frameSize + 12345} {
			c[fmt.Sprintf("include/%d", size)] = noise(size, uint64(i))
		}
		repo, _ := newRepository(t)
		b := mustSave(t, repo, "prod", c, o)
		mustLoad(t, repo, b, ids, c)
		for _, p := range b.Manifest.Parts {
			if data := c[p.Name]; p.Size != int64(len(data)) || p.SHA256 != sum(data) {
				t.Errorf("%s: %d bytes with %s", p.Name, p.Size, p.SHA256)
			}
		}
	}
}

// What is stored is what zstd and age make of it: other tools can read it.
func TestPartsAreReadWithoutUs(t *testing.T) {
	to, ids := newKey(t)
	repo, store := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{Recipients: to})
	for _, p := range b.Manifest.Parts {
		if !strings.HasSuffix(p.Object, ".zst.age") {
			t.Errorf("%s is stored as %s", p.Name, p.Object)
		}
		stored, err := readAll(t.Context(), store, b.key(p.Object))
		if err != nil || int64(len(stored)) != p.StoredSize || sum(stored) != p.StoredSHA256 {
			t.Fatalf("%s: %d bytes, %v", p.Name, len(stored), err)
		}
		compressed, err := age.Decrypt(bytes.NewReader(stored), ids.list...)
		if err != nil {
			t.Fatal(err)
		}
		z, err := zstd.NewReader(compressed)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if z.Close(); err != nil || !bytes.Equal(plain, sample[p.Name]) {
			t.Fatalf("%s: %d bytes, %v", p.Name, len(plain), err)
		}
	}
}

func TestObjectNames(t *testing.T) {
	repo, _ := newRepository(t)
	d := begin(t, repo, DraftOptions{})
	for _, c := range []struct {
		part Part
		want string
	}{
		{Part{Name: "db", Role: RoleDB}, "db.zst"},
		{Part{Name: "member/wal/0-0.wal", Role: RoleWAL}, "wal-0-0.wal.zst"},
		{Part{Name: "member/snap/1-1.snap", Role: RoleSnap}, "snap-1-1.snap.zst"},
		{Part{Name: "include/a/ca.crt", Role: RoleInclude}, "include-ca.crt.zst"},
		{Part{Name: "include/b/ca.crt", Role: RoleInclude}, "include-ca.crt-2.zst"},
		{Part{Name: "include/c/CA.crt", Role: RoleInclude}, "include-CA.crt-3.zst"}, // some file systems ignore case
		{Part{Name: "include/ü ö:*", Role: RoleInclude}, "include-_____.zst"},
		{Part{Name: "include/manifest.json", Role: RoleInclude}, "include-manifest.json.zst"},
		{Part{Name: "include/" + strings.Repeat("x", 200), Role: RoleInclude}, "include-" + strings.Repeat("x", 100) + ".zst"},
	} {
		p, err := d.Put(t.Context(), c.part, put([]byte(c.part.Name)))
		if err != nil || p.Object != c.want {
			t.Errorf("%s is stored as %s, %v; want %s", c.part.Name, p.Object, err, c.want)
		}
	}
	if _, err := d.Commit(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
}

func TestNamesThatAreRefused(t *testing.T) {
	repo, store := newRepository(t)
	d := begin(t, repo, DraftOptions{})
	for _, name := range []string{"", ".", "..", "/db", "../db", "a/../../b", "a//b", "a/", "./a", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 2000)} {
		if _, err := d.Put(t.Context(), Part{Name: name, Role: RoleDB}, put(nil)); err == nil {
			t.Errorf("put %q", name)
		}
	}
	if _, err := d.Put(t.Context(), Part{Name: "db", Role: "other"}, put(nil)); err == nil {
		t.Error("put a part of another role")
	}
	for _, cluster := range []string{"", ".", "..", ".a", "a/b", "a b", "ä", "a\n", strings.Repeat("x", 101)} {
		if _, err := repo.Begin(t.Context(), cluster, DraftOptions{}); err == nil {
			t.Errorf("begin for cluster %q", cluster)
		}
	}
	for key, value := range map[string]string{"": "x", "a b": "x", "=": "x", "a": "x\ny", "b": "\xff", "c": strings.Repeat("x", 256), ".d": ""} {
		if _, err := repo.Begin(t.Context(), "prod", DraftOptions{Labels: map[string]string{key: value}}); err == nil {
			t.Errorf("begin with label %q=%q", key, value)
		}
	}
	if l := mustList(t, store); !l.empty() {
		t.Errorf("it holds %+v", l)
	}
}

func TestParseLabels(t *testing.T) {
	labels, err := ParseLabels([]string{"a=1", "b.c/d=x=y", "e=", "a=1"})
	if err != nil || fmt.Sprint(labels) != "map[a:1 b.c/d:x=y e:]" {
		t.Errorf("%v, %v", labels, err)
	}
	for _, bad := range [][]string{{"a"}, {"=b"}, {"a=1", "a=2"}} {
		if _, err := ParseLabels(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func TestCommitNeedsWhatWasPut(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, d *Draft, store *storagetest.Memory)
		want  string
	}{
		"no part":        {func(t *testing.T, d *Draft, _ *storagetest.Memory) { _ = d.Remove(t.Context(), "db") }, "no part was put"},
		"a part is gone": {func(t *testing.T, d *Draft, s *storagetest.Memory) { _ = s.Delete(t.Context(), d.key("db.zst")) }, "db.zst: it is gone"},
		"a part is shorter": {func(_ *testing.T, d *Draft, s *storagetest.Memory) {
			_ = s.Corrupt(d.key("db.zst"), func(b []byte) []byte { return b[1:] })
		}, "db.zst: stored size"},
		"a file is a folder": {func(t *testing.T, d *Draft, _ *storagetest.Memory) {
			_, _ = d.Put(t.Context(), Part{Name: "db/x", Role: RoleInclude}, put(nil))
		}, `"db" can't be a file and a folder`},
	} {
		t.Run(name, func(t *testing.T) {
			repo, store := newRepository(t)
			d := begin(t, repo, DraftOptions{})
			if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, d, store)
			_, err := d.Commit(t.Context(), facts)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			if err := d.Abort(t.Context()); err != nil {
				t.Fatal(err)
			}
			if l := mustList(t, store); !l.empty() {
				t.Errorf("it holds %+v", l)
			}
		})
	}
}

func TestCommitHasALimit(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for after, want := range map[time.Duration]error{MaxSave: nil, MaxSave + time.Second: ErrTooLong} {
		repo, store := newRepository(t)
		clock := now
		d := begin(t, repo, DraftOptions{Now: func() time.Time { return clock }})
		if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
			t.Fatal(err)
		}
		clock = now.Add(after)
		b, err := d.Commit(t.Context(), facts)
		if !errors.Is(err, want) {
			t.Fatalf("after %v: %v", after, err)
		}
		if l := mustList(t, store); len(l.Backups)+len(l.Unfinished) != 1 || (len(l.Backups) == 1) != (want == nil) {
			t.Errorf("after %v: %+v", after, l)
		}
		if err == nil && (!b.Manifest.Started.Equal(now) || !b.Manifest.Finished.Equal(clock) || !strings.HasPrefix(b.ID(), "20260304T050607Z-")) {
			t.Errorf("%s from %v to %v", b.ID(), b.Manifest.Started, b.Manifest.Finished)
		}
	}
}

// A part that failed is not in the way of the next try, and leaves nothing in
// the backup.
func TestPutAgain(t *testing.T) {
	for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut} {
		repo, store := newRepository(t)
		faulty := storagetest.NewFaulty(store, storagetest.At(1, storagetest.Fault{Kind: kind, After: 10}))
		repo.store = faulty
		d := begin(t, repo, DraftOptions{})
		if _, err := d.Put(t.Context(), db(), put(noise(2*frameSize, 1))); !errors.Is(err, storagetest.ErrInjected) {
			t.Fatalf("%s: %v", kind, err)
		}
		if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err == nil {
			t.Fatalf("%s: put a part twice", kind)
		}
		b, err := d.Commit(t.Context(), facts)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		mustLoad(t, repo, b, Identities{}, contents{"db": []byte("data")})
		if l := mustList(t, store); len(l.Backups) != 1 || len(l.Backups[0].Stray) > 0 {
			t.Errorf("%s: %+v", kind, l.Backups[0])
		}
	}
}

func TestRemove(t *testing.T) {
	repo, _ := newRepository(t)
	d := begin(t, repo, DraftOptions{})
	for _, text := range []string{"first", "second"} {
		if _, err := d.Put(t.Context(), db(), put([]byte(text))); err != nil {
			t.Fatal(err)
		}
		if text == "first" {
			if err := errors.Join(d.Remove(t.Context(), "db"), d.Remove(t.Context(), "db")); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := d.Commit(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	mustLoad(t, repo, b, Identities{}, contents{"db": []byte("second")})
}

func TestPutsAtOnce(t *testing.T) {
	to, ids := newKey(t)
	repo, _ := newRepository(t)
	d := begin(t, repo, DraftOptions{Recipients: to})
	c := contents{}
	for i := range 20 {
		c[fmt.Sprintf("member/wal/%d.wal", i)] = noise(i*frameSize/10, uint64(i))
	}
	var wg sync.WaitGroup
	for name, data := range c {
		wg.Go(func() {
			if _, err := d.Put(t.Context(), Part{Name: name, Role: RoleWAL}, put(data)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b, err := d.Commit(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(b.Manifest.Parts, func(a, b Part) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("parts are out of order")
	}
	mustLoad(t, repo, b, ids, c)
}

// stuckStore takes some bytes of a Put and then waits for its context.
type stuckStore struct {
	storage.Store
	take int64
}

func (s stuckStore) Put(ctx context.Context, _ string, body io.Reader, _ storage.PutOptions) (storage.Object, error) {
	if _, err := io.CopyN(io.Discard, body, s.take); err != nil {
		return storage.Object{}, err
	}
	<-ctx.Done()
	return storage.Object{}, ctx.Err()
}

// endless writes until that fails, or waits for its context after so many
// writes.
func endless(writes int) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		for range writes {
			if _, err := w.Write(make([]byte, frameSize/3)); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return fmt.Errorf("the source: %w", context.Cause(ctx))
	}
}

// Whichever side fails, the other ends too, and so do all goroutines: synctest
// fails on one that is left.
func TestEitherSideEndsTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		store func(storage.Store) storage.Store
		write func(context.Context, io.Writer) error
		after time.Duration // until the context ends
		want  error
	}{
		"store fails at once, writer waits": {fails(0), endless(2), time.Hour, storagetest.ErrInjected},
		"store fails late, writer writes":   {fails(1000), endless(1e6), time.Hour, storagetest.ErrInjected},
		"writer fails at once":              {works, func(context.Context, io.Writer) error { return errBroken }, time.Hour, errBroken},
		"writer fails late": {works, func(_ context.Context, w io.Writer) error {
			_, err := w.Write(make([]byte, 5*frameSize))
			return errors.Join(errBroken, err)
		}, time.Hour, errBroken},
		"writer fails, store is stuck": {stuck(0), func(context.Context, io.Writer) error { return errBroken }, time.Hour, errBroken},
		"both wait for the context":    {stuck(100), endless(20), time.Minute, context.DeadlineExceeded},
		"writer waits for the context": {works, endless(1), time.Minute, context.DeadlineExceeded},
		"writer ignores its errors": {works, func(ctx context.Context, w io.Writer) error {
			<-ctx.Done()
			_, _ = w.Write(make([]byte, 3*frameSize))
			return nil
		}, time.Minute, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				repo, store := newRepository(t)
				repo.store = c.store(store)
				ctx, cancel := context.WithTimeout(t.Context(), c.after)
				defer cancel()
				began := time.Now()
				d := begin(t, repo, DraftOptions{})
				_, err := d.Put(ctx, db(), c.write)
				if !errors.Is(err, c.want) || !strings.HasPrefix(err.Error(), "part db: ") {
					t.Errorf("%v, want %v", err, c.want)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %v", took)
				}
				if l := mustList(t, store); !l.empty() {
					t.Errorf("it left %+v", l)
				}
			})
		})
	}
}

func works(s storage.Store) storage.Store { return s }

func stuck(after int64) func(storage.Store) storage.Store {
	return func(s storage.Store) storage.Store { return stuckStore{s, after} }
}

func fails(after int64) func(storage.Store) storage.Store {
	return func(s storage.Store) storage.Store {
		return storagetest.NewFaulty(s, storagetest.At(1, storagetest.Fault{Kind: storagetest.Fail, After: after}))
	}
}

// The store tells that the object is there already: its own first try had
// stored it.
func TestPutWhoseFirstAnswerWasLost(t *testing.T) {
	to, ids := newKey(t)
	for store := range storagetest.Each(storagetest.Fault{Kind: storagetest.Repeat}, func() storage.Store {
		_, store := newRepository(t)
		return store
	}) {
		repo, err := Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		b, err := saveAll(t.Context(), repo, "prod", sample, DraftOptions{Recipients: to})
		if err != nil {
			t.Fatalf("%v: %v", store.Met(), err)
		}
		mustLoad(t, repo, b, ids, sample)
	}
}

func TestAbortEndsPuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, store := newRepository(t)
		d := begin(t, repo, DraftOptions{})
		if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if _, err := d.Put(t.Context(), Part{Name: fmt.Sprint(i), Role: RoleWAL}, endless(1)); !errors.Is(err, errEnded) {
					t.Errorf("put: %v", err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Abort(ctx); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if _, err := d.Put(t.Context(), db(), put(nil)); !errors.Is(err, errEnded) {
			t.Errorf("put after abort: %v", err)
		}
		if l := mustList(t, store); !l.empty() {
			t.Errorf("it left %+v", l)
		}
	})
}

// lateStore lets a Put of the manifest take effect, but only after its caller
// was told that it failed.
type lateStore struct {
	storage.Store
	arrive func() error
}

func (s *lateStore) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	if !strings.HasSuffix(key, manifestName) {
		return s.Store.Put(ctx, key, body, o)
	}
	data, err := io.ReadAll(body)
	s.arrive = func() error {
		_, err := s.Store.Put(context.WithoutCancel(ctx), key, bytes.NewReader(data), o)
		return err
	}
	return storage.Object{}, errors.Join(err, storage.ErrUnreachable)
}

// Parts outlive a commit that may yet come to pass.
func TestAbortAfterAnUncertainCommit(t *testing.T) {
	repo, memory := newRepository(t)
	late := &lateStore{Store: memory}
	repo.store = late
	d := begin(t, repo, DraftOptions{})
	if _, err := d.Put(t.Context(), db(), put([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), facts); !errors.Is(err, storage.ErrUnreachable) {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), facts); err == nil {
		t.Fatal("committed again, with another time")
	}
	if err := errors.Join(d.Abort(t.Context()), late.arrive()); err != nil {
		t.Fatal(err)
	}
	l := mustList(t, memory)
	if len(l.Backups) != 1 || len(l.Damaged) != 0 {
		t.Fatalf("%+v", l)
	}
	mustLoad(t, repo, l.Backups[0], Identities{}, contents{"db": []byte("data")})
}

func TestCommitIgnoresThatItsContextEnded(t *testing.T) {
	repo, store := newRepository(t)
	ctx, cancel := context.WithCancel(t.Context())
	d := begin(t, repo, DraftOptions{})
	if _, err := d.Put(ctx, db(), put([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	repo.store = cancelling{store, cancel}
	if _, err := d.Commit(ctx, facts); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Fatal("the context goes on")
	}
}

// cancelling ends a context once the manifest was put.
type cancelling struct {
	storage.Store
	cancel func()
}

func (c cancelling) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	obj, err := c.Store.Put(ctx, key, body, o)
	c.cancel()
	if err == nil {
		err = ctx.Err()
	}
	return obj, err
}

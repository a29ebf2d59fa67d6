package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// readPart reads a part to its end.
func readPart(t testing.TB, b *Backup, part string, ids Identities) ([]byte, error) {
	t.Helper()
	r, err := b.Open(t.Context(), part, ids)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err := r.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, again := r.Read(make([]byte, 1)); again == nil {
		t.Error("read after close")
	}
	return data, err
}

// Whatever is done to the stored bytes, they never come to an end that looks
// good, and CheckDigests says the same.
func TestDamagedParts(t *testing.T) {
	to, ids := newKey(t)
	data := noise(frameSize+100, 1)
	for name, to := range map[string]Recipients{"plain": {}, "encrypted": to} {
		t.Run(name, func(t *testing.T) {
			repo, store := newRepository(t)
			b := mustSave(t, repo, "prod", contents{"db": data}, DraftOptions{Recipients: to})
			key := b.key(b.Manifest.Parts[0].Object)
			good, err := readAll(t.Context(), store, key)
			if err != nil {
				t.Fatal(err)
			}
			mustFind := func(what string, bad []byte) {
				t.Helper()
				_ = store.Corrupt(key, func([]byte) []byte { return bad })
				mustBeFound(t, b, ids, key, what)
			}
			for at := 0; at < len(good); at += 1 + at/2 {
				for _, bit := range []byte{1, 0x80} {
					bad := bytes.Clone(good)
					bad[at] ^= bit
					mustFind(fmt.Sprintf("bit %x of byte %d", bit, at), bad)
				}
				mustFind(fmt.Sprintf("cut after %d", at), good[:at])
			}
			mustFind("a byte is missing", good[:len(good)-1])
			mustFind("a byte is added", append(bytes.Clone(good), 0))
			mustFind("it is twice", append(bytes.Clone(good), good...))
			_ = store.Delete(t.Context(), key)
			mustBeFound(t, b, ids, key, "it is gone")
		})
	}
}

func mustBeFound(t *testing.T, b *Backup, ids Identities, key, what string) {
	t.Helper()
	var damage *DamageError
	if _, err := readPart(t, b, "db", ids); !errors.As(err, &damage) || damage.Key != key || !strings.Contains(err.Error(), key) {
		t.Fatalf("%s: read: %v, want damage of %s", what, err, key)
	}
	found, err := b.repo.CheckDigests(t.Context(), b, nil)
	if err != nil || len(found) != 1 || !errors.As(found[0], &damage) || damage.Key != key {
		t.Fatalf("%s: check: %v, %v", what, found, err)
	}
	dir := t.TempDir()
	if err := b.repo.Load(t.Context(), b, dir, ids, LoadOptions{}); !errors.As(err, &damage) {
		t.Fatalf("%s: load: %v", what, err)
	}
	mustBeEmpty(t, dir)
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Fatalf("%s holds %v, %v", dir, entries, err)
	}
}

// replace stores other bytes for a backup's only part, and makes the manifest
// fit what is stored, but not what comes out of it.
func replace(t *testing.T, b *Backup, store *storagetest.Memory, stored []byte) {
	t.Helper()
	p := &b.Manifest.Parts[0]
	if err := store.Corrupt(b.key(p.Object), func([]byte) []byte { return stored }); err != nil {
		t.Fatal(err)
	}
	p.StoredSize, p.StoredSHA256 = int64(len(stored)), sum(stored)
}

func compress(t testing.TB, data []byte, o ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(data, nil)
}

func TestPartsThatAreStoredWellAndWrong(t *testing.T) {
	to, ids := newKey(t)
	var encrypted bytes.Buffer
	w, err := age.Encrypt(&encrypted, to.list...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(compress(t, []byte("data"))); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	bomb := make([]byte, 16<<20)
	for name, c := range map[string]struct {
		to     Recipients
		stored []byte
		want   string
	}{
		"other content":        {Recipients{}, compress(t, []byte("DATA")), "plain SHA-256"},
		"less":                 {Recipients{}, compress(t, []byte("dat")), "plain size 3, want 4"},
		"more":                 {Recipients{}, compress(t, []byte("data!")), "plain size over 4, want 4"},
		"a bomb":               {Recipients{}, compress(t, bomb), "plain size over 4, want 4"},
		"a window too large":   {Recipients{}, wideWindow(t), "does not decode"},
		"not compressed":       {Recipients{}, []byte("data"), "does not decode"},
		"rest after zstd":      {Recipients{}, append(compress(t, []byte("data")), "rest"...), "does not decode"},
		"a frame cut short":    {Recipients{}, compress(t, []byte("data"))[:8], "does not decode"},
		"rest after age":       {to, append(bytes.Clone(encrypted.Bytes()), 0), "does not decode"},
		"age cut short":        {to, encrypted.Bytes()[:encrypted.Len()-1], "does not decode"},
		"not encrypted at all": {to, compress(t, []byte("data")), "does not decode"},
	} {
		t.Run(name, func(t *testing.T) {
			repo, store := newRepository(t)
			b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{Recipients: c.to})
			replace(t, b, store, c.stored)
			_, err := readPart(t, b, "db", ids)
			var damage *DamageError
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want damage: %s", err, c.want)
			}
		})
	}
}

// wideWindow is a frame that needs a window larger than ours.
func wideWindow(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithWindowSize(4*maxWindow))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(make([]byte, 5*maxWindow)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A store that breaks off, or ends early, is no damage of the object.
func TestAStoreThatFailsIsNoDamage(t *testing.T) {
	to, ids := newKey(t)
	for _, to := range []Recipients{{}, to} {
		repo, store := newRepository(t)
		b := mustSave(t, repo, "prod", contents{"db": noise(frameSize, 1)}, DraftOptions{Recipients: to})
		stored := b.Manifest.Parts[0].StoredSize
		for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.Cut, storagetest.End} {
			for _, after := range []int64{0, 1, 100, 1000, stored / 2, stored - 1} {
				at := storagetest.At(1, storagetest.Fault{Kind: kind, After: after})
				repo.store = storagetest.NewFaulty(store, at)
				_, err := readPart(t, b, "db", ids)
				mustBeNoDamage(t, err, kind)
				repo.store = storagetest.NewFaulty(store, at)
				found, err := repo.CheckDigests(t.Context(), b, nil)
				if len(found) > 0 {
					t.Errorf("%s after %d: found %v", kind, after, found)
				}
				mustBeNoDamage(t, err, kind)
			}
		}
	}
}

func mustBeNoDamage(t *testing.T, err error, kind storagetest.Kind) {
	t.Helper()
	want := storagetest.ErrInjected
	if kind == storagetest.End {
		want = io.ErrUnexpectedEOF
	}
	var damage *DamageError
	if errors.As(err, &damage) || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", kind, err, want)
	}
}

func TestKeysThatDoNotOpen(t *testing.T) {
	to, ids := newKey(t)
	_, other := newKey(t)
	repo, store := newRepository(t)
	b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{Recipients: to})
	for name, c := range map[string]struct {
		ids  Identities
		want error
	}{"none": {Identities{}, ErrNoKey}, "wrong": {other, ErrWrongKey}} {
		_, err := b.Open(t.Context(), "db", c.ids)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), to.Names()[0]) {
			t.Errorf("%s: %v, want %v and the recipient", name, err, c.want)
		}
		if err := repo.Load(t.Context(), b, t.TempDir(), c.ids, LoadOptions{}); !errors.Is(err, c.want) {
			t.Errorf("%s: load: %v", name, err)
		}
	}
	// The header of age is damaged, so that the right key seems wrong.
	key := b.key(b.Manifest.Parts[0].Object)
	_ = store.Corrupt(key, func(b []byte) []byte { b[90] ^= 1; return b })
	var damage *DamageError
	if _, err := b.Open(t.Context(), "db", ids); errors.Is(err, ErrWrongKey) || !errors.As(err, &damage) {
		t.Errorf("damaged header: %v", err)
	}
}

func TestOpenOfAPartThatIsNotThere(t *testing.T) {
	repo, _ := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{})
	if _, err := b.Open(t.Context(), "other", Identities{}); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
	if err := repo.Load(t.Context(), b, t.TempDir(), Identities{}, LoadOptions{Parts: []string{"db", "other"}}); !errors.Is(err, ErrNotExist) {
		t.Error(err)
	}
}

// Readers that are closed early, or whose context ends, leave no goroutine:
// synctest fails on one.
func TestReadersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		repo, store := newRepository(t)
		b := mustSave(t, repo, "prod", contents{"db": noise(8*frameSize, 1)}, DraftOptions{})
		for _, n := range []int64{0, 1, frameSize} {
			r, err := b.Open(t.Context(), "db", Identities{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.CopyN(io.Discard, r, n); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		repo.store = storagetest.NewFaulty(store, storagetest.At(1, storagetest.Fault{Delay: time.Hour}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Open(ctx, "db", Identities{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if _, err := repo.CheckDigests(ctx, b, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestLoadChooses(t *testing.T) {
	repo, _ := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{})
	for name, c := range map[string]struct {
		o    LoadOptions
		want []string
	}{
		"all":        {LoadOptions{}, []string{"db", "include/etc/kubernetes/pki/ca.crt", "member/wal/0000000000000000-0000000000000000.wal"}},
		"roles":      {LoadOptions{Roles: []Role{RoleDB, RoleInclude}, Sync: true}, []string{"db", "include/etc/kubernetes/pki/ca.crt"}},
		"parts":      {LoadOptions{Parts: []string{"db"}}, []string{"db"}},
		"both":       {LoadOptions{Parts: []string{"db"}, Roles: []Role{RoleWAL}}, nil},
		"elsewhere":  {LoadOptions{Parts: []string{"db"}, Path: func(p Part) (string, error) { return "a/b/" + p.Name, nil }}, []string{"a/b/db"}},
		"and synced": {LoadOptions{Roles: []Role{RoleInclude}, Sync: true}, []string{"include/etc/kubernetes/pki/ca.crt"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var plain, total atomic.Int64
			c.o.Progress = func(done, of int64) { plain.Store(max(done, plain.Load())); total.Store(of) }
			if err := repo.Load(t.Context(), b, dir, Identities{}, c.o); err != nil {
				t.Fatal(err)
			}
			if got := filesBelow(t, dir); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			if plain.Load() != total.Load() {
				t.Errorf("progress ended at %d of %d", plain.Load(), total.Load())
			}
		})
	}
}

// filesBelow names the files below a folder.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLoadNeverWritesOverOrOutside(t *testing.T) {
	repo, _ := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{})
	outside := t.TempDir()
	for name, c := range map[string]struct {
		prepare func(dir string) error
		path    string
	}{
		"a file is there":     {func(dir string) error { return os.WriteFile(filepath.Join(dir, "db"), []byte("old"), 0o600) }, "db"},
		"a link leads out":    {func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "out")) }, "out/db"},
		"the path leads out":  {func(string) error { return nil }, "../db"},
		"the path is nothing": {func(string) error { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			before := filesBelow(t, dir)
			o := LoadOptions{Parts: []string{"db"}, Path: func(Part) (string, error) { return c.path, nil }}
			if err := repo.Load(t.Context(), b, dir, Identities{}, o); err == nil {
				t.Error("it loads")
			}
			if after := filesBelow(t, dir); !slices.Equal(before, after) {
				t.Errorf("%q, before %q", after, before)
			}
			mustBeEmpty(t, outside)
		})
	}
}

// brokenFile writes a few bytes and then fails.
type brokenFile struct{ left int }

func (b *brokenFile) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

// A full disk ends what is read, however long that would take, and no
// goroutine is left: synctest fails on one.
func TestCopyAhead(t *testing.T) {
	data := noise(3*aheadBuffer+5, 1)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := copyAhead(&out, bytes.NewReader(data), nil); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
		for _, want := range []error{io.ErrUnexpectedEOF, errBroken} {
			from := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(want))
			if err := copyAhead(io.Discard, from, func() {}); err != want {
				t.Errorf("%v, want %v", err, want)
			}
		}
		for _, left := range []int{0, aheadBuffer, 2 * aheadBuffer} {
			ctx, cancel := context.WithCancel(t.Context())
			from := io.MultiReader(bytes.NewReader(data), waiting{ctx})
			if err := copyAhead(&brokenFile{left}, from, cancel); err != errBroken {
				t.Errorf("after %d: %v", left, err)
			}
		}
	})
}

func TestAheadReads(t *testing.T) {
	data := noise(2*aheadBuffer+5, 1)
	a := newAhead(bytes.NewReader(data))
	defer a.stop()
	if err := iotest.TestReader(a, data); err != nil {
		t.Error(err)
	}
}

// waiting reads nothing until its context ends.
type waiting struct{ ctx context.Context }

func (w waiting) Read([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

func TestModes(t *testing.T) {
	repo, _ := newRepository(t)
	d := begin(t, repo, DraftOptions{})
	modes := map[string]FileMode{"a": 0, "b": 0o644, "c": 0o400, "d": 0o777}
	for name, mode := range modes {
		if _, err := d.Put(t.Context(), Part{Name: name, Role: RoleInclude, Mode: mode}, put([]byte(name))); err != nil {
			t.Fatal(err)
		}
	}
	b, err := d.Commit(t.Context(), facts)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := repo.Load(t.Context(), b, dir, Identities{}, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	modes["a"] = 0o600
	for name, want := range modes {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != want.Perm() {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want.Perm())
		}
	}
}

func TestCheckDigestsNamesAllDamage(t *testing.T) {
	repo, store := newRepository(t)
	b := mustSave(t, repo, "prod", sample, DraftOptions{})
	_ = store.Delete(t.Context(), b.key(b.Manifest.Parts[0].Object))
	_ = store.Corrupt(b.key(b.Manifest.Parts[2].Object), func(b []byte) []byte { b[3] ^= 4; return b })
	found, err := repo.CheckDigests(t.Context(), b, func(done, total int64) {
		if done > total {
			t.Errorf("%d of %d", done, total)
		}
	})
	if err != nil || len(found) != 2 || !strings.Contains(found[0].Error(), "it is gone") || !strings.Contains(found[1].Error(), "stored SHA-256") {
		t.Fatalf("%v, %v", found, err)
	}
}

// eachSave saves, with one fault after the other.
func eachSave(t *testing.T, fault storagetest.Fault, c contents, o DraftOptions, check func(store *storagetest.Faulty, inner storage.Store, b *Backup, err error)) {
	t.Helper()
	for store := range storagetest.Each(fault, func() storage.Store {
		_, store := newRepository(t)
		return store
	}) {
		b, err := func() (*Backup, error) {
			repo, err := Open(t.Context(), store)
			if err != nil {
				return nil, err
			}
			d, err := repo.Begin(t.Context(), "prod", o)
			if err != nil {
				return nil, err
			}
			for _, name := range []string{"db", "include/etc/kubernetes/pki/ca.crt"} {
				if _, err := d.Put(t.Context(), Part{Name: name, Role: c.role(name)}, put(c[name])); err != nil {
					return nil, errors.Join(err, d.Abort(t.Context()))
				}
			}
			b, err := d.Commit(t.Context(), facts)
			if err != nil {
				return nil, errors.Join(err, d.Abort(t.Context()))
			}
			return b, nil
		}()
		check(store, store.Inner(), b, err)
	}
}

// Each operation of a save fails in turn, in each way. What was reported done
// is there and whole; what was not is not listed as a backup unless it is.
func TestFaultsOfASave(t *testing.T) {
	to, ids := newKey(t)
	want := contents{"db": noise(1<<16, 3), "include/etc/kubernetes/pki/ca.crt": {}}
	for _, fault := range []storagetest.Fault{
		{Kind: storagetest.Fail}, {Kind: storagetest.Fail, After: 1000}, {Kind: storagetest.LoseAnswer}, {Kind: storagetest.Cut, After: 5},
		{Kind: storagetest.Repeat}, {Kind: storagetest.Crash}, {Kind: storagetest.CrashAfter},
	} {
		t.Run(fmt.Sprintf("%s %d", fault.Kind, fault.After), func(t *testing.T) {
			failed := 0
			eachSave(t, fault, want, DraftOptions{Recipients: to}, func(store *storagetest.Faulty, inner storage.Store, b *Backup, err error) {
				l := mustList(t, inner)
				if err != nil {
					failed++
				}
				if b != nil && len(l.Backups) != 1 {
					t.Errorf("%v: it is not there: %+v", store.Met(), l)
				}
				if len(l.Damaged)+len(l.Unknown) > 0 {
					t.Errorf("%v: damaged %v, unknown %v", store.Met(), l.Damaged, l.Unknown)
				}
				for _, b := range l.Backups {
					mustLoad(t, b.repo, b, ids, want)
				}
			})
			if failed == 0 && fault.Kind != storagetest.Repeat {
				t.Error("no fault surfaced")
			}
		})
	}
}

// Each operation of a load fails in turn: the error surfaces, and no file is
// left.
func TestFaultsOfALoad(t *testing.T) {
	to, ids := newKey(t)
	memory := storagetest.NewMemory()
	mustSave(t, initIn(t, memory), "prod", sample, DraftOptions{Recipients: to})
	for _, fault := range []storagetest.Fault{
		{Kind: storagetest.Fail}, {Kind: storagetest.Cut, After: 300}, {Kind: storagetest.End, After: 300}, {Kind: storagetest.LoseAnswer},
	} {
		t.Run(string(fault.Kind), func(t *testing.T) {
			for store := range storagetest.Each(fault, func() storage.Store { return memory }) {
				dir := t.TempDir()
				err := openAndLoad(t.Context(), store, dir, ids)
				if err != nil {
					mustBeEmpty(t, dir)
				} else if got := filesBelow(t, dir); len(got) != len(sample) {
					t.Errorf("%v: %q", store.Met(), got)
				}
				// Of what is shorter than 300 bytes nothing is cut off.
				if met := store.Met(); (err == nil) != (len(met) == 0) && fault.After == 0 {
					t.Errorf("%v: %v", met, err)
				}
			}
		})
	}
}

func openAndLoad(ctx context.Context, store storage.Store, dir string, ids Identities) error {
	repo, err := Open(ctx, store)
	if err != nil {
		return err
	}
	b, _, err := repo.Find(ctx, Selector{})
	if err != nil {
		return err
	}
	return repo.Load(ctx, b, dir, ids, LoadOptions{})
}

package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// ids of what a listing has, for comparison.
func (l *Listing) ids() string {
	var s []string
	for _, b := range l.Backups {
		s = append(s, b.Cluster()+" "+b.ID())
	}
	for _, u := range l.Unfinished {
		s = append(s, "unfinished "+u.Cluster+" "+u.ID)
	}
	return strings.Join(s, "\n")
}

// clockAt is a clock that stands still.
func clockAt(text string) func() time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return func() time.Time { return t }
}

func TestListHasAll(t *testing.T) {
	repo, store := newRepository(t)
	second := mustSave(t, repo, "prod", tiny, DraftOptions{Now: clockAt("2026-01-02T00:00:00Z")})
	first := mustSave(t, repo, "prod", tiny, DraftOptions{Now: clockAt("2026-01-01T00:00:00Z")})
	other := mustSave(t, repo, "prod-2", tiny, DraftOptions{Now: clockAt("2026-01-01T12:00:00Z")})
	dead := begin(t, repo, DraftOptions{Now: clockAt("2026-01-03T00:00:00Z")})
	if _, err := dead.Put(t.Context(), db(), put([]byte("data"))); err != nil {
		t.Fatal(err)
	}
	if err := repo.AddProof(t.Context(), first, Proof{Time: time.Now(), Level: Boot, Result: ResultPassed, Tool: "test"}); err != nil {
		t.Fatal(err)
	}
	unknown := []string{
		"clusters/prod/backups/" + first.ID() + "/notes.txt", "clusters/prod/backups/" + first.ID() + "/proofs/x/y.json",
		"clusters/prod/backups/latest/db.zst", "clusters/prod/other", "clusters/x", "readme.txt",
	}
	for _, key := range append(unknown, "clusters/prod/wal/1/a-b.wal.zst") {
		if _, err := store.Put(t.Context(), key, strings.NewReader("x"), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}

	l := mustList(t, store)
	want := "prod " + first.ID() + "\nprod-2 " + other.ID() + "\nprod " + second.ID() + "\nunfinished prod " + dead.ID()
	if l.ids() != want || len(l.Damaged) != 0 || !slices.Equal(l.Unknown, unknown) {
		t.Errorf("%s\ndamaged %v\nunknown %q\nwant %s", l.ids(), l.Damaged, l.Unknown, want)
	}
	if b := l.Backups[0]; b.Digest() != first.Digest() || len(b.Proofs) != 1 || b.Proven(Structure) == nil {
		t.Errorf("%+v", b)
	}
	u := l.Unfinished[0]
	if u.Size == 0 || u.Modified.IsZero() || u.Pruned || len(u.Keys) != 1 || !strings.HasSuffix(u.Keys[0], "/db.zst") {
		t.Errorf("%+v", u)
	}
	if l, err := repo.List(t.Context(), "prod-2"); err != nil || l.ids() != "prod-2 "+other.ID() || len(l.Unknown) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
	names, err := repo.Clusters(t.Context())
	if err != nil || !slices.Equal(names, []string{"prod", "prod-2"}) {
		t.Errorf("clusters %q, %v", names, err)
	}
	_, err = repo.List(t.Context(), "prd")
	if !errors.Is(err, ErrNotExist) || !strings.Contains(err.Error(), "there are prod, prod-2") {
		t.Errorf("a mistyped cluster: %v", err)
	}
}

// What is damaged is told by name, and the rest is listed.
func TestListNamesDamage(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, c := range map[string]struct {
		object  string
		spoil   func(t *testing.T, s *storagetest.Memory, key string)
		want    string
		backups int
		check   func(b *Backup) bool
	}{
		"manifest":           {"manifest.json", corrupt(flip), "manifest.json: ", 1, nil},
		"newer manifest":     {"manifest.json", corrupt(func([]byte) []byte { return resealText(kindManifest, `{"format":7}`) }), "format 7 is newer", 1, nil},
		"another's manifest": {"manifest.json", moveFromOther, "it says that it is of backup", 1, nil},
		"empty manifest":     {"manifest.json", corrupt(func([]byte) []byte { return nil }), "not a record", 1, nil},
		"proof":              {"proofs/", corrupt(flip), "proofs/", 2, func(b *Backup) bool { return len(b.Proofs) == 0 }},
		"another's proof":    {"proofs/", moveFromOther, "not a proof of this backup", 2, func(b *Backup) bool { return len(b.Proofs) == 0 }},
		"hold":               {"hold.json", corrupt(flip), "hold.json: ", 2, func(b *Backup) bool { return b.Hold != nil }},
		"another's hold":     {"hold.json", moveFromOther, "hold.json: not of this backup", 2, func(b *Backup) bool { return b.Hold != nil }},
		"mark":               {"pruned/", corrupt(flip), "pruned/", 2, func(b *Backup) bool { return b.Pruned != nil }},
		"part gone":          {"db.zst", remove, "db.zst: it is gone", 2, func(b *Backup) bool { return len(b.Damaged) == 1 }},
		"part cut":           {"db.zst", corrupt(func(b []byte) []byte { return b[1:] }), "db.zst: stored size", 2, func(b *Backup) bool { return len(b.Damaged) == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			repo, store := newRepository(t)
			var victim *Backup
			for range 2 {
				victim = mustSave(t, repo, "prod", tiny, DraftOptions{})
				if err := repo.AddProof(t.Context(), victim, Proof{Time: time.Now(), Level: Digest, Result: ResultPassed}); err != nil {
					t.Fatal(err)
				}
				putState(t, store, victim)
			}
			c.spoil(t, store, keyBelow(t, store, victim.key(c.object)))
			l := mustList(t, store)
			if len(l.Backups) != c.backups || len(l.Damaged) != 1 || len(l.Unknown) != 0 || len(l.Unfinished) != 0 {
				t.Fatalf("%s\ndamaged %v", l.ids(), l.Damaged)
			}
			d := l.Damaged[0]
			if !strings.HasPrefix(d.Key, victim.key(c.object)) || d.ID != victim.ID() || d.Cluster != "prod" || !strings.Contains(d.Err.Error(), c.want) {
				t.Errorf("%+v, want %q", d, c.want)
			}
			for _, b := range l.Backups {
				if b.ID() == victim.ID() && !c.check(b) {
					t.Errorf("%+v", b)
				}
			}
		})
	}
}

// putState puts a hold and a mark.
func putState(t *testing.T, store storage.Store, b *Backup) {
	t.Helper()
	h := Hold{Format: Format, Cluster: b.Cluster(), ID: b.ID()}
	m := PruneMark{Format: Format, Cluster: b.Cluster(), ID: b.ID()}
	err := errors.Join(putRecord(t.Context(), store, b.key(holdName), kindHold, h),
		putRecord(t.Context(), store, b.key(prunedDir+"x.json"), kindPruned, m))
	if err != nil {
		t.Fatal(err)
	}
}

// keyBelow is the only key that begins with prefix.
func keyBelow(t *testing.T, store storage.Store, prefix string) string {
	t.Helper()
	var keys []string
	for o, err := range store.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if len(keys) != 1 {
		t.Fatalf("%s: %q", prefix, keys)
	}
	return keys[0]
}

func corrupt(change func([]byte) []byte) func(*testing.T, *storagetest.Memory, string) {
	return func(_ *testing.T, s *storagetest.Memory, key string) { _ = s.Corrupt(key, change) }
}

func remove(t *testing.T, s *storagetest.Memory, key string) { _ = s.Delete(t.Context(), key) }

// moveFromOther replaces an object by the like of another backup.
func moveFromOther(t *testing.T, s *storagetest.Memory, key string) {
	p := strings.SplitN(key, "/", 5)
	name, _, _ := strings.Cut(p[4], "/")
	for o := range s.List(t.Context(), backupsPrefix("prod")) {
		if strings.Contains(o.Key, "/"+name) && !strings.Contains(o.Key, p[3]) {
			data, _ := readAll(t.Context(), s, o.Key)
			_ = s.Corrupt(key, func([]byte) []byte { return data })
		}
	}
}

func TestListTellsAStoreThatFails(t *testing.T) {
	memory := storagetest.NewMemory()
	repo := initIn(t, memory)
	b := mustSave(t, repo, "prod", tiny, DraftOptions{})
	if err := repo.AddProof(t.Context(), b, Proof{Time: time.Now(), Level: Digest, Result: ResultPassed}); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []storagetest.Fault{
		{Kind: storagetest.Fail, Err: storage.ErrUnreachable},
		{Kind: storagetest.Fail, Err: storage.ErrDenied}, {Kind: storagetest.Cut, After: 2}, {Kind: storagetest.End, After: 2},
	} {
		for store := range storagetest.Each(fault, func() storage.Store { return memory }) {
			repo.store = store
			l, err := repo.List(t.Context(), "")
			switch {
			case len(store.Met()) == 0 && (err != nil || len(l.Backups) != 1):
				t.Errorf("%+v, %v", l, err)
			case len(store.Met()) == 0:
			case errors.Is(fault.Err, storage.ErrUnreachable) && !errors.Is(err, storage.ErrUnreachable):
				t.Errorf("%v: %+v, %v", store.Met(), l, err)
			case err == nil && len(l.Damaged) == 0:
				t.Errorf("%v: nothing is damaged: %+v", store.Met(), l)
			}
		}
	}
}

// A backup that is pruned while it is listed is no damage.
func TestListDuringAPrune(t *testing.T) {
	memory := storagetest.NewMemory()
	repo := initIn(t, memory)
	keep := mustSave(t, repo, "prod", tiny, DraftOptions{})
	gone := mustSave(t, repo, "prod", tiny, DraftOptions{})
	if err := repo.AddProof(t.Context(), gone, Proof{Time: time.Now(), Level: Digest, Result: ResultPassed}); err != nil {
		t.Fatal(err)
	}
	putState(t, memory, gone)
	for n := range 12 {
		store := storagetest.NewMemory()
		for o := range memory.List(t.Context(), "") {
			data, _ := readAll(t.Context(), memory, o.Key)
			_, _ = store.Put(t.Context(), o.Key, strings.NewReader(string(data)), storage.PutOptions{})
		}
		// Before its nth read, the listing loses all of the backup.
		var reads atomic.Int64
		repo.store = hooked{store, func() {
			if reads.Add(1) == int64(n+1) {
				_ = store.Delete(t.Context(), gone.key(manifestName))
				for o := range store.List(t.Context(), gone.key("")) {
					_ = store.Delete(t.Context(), o.Key)
				}
			}
		}}
		l, err := repo.List(t.Context(), "prod")
		if err != nil || len(l.Damaged) != 0 {
			t.Fatalf("before read %d: %v, %v", n, l, err)
		}
		if !slices.ContainsFunc(l.Backups, func(b *Backup) bool { return b.ID() == keep.ID() }) {
			t.Errorf("before read %d: %s", n, l.ids())
		}
	}
}

// hooked calls before each read.
type hooked struct {
	storage.Store
	before func()
}

func (h hooked) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	h.before()
	return h.Store.Get(ctx, key, r)
}

func (h hooked) Stat(ctx context.Context, key string) (storage.Object, error) {
	h.before()
	return h.Store.Stat(ctx, key)
}

// countingStore counts reads at once.
type countingStore struct {
	storage.Store
	now, most, all atomic.Int64
}

func (s *countingStore) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	s.all.Add(1)
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	runtime.Gosched()
	return s.Store.Get(ctx, key, r)
}

func TestListOfThousands(t *testing.T) {
	const n = 5000
	repo, memory := newRepository(t)
	fillWith(t, memory, n)
	store := &countingStore{Store: memory}
	repo.store = store
	before := heap()
	l, err := repo.List(t.Context(), "")
	if err != nil || len(l.Backups) != n || len(l.Damaged)+len(l.Unfinished)+len(l.Unknown) > 0 {
		t.Fatalf("%d backups, %v, %v", len(l.Backups), l.Damaged, err)
	}
	if store.most.Load() > readers || store.all.Load() != n {
		t.Errorf("%d reads, %d at once", store.all.Load(), store.most.Load())
	}
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("the listing takes %d MiB", grown>>20)
	}
	runtime.KeepAlive(l)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillWith puts the manifests and parts of n backups.
func fillWith(t testing.TB, store *storagetest.Memory, n int) {
	t.Helper()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		at := start.Add(time.Duration(i) * time.Minute)
		m := Manifest{
			Format: Format, ID: newID(at), Cluster: "prod", Kind: Live, Started: at, Finished: at.Add(time.Second), Compression: compressionZstd,
			Parts: []Part{{Name: "db", Object: "db.zst", Role: RoleDB, Size: 1, StoredSize: 1, SHA256: sum(nil), StoredSHA256: sum(nil)}},
		}
		err := putRecord(t.Context(), store, backupPrefix(m.Cluster, m.ID)+manifestName, kindManifest, m)
		if err == nil {
			_, err = store.Put(t.Context(), backupPrefix(m.Cluster, m.ID)+"db.zst", strings.NewReader("x"), storage.PutOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestManifestsThatCannotBe(t *testing.T) {
	repo, store := newRepository(t)
	b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{})
	for name, change := range map[string]func(*Manifest){
		"kind":                func(m *Manifest) { m.Kind = "other" },
		"start":               func(m *Manifest) { m.Started = m.Started.Add(-time.Minute) },
		"end":                 func(m *Manifest) { m.Finished = m.Started.Add(-1) },
		"compression":         func(m *Manifest) { m.Compression = "gzip" },
		"encryption":          func(m *Manifest) { m.Encryption = "gpg" },
		"no recipients":       func(m *Manifest) { m.Encryption = encryptionAge },
		"label":               func(m *Manifest) { m.Labels = map[string]string{"a b": "c"} },
		"path of a part":      func(m *Manifest) { m.Parts[0].Name = "../../etc/passwd" },
		"absolute path":       func(m *Manifest) { m.Parts[0].Name = "/etc/passwd" },
		"role":                func(m *Manifest) { m.Parts[0].Role = "x" },
		"object elsewhere":    func(m *Manifest) { m.Parts[0].Object = "../x/db.zst" },
		"object is a record":  func(m *Manifest) { m.Parts[0].Object = manifestName },
		"negative size":       func(m *Manifest) { m.Parts[0].Size = -1 },
		"nothing stored":      func(m *Manifest) { m.Parts[0].StoredSize = 0 },
		"digest":              func(m *Manifest) { m.Parts[0].SHA256 = strings.ToUpper(m.Parts[0].SHA256) },
		"mode":                func(m *Manifest) { m.Parts[0].Mode = 0o4755 },
		"the same part twice": func(m *Manifest) { m.Parts = append(m.Parts, m.Parts[0]) },
		"one object for two":  func(m *Manifest) { m.Parts = append(m.Parts, m.Parts[0]); m.Parts[1].Name = "other" },
		"a file and a folder": func(m *Manifest) {
			m.Parts = append(m.Parts, m.Parts[0])
			m.Parts[1].Name, m.Parts[1].Object = "db/x", "x.zst"
		},
		"the id of another":    func(m *Manifest) { m.ID = m.ID[:len(m.ID)-6] + "zzzzzz" },
		"the name of another":  func(m *Manifest) { m.Cluster = "other" },
		"no id":                func(m *Manifest) { m.ID = "" },
		"a date that is not":   func(m *Manifest) { m.ID = "20261332" + m.ID[8:] },
		"a cluster that isn't": func(m *Manifest) { m.Cluster = "../prod" },
	} {
		t.Run(name, func(t *testing.T) {
			m := b.Manifest
			m.Parts, m.Labels = slices.Clone(m.Parts), maps.Clone(m.Labels)
			change(&m)
			sealed := reseal(t, kindManifest, m)
			_ = store.Corrupt(b.key(manifestName), func([]byte) []byte { return sealed })
			l := mustList(t, store)
			var damage *DamageError
			if len(l.Backups) != 0 || len(l.Damaged) != 1 || !errors.As(l.Damaged[0].Err, &damage) {
				t.Errorf("%s, damaged %v", l.ids(), l.Damaged)
			}
		})
	}
}

func TestProofsAtOnce(t *testing.T) {
	repo, store := newRepository(t)
	b := mustSave(t, repo, "prod", contents{"db": []byte("data")}, DraftOptions{})
	at := time.Date(2026, 5, 6, 7, 8, 9, 10, time.UTC)
	for i := range 20 {
		level := levels[i%len(levels)]
		if err := repo.AddProof(t.Context(), b, Proof{Time: at.Add(-time.Duration(i) * time.Hour), Level: level, Result: ResultPassed}); err != nil {
			t.Fatal(err)
		}
		again := *b
		again.Proofs = nil
		if err := repo.AddProof(t.Context(), &again, Proof{Time: at, Level: level, Result: ResultUnproven}); err != nil {
			t.Fatal(err)
		}
	}
	l := mustList(t, store)
	if len(l.Backups) != 1 || len(l.Backups[0].Proofs) != 40 || len(l.Damaged) > 0 {
		t.Fatalf("%+v", l)
	}
	if !slices.IsSortedFunc(l.Backups[0].Proofs, func(a, b Proof) int { return a.Time.Compare(b.Time) }) {
		t.Error("they are out of order")
	}
}

func TestProven(t *testing.T) {
	at := func(level Level, result Result) Proof {
		return Proof{Level: level, Result: result, Tool: fmt.Sprint(level, " ", result)}
	}
	for name, c := range map[string]struct {
		proofs                  []Proof
		digest, structure, boot bool
	}{
		"none":                 {nil, false, false, false},
		"digest":               {[]Proof{at(Digest, ResultPassed)}, true, false, false},
		"boot":                 {[]Proof{at(Boot, ResultPassed)}, true, true, true},
		"boot, then digest":    {[]Proof{at(Boot, ResultPassed), at(Digest, ResultPassed)}, true, true, true},
		"could not run":        {[]Proof{at(Digest, ResultPassed), at(Boot, ResultUnproven)}, true, false, false},
		"damaged since":        {[]Proof{at(Boot, ResultPassed), at(Digest, ResultDamaged)}, false, false, false},
		"damaged before":       {[]Proof{at(Digest, ResultDamaged), at(Structure, ResultPassed)}, true, true, false},
		"passed, damaged, not": {[]Proof{at(Boot, ResultPassed), at(Digest, ResultDamaged), at(Digest, ResultPassed)}, true, false, false},
	} {
		b := &Backup{Proofs: c.proofs}
		got := []bool{b.Proven(Digest) != nil, b.Proven(Structure) != nil, b.Proven(Boot) != nil}
		if want := []bool{c.digest, c.structure, c.boot}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

package save

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/restore"
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

// load brings a backup back into a folder.
func load(t testing.TB, repo *repository.Repository, b *repository.Backup) string {
	t.Helper()
	dir := t.TempDir()
	if err := repo.Load(t.Context(), b, dir, repository.Identities{}, repository.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func inspect(t testing.TB, path string) *datadir.Dir {
	t.Helper()
	dir, err := datadir.Inspect(t.Context(), path, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

// mustBeEmpty fails if the store holds anything but the repository's own record.
func mustBeEmpty(t testing.TB, repo *repository.Repository) {
	t.Helper()
	for o, err := range repo.Store().List(t.Context(), "clusters/") {
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("left behind: %s", o.Key)
	}
}

func TestFilesComeBackAsTheyWere(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			source := fixture.DataDir(t, name)
			repo := newRepository(t)
			b, err := Files(t.Context(), repo, "c", source, FilesOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got := load(t, repo, b)
			compareDirs(t, source, got)
			checkFacts(t, inspect(t, source), b.Manifest)
			checkRestorable(t, got, b.Manifest.V2)
		})
	}
}

// compareDirs makes sure that a start would find the same in both, byte for byte.
func compareDirs(t *testing.T, source, got string) {
	t.Helper()
	want, have := inspect(t, source), inspect(t, got)
	if have.IDs != want.IDs || describe(have.Log) != describe(want.Log) || have.Facts != want.Facts {
		t.Errorf("inspected\n%s\n%+v\nwant\n%s\n%+v", describe(have.Log), have.Facts, describe(want.Log), want.Facts)
	}
	names, err := filepath.Glob(filepath.Join(got, "member/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		rel, _ := filepath.Rel(got, path)
		a, b := read(t, path), read(t, filepath.Join(source, rel))
		switch {
		case filepath.Ext(path) == ".wal" && bytes.HasPrefix(b, a) && len(bytes.Trim(b[len(a):], "\x00")) == 0:
		case !bytes.Equal(a, b):
			t.Errorf("%s differs", rel)
		}
	}
	if (have.Base == nil) != (want.Base == nil) || have.Base != nil && filepath.Base(have.Base.Path) != filepath.Base(want.Base.Path) {
		t.Errorf("base %v, want %v", have.Base, want.Base)
	}
}

// describe spells out what the summary of a log points to.
func describe(l datadir.Log) string {
	marks := fmt.Sprintf("%+v %+v", deref(l.Mark), deref(l.Raised))
	l.Mark, l.Raised = nil, nil
	return fmt.Sprintf("%+v %s", l, marks)
}

func deref(s *walcodec.Snapshot) string {
	if s == nil || s.ConfState == nil {
		return fmt.Sprintf("%+v", s)
	}
	return fmt.Sprintf("%d %d %+v", s.Index, s.Term, *s.ConfState)
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkFacts compares the manifest with what the source says.
func checkFacts(t *testing.T, d *datadir.Dir, m repository.Manifest) {
	t.Helper()
	if m.Kind != repository.Files || m.ClusterID != formatID(d.IDs.ClusterID) || m.MemberID != formatID(d.IDs.NodeID) {
		t.Errorf("manifest of %s: cluster %s, member %s", m.Kind, m.ClusterID, m.MemberID)
	}
	if m.RaftIndex != d.Log.Last || m.RaftTerm != d.Log.LastTerm {
		t.Errorf("raft term %d index %d, want %d and %d", m.RaftTerm, m.RaftIndex, d.Log.LastTerm, d.Log.Last)
	}
	if len(m.Members) != len(d.PeerURLs) || m.MemberName == "" {
		t.Errorf("members %+v of name %q, want %d", m.Members, m.MemberName, len(d.PeerURLs))
	}
	if d.Backend == nil {
		if m.HashKV != nil || m.Keys != nil || !m.V2 {
			t.Errorf("v3 facts without a backend: %+v", m)
		}
		return
	}
	f, err := os.Open(d.Backend.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	db, err := snapcodec.OpenDB(f, d.Backend.Size, snapcodec.DBOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hash, err := db.HashKV(0)
	if err != nil {
		t.Fatal(err)
	}
	if m.HashKV == nil || *m.HashKV != hash.Hash || m.HashRevision != hash.CurrentRevision || m.Revision != hash.CurrentRevision ||
		m.Keys == nil || *m.Keys == 0 || m.V2 != (d.Facts.V2Data != "") {
		t.Errorf("facts %+v, want %+v", m, hash)
	}
}

// checkRestorable hands the loaded folder to what restores it.
func checkRestorable(t *testing.T, dir string, v2 bool) {
	t.Helper()
	if v2 {
		plan, err := backup.NewPlan(inspect(t, dir), backup.Options{Dir: filepath.Join(t.TempDir(), "out")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := plan.Apply(t.Context(), func(int64) {}); err != nil {
			t.Fatal(err)
		}
		return
	}
	src, err := restore.Open(t.Context(), dir, restore.OpenOptions{AssumeStopped: true})
	if err != nil {
		t.Fatal(err)
	}
	src.Close()
}

// A torn last write is left out, and told.
func TestFilesLeaveATornTailOut(t *testing.T) {
	source := dataDir(t, "2.3.7")
	segment := onlySegment(t, source)
	data := read(t, segment)
	whole := len(bytes.TrimRight(data, "\x00"))
	if err := os.WriteFile(segment, data[:whole-3], 0o600); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t)
	b, err := Files(t.Context(), repo, "c", source, FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Manifest.Notes) != 1 || !strings.Contains(b.Manifest.Notes[0], "cut short") {
		t.Errorf("notes %q", b.Manifest.Notes)
	}
	got := load(t, repo, b)
	if torn := inspect(t, got).Torn; torn != nil {
		t.Errorf("the backup is torn: %v", torn)
	}
	if part := read(t, onlySegment(t, got)); !bytes.HasPrefix(data, part) || len(part) >= whole-3 {
		t.Errorf("%d bytes of %d were kept", len(part), whole-3)
	}
}

func onlySegment(t testing.TB, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "member/wal/*.wal"))
	if err != nil || len(names) != 1 {
		t.Fatalf("segments %v (%v), want one", names, err)
	}
	return names[0]
}

// Damage is refused by file and offset, and nothing is left in the store.
func TestFilesRefuseDamage(t *testing.T) {
	for _, c := range []struct {
		name, fixture, file string
		damage              func(t *testing.T, path string)
		want                string
	}{
		{"a flipped byte in the log", "3.5.33", "member/wal/*.wal", flip(3000), "offset "},
		{"a flipped byte in the backend", "3.5.33", "member/snap/db", flip(3*4096 + 8), "member/snap/db"},
		{"a backend cut short", "3.4.23-mixed", "member/snap/db", cut(16384), "member/snap/db"},
		{"no backend", "3.4.23-mixed", "member/snap/db", remove, "member/snap/db is missing"},
		{"no log", "2.3.7", "member/wal", removeAll, "no WAL folder"},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := dataDir(t, c.fixture)
			paths, err := filepath.Glob(filepath.Join(source, c.file))
			if err != nil || len(paths) != 1 {
				t.Fatalf("%s: %v (%v)", c.file, paths, err)
			}
			c.damage(t, paths[0])
			repo := newRepository(t)
			_, err = Files(t.Context(), repo, "c", source, FilesOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), source) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			mustBeEmpty(t, repo)
		})
	}
}

func flip(offset int64) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		data := read(t, path)
		data[offset] ^= 0x55
		write(t, path, data)
	}
}

func cut(size int64) func(*testing.T, string) {
	return func(t *testing.T, path string) { write(t, path, read(t, path)[:size]) }
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t *testing.T, path string) {
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// A log whose start was purged needs a snapshot.
func TestFilesRefuseALogWithoutAStart(t *testing.T) {
	source := t.TempDir()
	for _, name := range []string{"member/wal", "member/snap"} {
		if err := os.MkdirAll(filepath.Join(source, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	log, err := walcodec.NewLogWriter(folder(filepath.Join(source, "member/wal")),
		walcodec.Metadata{NodeID: 1, ClusterID: 2}, walcodec.LogWriterOptions{Seq: 3, Index: 100})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.WriteEntry(walcodec.Entry{Term: 1, Index: 100}), log.Close()); err != nil {
		t.Fatal(err)
	}
	for _, snap := range []string{"with a snap folder", "without"} {
		_, err := Files(t.Context(), newRepository(t), "c", source, FilesOptions{})
		if err == nil || !strings.Contains(err.Error(), "the log starts at index 100, and no snapshot leads up to it") &&
			!strings.Contains(err.Error(), "the log starts at index 100 and no usable snapshot leads up to it") {
			t.Errorf("%s: error %v", snap, err)
		}
		removeAll(t, filepath.Join(source, "member/snap"))
	}
}

// What is no data dir is refused by what it is.
func TestFilesRefuseWhatIsNoDataDir(t *testing.T) {
	source := dataDir(t, "2.3.7")
	for path, want := range map[string]string{
		filepath.Join(source, "member/wal"):  "it is a WAL dir",
		filepath.Join(source, "member/snap"): "it is a snap dir",
		t.TempDir():                          "holds no etcd data",
		filepath.Join(source, "nowhere"):     "no such file",
	} {
		_, err := Files(t.Context(), newRepository(t), "c", path, FilesOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

// Segments may be elsewhere, and a member folder may be given itself.
func TestFilesOfOtherLayouts(t *testing.T) {
	source := dataDir(t, "3.4.23-mixed")
	elsewhere := filepath.Join(t.TempDir(), "wal")
	if err := os.Rename(filepath.Join(source, "member/wal"), elsewhere); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t)
	b, err := Files(t.Context(), repo, "c", source, FilesOptions{WALDir: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	checkRestorable(t, load(t, repo, b), true)
	member := filepath.Join(dataDir(t, "2.3.7"), "member")
	if b, err = Files(t.Context(), repo, "d", member, FilesOptions{}); err != nil {
		t.Fatal(err)
	}
	checkRestorable(t, load(t, repo, b), true)
}

// A part that can't be stored leaves nothing, whichever it is.
func TestFilesLeaveNothingWhenTheStoreFails(t *testing.T) {
	source := dataDir(t, "3.4.23-mixed")
	full := errors.New("disk full")
	for n := 1; ; n++ {
		if n > 50 {
			t.Fatal("it never succeeds")
		}
		repo := newRepository(t)
		store := &failing{Memory: repo.Store().(*storagetest.Memory), left: n, err: full}
		faulty, err := repository.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Files(t.Context(), faulty, "c", source, FilesOptions{})
		if err == nil {
			if n < 4 {
				t.Errorf("succeeded although put %d failed", n)
			}
			load(t, repo, b)
			return
		}
		if !errors.Is(err, full) {
			t.Errorf("put %d: error %v", n, err)
		}
		if strings.Contains(err.Error(), "commit") {
			mustBeUnfinished(t, repo) // the manifest may arrive yet
		} else {
			mustBeEmpty(t, repo)
		}
	}
}

// mustBeUnfinished fails if the repository lists a backup, or lists nothing.
func mustBeUnfinished(t *testing.T, repo *repository.Repository) {
	t.Helper()
	list, err := repo.List(t.Context(), "c")
	if err != nil || len(list.Backups) != 0 || len(list.Unfinished) != 1 {
		t.Errorf("listed %+v (%v)", list, err)
	}
}

// A save that is cancelled ends and leaves nothing.
func TestFilesCancelled(t *testing.T) {
	source := dataDir(t, "3.5.33")
	ctx, cancel := context.WithCancel(t.Context())
	repo := newRepository(t)
	o := FilesOptions{Options: Options{Progress: func(int64) { cancel() }}}
	if _, err := Files(ctx, repo, "c", source, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	mustBeEmpty(t, repo)
}

func TestFilesIncludeFiles(t *testing.T) {
	source := dataDir(t, "2.3.7")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), []byte("CA"))
	if err := os.MkdirAll(filepath.Join(dir, "..data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "..data/tls.key"), []byte("KEY"))
	if err := os.Chmod(filepath.Join(dir, "ca.crt"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data/tls.key", filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	repo := newRepository(t)
	o := FilesOptions{Options: Options{Include: []string{dir, filepath.Join(dir, "ca.crt")}}}
	b, err := Files(t.Context(), repo, "c", source, o)
	if err != nil {
		t.Fatal(err)
	}
	got := load(t, repo, b)
	for name, want := range map[string]string{"ca.crt": "CA", "tls.key": "KEY", "..data/tls.key": "KEY"} {
		if data := read(t, filepath.Join(got, "include", dir, name)); string(data) != want {
			t.Errorf("%s: %q, want %q", name, data, want)
		}
	}
	part, err := b.Part("include" + dir + "/ca.crt")
	if err != nil || part.Mode != 0o644 || part.Role != repository.RoleInclude {
		t.Errorf("part %+v (%v)", part, err)
	}
}

func TestIncludesThatCantBeTaken(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.MkdirAll(filepath.Join(loop, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(loop, "a/up")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"):  "no such file",
		filepath.Join(dir, "dangling"): "no such file",
		filepath.Join(dir, "empty"):    "holds no files",
		os.DevNull:                     "neither a file nor a folder",
		loop:                           "a link to a folder that it lies in",
	} {
		if _, err := findIncludes([]string{path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
}

// The name, and what is odd against the backups before.
func TestFilesAgainstTheNewest(t *testing.T) {
	repo := newRepository(t)
	one, other := dataDir(t, "2.3.7"), dataDir(t, "3.5.33")
	b, err := Files(t.Context(), repo, "", one, FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if b.Cluster() != b.Manifest.ClusterID {
		t.Errorf("kept under %q, want the id %s", b.Cluster(), b.Manifest.ClusterID)
	}
	var warnings []string
	o := FilesOptions{Options: Options{Warn: func(s string) { warnings = append(warnings, s) }}}
	for _, source := range []string{one, one, other} {
		if _, err := Files(t.Context(), repo, "c", source, o); err != nil {
			t.Fatal(err)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "cluster id") {
		t.Errorf("warnings %q, want one of another cluster id", warnings)
	}
}

func TestPlaintextAfterEncryption(t *testing.T) {
	repo := newRepository(t)
	source := dataDir(t, "2.3.7")
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := repository.ReadRecipients(repository.RecipientOptions{Keys: []string{identity.Recipient().String()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Files(t.Context(), repo, "c", source, FilesOptions{Options: Options{Recipients: to}}); err != nil {
		t.Fatal(err)
	}
	if _, err := Files(t.Context(), repo, "c", source, FilesOptions{}); !errors.Is(err, ErrPlaintext) {
		t.Errorf("error %v, want ErrPlaintext", err)
	}
	if _, err := Files(t.Context(), repo, "c", source, FilesOptions{Options: Options{Plaintext: true}}); err != nil {
		t.Error(err)
	}
}

// folder makes segments in a folder.
type folder string

func (f folder) CreateSegment(name string) (io.WriteCloser, error) {
	return os.Create(filepath.Join(string(f), name))
}

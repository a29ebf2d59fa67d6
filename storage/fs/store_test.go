package fs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// reopened is a store that another handle can be had of.
type reopened struct{ *Store }

func (r reopened) Reopen(t *testing.T) storage.Store { return openStore(t, r.dir) }

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newStore(t testing.TB) *Store {
	t.Helper()
	return openStore(t, t.TempDir())
}

func TestStore(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store { return reopened{newStore(t)} })
}

// noLinks makes a file system of one that has hard links that has none.
func noLinks(op atomicfile.Op, _ string) error {
	if op == opLink {
		return unix.EPERM
	}
	return nil
}

func TestStoreWithoutHardLinks(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Store {
		s := newStore(t)
		s.sys.Before = noLinks
		return reopened{s}
	})
}

var create = storage.PutOptions{CreateOnly: true}

func put(s *Store, key, data string, o storage.PutOptions) error {
	_, err := s.Put(context.Background(), key, strings.NewReader(data), o)
	return err
}

func mustPut(t testing.TB, s *Store, key, data string) {
	t.Helper()
	if err := put(s, key, data, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

func get(s *Store, key string) (string, error) {
	body, err := s.Get(context.Background(), key, storage.Range{})
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	return string(data), err
}

func list(s *Store, prefix string) (keys []string, err error) {
	for obj, err := range s.List(context.Background(), prefix) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, obj.Key)
	}
	return keys, nil
}

// wantFiles checks all that lies below a directory, but for itself.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if p != dir {
			rel, _ := filepath.Rel(dir, p)
			names = append(names, rel)
		}
		return err
	})
	if err != nil || !slices.Equal(names, want) {
		t.Errorf("files %q, %v; want %q", names, err, want)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		filepath.Join(dir, "absent"): "is its file system mounted?",
		filepath.Join(file, "below"): "not a directory",
		file:                         "not a directory",
		pipe:                         "not a directory",
		"":                           "no such directory",
	} {
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open %q: %v, want %q", name, err, want)
		}
	}
	wantFiles(t, dir, "file", "pipe")
	if _, err := Create(filepath.Join(file, "below")); err == nil {
		t.Error("a directory was made below a file")
	}
	if _, err := Create(file); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("create where a file is: %v", err)
	}
}

func TestCreate(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 2 {
		s, err := Create("a/b/../c")
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, "k", "text")
		s.Close()
	}
	wantFiles(t, ".", "a", "a/c", "a/c/k")
	for _, name := range []string{"a", "a/c"} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestModes(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/b/c", "text")
	for name, want := range map[string]fs.FileMode{"a": 0o700, "a/b": 0o700, "a/b/c": 0o600} {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// Each operation of a Put or Delete fails in turn: the error surfaces, what was
// there stays or is what was to come, and no temporary file is left.
func TestEveryFaultOfTheFileSystem(t *testing.T) {
	errInjected := errors.New("injected")
	large := strings.Repeat("new text", 1<<18)
	tests := []struct {
		name string
		do   func(s *Store) error
		want map[string][]string // of each key
	}{
		{"create", func(s *Store) error { return put(s, "x/y/new", large, create) }, map[string][]string{"a/old": {"old"}, "x/y/new": {"", large}}},
		{"replace", func(s *Store) error { return put(s, "a/old", large, storage.PutOptions{}) }, map[string][]string{"a/old": {"old", large}}},
		{"delete", func(s *Store) error { return s.Delete(context.Background(), "a/old") }, map[string][]string{"a/old": {"old", ""}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for n := int64(1); ; n++ {
				s := newStore(t)
				mustPut(t, s, "a/old", "old")
				s.sys = atomicfile.FailAt(n, errInjected)
				err := test.do(s)
				s.sys = atomicfile.System{}
				wantOneOf(t, s, test.want)
				if err == nil {
					if n < 3 {
						t.Fatalf("only %d operations can fail", n-1)
					}
					return
				}
				if !errors.Is(err, errInjected) {
					t.Fatalf("fault %d: %v", n, err)
				}
			}
		})
	}
}

// wantOneOf checks that each key holds one of the texts, "" for none, and that
// there is nothing else.
func wantOneOf(t *testing.T, s *Store, want map[string][]string) {
	t.Helper()
	var files []string
	for key, texts := range want {
		got, err := get(s, key)
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			t.Error(err)
		}
		if !slices.Contains(texts, got) {
			t.Errorf("%s holds %d bytes", key, len(got))
		}
		if err == nil {
			files = append(files, key)
		}
	}
	slices.Sort(files)
	for i := 0; i < len(files); i++ { // the folders too
		if folder := filepath.Dir(files[i]); folder != "." && !slices.Contains(files, folder) {
			files = append(files, folder)
		}
	}
	slices.Sort(files)
	wantFiles(t, s.dir, files...)
}

// What is durable depends on the order of the steps: the file before its name,
// its name and its folders before the answer.
func TestOrderOfOperations(t *testing.T) {
	s := newStore(t)
	var steps []string
	s.sys.Before = func(op atomicfile.Op, name string) error {
		key, _, isTemp := strings.Cut(name, tempMark)
		if isTemp {
			key += "~"
		}
		steps = append(steps, string(op)+" "+key)
		return nil
	}
	want := func(what, order string) {
		t.Helper()
		if got := strings.Join(steps, ", "); got != order {
			t.Errorf("%s: %s, want %s", what, got, order)
		}
		steps = nil
	}
	if err := put(s, "a/b/c", "text", create); err != nil {
		t.Fatal(err)
	}
	want("create", "mkdir a/b, create a/b/c~, write a/b/c~, sync a/b/c~, link a/b/c, sync a/b, sync a, sync .")
	mustPut(t, s, "a/b/c", "text")
	want("replace", "mkdir a/b, create a/b/c~, write a/b/c~, sync a/b/c~, rename a/b/c, sync a/b, sync a, sync .")
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	want("delete", "remove a/b/c, sync .")
}

// A folder that somebody else removes before it could be synced is no error.
func TestDeleteWhileItsFolderIsRemoved(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/b/c", "text")
	mustPut(t, s, "a/b/d", "text")
	other := openStore(t, s.dir)
	s.sys.Before = func(op atomicfile.Op, name string) error {
		if op == atomicfile.OpSync && name == "a/b" {
			return other.Delete(context.Background(), "a/b/d")
		}
		return nil
	}
	if err := s.Delete(t.Context(), "a/b/c"); err != nil {
		t.Error(err)
	}
	wantFiles(t, s.dir)
}

func TestErrorsNameTheirCause(t *testing.T) {
	tests := []struct {
		name  string
		fault map[atomicfile.Op]error
		is    error
		text  string
	}{
		{"full disk", map[atomicfile.Op]error{atomicfile.OpWrite: unix.ENOSPC}, unix.ENOSPC, "no space left on device"},
		{"quota", map[atomicfile.Op]error{atomicfile.OpSync: unix.EDQUOT}, unix.EDQUOT, "quota"},
		{"read only", map[atomicfile.Op]error{atomicfile.OpMkdir: unix.EROFS}, storage.ErrDenied, "read-only file system"},
		{"denied", map[atomicfile.Op]error{atomicfile.OpCreate: unix.EACCES}, storage.ErrDenied, "permission denied"},
		{"stale mount", map[atomicfile.Op]error{atomicfile.OpSync: unix.ESTALE}, storage.ErrUnreachable, "stale"},
		{"no way to create", map[atomicfile.Op]error{opLink: unix.EPERM, atomicfile.OpRename: unix.EINVAL}, unix.EINVAL, "invalid argument"},
		{"denied after all", map[atomicfile.Op]error{opLink: unix.EPERM, atomicfile.OpRename: unix.EPERM}, storage.ErrDenied, "not permitted"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			s.sys.Before = func(op atomicfile.Op, _ string) error { return test.fault[op] }
			err := put(s, "a/b", "text", create)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), s.dir) || !strings.Contains(err.Error(), "a/b") {
				t.Errorf("%v, want %v and %q", err, test.is, test.text)
			}
			wantFiles(t, s.dir)
		})
	}
}

// The error of a body says nothing about the store.
func TestErrorOfABodyIsNotTheStores(t *testing.T) {
	s := newStore(t)
	for _, cause := range []error{fs.ErrPermission, fs.ErrNotExist} {
		_, err := s.Put(t.Context(), "a", errReader{cause}, create)
		if !errors.Is(err, cause) || errors.Is(err, storage.ErrDenied) || errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestObjectsAndFoldersOfOneName(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a", "text")
	mustPut(t, s, "b/c", "text")
	for _, o := range []storage.PutOptions{{}, create} {
		for _, key := range []string{"a/b", "a/b/c", "b"} {
			if err := put(s, key, "text", o); err == nil || errors.Is(err, storage.ErrExist) || !strings.Contains(err.Error(), "can't hold both") {
				t.Errorf("put %s: %v", key, err)
			}
		}
	}
	wantFiles(t, s.dir, "a", "b", "b/c")
}

func TestAnEmptyFolderGivesWay(t *testing.T) {
	for _, o := range []storage.PutOptions{{}, create} {
		s := newStore(t)
		if err := os.MkdirAll(filepath.Join(s.dir, "a/b"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := put(s, "a/b", "text", o); err != nil {
			t.Error(err)
		}
		wantFiles(t, s.dir, "a", "a/b")
	}
}

func TestForeignThings(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/b", "text")
	for _, name := range []string{"no key", "a/backup~", "~lifeboat-", "x~lifeboat-short"} {
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := list(s, "")
	if want := []string{"a/b", "a/backup~", "no key", "x~lifeboat-short", "~lifeboat-"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("list: %q, %v; want %q", keys, err, want)
	}
	if n, err := s.Sweep(t.Context(), "", time.Now().Add(time.Hour)); n != 0 || err != nil {
		t.Errorf("sweep: %d, %v", n, err)
	}
}

// What NFS keeps of a file that was removed while open is nobody's object.
func TestLeftoversOfNFS(t *testing.T) {
	s := newStore(t)
	const name = ".nfs00000000012c4f1a00000003"
	mustPut(t, s, "a/b", "text")
	if err := os.WriteFile(filepath.Join(s.dir, "a", name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, err := list(s, ""); err != nil || !slices.Equal(keys, []string{"a/b"}) {
		t.Errorf("list: %q, %v", keys, err)
	}
	if err := put(s, "b/"+name, "text", create); err == nil {
		t.Error("an object was stored that no list shows")
	}
	mustPut(t, s, "b/.nfs", "text")
}

func TestSpecialFiles(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a", "text")
	if err := errors.Join(os.Symlink("a", filepath.Join(s.dir, "link")), unix.Mkfifo(filepath.Join(s.dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"link": "symbolic link", "pipe": "neither a file"} {
		_, get := get(s, key)
		_, stat := s.Stat(t.Context(), key)
		_, list := list(s, key)
		for name, err := range map[string]error{"get": get, "stat": stat, "list": list, "put": put(s, key, "x", create), "delete": s.Delete(t.Context(), key)} {
			if err == nil || errors.Is(err, storage.ErrExist) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s of a %s: %v, want %q", name, key, err, want)
			}
		}
	}
	wantFiles(t, s.dir, "a", "link", "pipe")
}

func TestARemovedDirectoryIsNotEmpty(t *testing.T) {
	s := newStore(t)
	if err := os.Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	_, get := get(s, "a")
	_, below := list(s, "a/b/")
	_, list := list(s, "")
	_, sweep := s.Sweep(t.Context(), "", time.Now())
	for name, err := range map[string]error{"get": get, "list": list, "list below": below, "put": put(s, "a/b", "x", create), "delete": s.Delete(t.Context(), "a"), "sweep": sweep} {
		if !errors.Is(err, storage.ErrUnreachable) {
			t.Errorf("%s: %v, want ErrUnreachable", name, err)
		}
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the directory was made again")
	}
}

func TestDeleteRemovesEmptyFolders(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"a/b/c/d", "a/x"} {
		mustPut(t, s, key, "text")
	}
	if err := s.Delete(t.Context(), "a/b/c/d"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s.dir, "a", "a/x")
	if err := s.Delete(t.Context(), "a/x"); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s.dir)
}

// A Put into a folder that a Delete finds empty at this moment still succeeds.
func TestPutWhileItsFolderIsRemoved(t *testing.T) {
	s := newStore(t)
	fails := 50
	s.sys.Before = func(op atomicfile.Op, _ string) error {
		if op == atomicfile.OpCreate && fails > 0 {
			fails--
			s.removeEmptyFolders("a/b")
		}
		return nil
	}
	if err := put(s, "a/b/c", "text", create); err != nil || fails > 0 {
		t.Errorf("%v, %d times to go", err, fails)
	}
	wantFiles(t, s.dir, "a", "a/b", "a/b/c")
}

func TestSweep(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/keep", "text")
	dead := []string{"a/gone" + tempMark + "ABCDEFGHIJKLMNOP", "a/b/c/gone" + tempMark + "ABCDEFGHIJKLMNOP", "b/gone" + tempMark + "ABCDEFGHIJKLMNOP"}
	for _, name := range dead {
		path := filepath.Join(s.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	live, err := s.createTemp("a/live")
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := list(s, ""); err != nil || !slices.Equal(keys, []string{"a/keep"}) {
		t.Errorf("list: %q, %v", keys, err)
	}
	wantSwept := func(prefix string, before time.Time, want int) {
		t.Helper()
		if n, err := openStore(t, s.dir).Sweep(t.Context(), prefix, before); n != want || err != nil {
			t.Errorf("sweep of %q: %d, %v; want %d", prefix, n, err, want)
		}
	}
	later := time.Now().Add(time.Hour)
	wantSwept("", time.Now().Add(-time.Hour), 0)
	wantSwept("b/x", later, 0)
	wantSwept("b/go", later, 1)
	wantSwept("a", later, 2)
	wantFiles(t, s.dir, "a", "a/keep", live.name)
	live.discard()
	wantFiles(t, s.dir, "a", "a/keep")
}

// A temporary file that a sweep takes before its writer could lock it is made
// anew.
func TestPutAfterItsFileWasSwept(t *testing.T) {
	s := newStore(t)
	other := openStore(t, s.dir)
	for tries := 1; tries < 4; tries++ {
		temp, err := s.tryTemp("a/b")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(other.removeFile(temp.name), temp.file.Close()); err != nil {
			t.Fatal(err)
		}
		if temp.file, err = os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
		if err := temp.lock(); !errors.Is(err, errSwept) {
			t.Errorf("%v, want errSwept", err)
		}
		temp.discard()
	}
	if err := put(s, "a/b", "text", create); err != nil {
		t.Error(err)
	}
}

// A file server may carry out a link whose answer is lost, and refuse it when
// asked again.
func TestCreateWhoseAnswerWasLost(t *testing.T) {
	s := newStore(t)
	s.sys.Before = func(op atomicfile.Op, key string) error {
		if op != opLink {
			return nil
		}
		temps, err := filepath.Glob(filepath.Join(s.dir, key+tempMark+"*"))
		if err != nil || len(temps) != 1 {
			t.Fatal(temps, err)
		}
		return os.Link(temps[0], filepath.Join(s.dir, key))
	}
	if err := put(s, "a", "text", create); err != nil {
		t.Error(err)
	}
	if err := put(s, "a", "other", create); !errors.Is(err, storage.ErrExist) {
		t.Errorf("%v, want ErrExist", err)
	}
	if got, err := get(s, "a"); got != "text" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	wantFiles(t, s.dir, "a")
}

func TestDeniedDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything")
	}
	s := newStore(t)
	mustPut(t, s, "a/b", "text")
	if err := os.Chmod(filepath.Join(s.dir, "a"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(s.dir, "a"), 0o700) })
	_, get := get(s, "a/b")
	_, list := list(s, "")
	for name, err := range map[string]error{"get": get, "list": list, "put": put(s, "a/c", "x", create)} {
		if !errors.Is(err, storage.ErrDenied) {
			t.Errorf("%s: %v, want ErrDenied", name, err)
		}
	}
}

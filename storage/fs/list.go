package fs

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// List implements [storage.Store].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		fail := func(err error) bool {
			yield(storage.Object{}, s.failed("list", prefix, err))
			return false
		}
		if err := storage.CheckPrefix(prefix); err != nil {
			fail(err)
			return
		}
		s.walk(ctx, prefix, func(name string, info fs.FileInfo, err error) bool {
			if err != nil {
				return fail(err)
			}
			return isTemp(name) || ofNFS(name) || yield(describe(name, info), nil)
		})
	}
}

func isTemp(name string) bool {
	_, ok := tempKey(name)
	return ok
}

// visitFunc is shown a file by its name from the root. After an error nothing
// follows.
type visitFunc func(name string, info fs.FileInfo, err error) (goOn bool)

// walk shows the files whose names begin with prefix, in byte order.
func (s *Store) walk(ctx context.Context, prefix string, visit visitFunc) {
	folder := path.Dir(prefix + "x") // the last part may be empty
	if s.notThere() == errGone {
		visit(folder, nil, errGone)
		return
	}
	(&walker{s, ctx, prefix, visit}).folder(folder)
}

type walker struct {
	store  *Store
	ctx    context.Context
	prefix string
	visit  visitFunc
}

// folder shows what is in a folder. One that is gone holds nothing.
func (w *walker) folder(folder string) (goOn bool) {
	entries, err := w.entries(folder)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return true
	}
	if err != nil {
		// Only root may look into what fsck found.
		return folder == "lost+found" && errors.Is(err, storage.ErrDenied) || w.visit(folder, nil, err)
	}
	for _, entry := range entries {
		if !w.entry(path.Join(folder, entry.Name()), entry) {
			return false
		}
	}
	return true
}

// entries reads a folder, sorted as the keys are that its entries are part of.
func (w *walker) entries(folder string) ([]fs.DirEntry, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := w.store.root.Open(folder)
	if err != nil {
		return nil, explain(err)
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, explain(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	return entries, nil
}

// sortName ends with the slash that follows a folder's name in a key: "a/b"
// comes after "a-" and "a.".
func sortName(entry fs.DirEntry) string {
	if entry.IsDir() {
		return entry.Name() + "/"
	}
	return entry.Name()
}

func (w *walker) entry(name string, entry fs.DirEntry) (goOn bool) {
	if err := w.ctx.Err(); err != nil {
		return w.visit(name, nil, err)
	}
	if entry.IsDir() {
		return !overlap(name+"/", w.prefix) || w.folder(name)
	}
	return !strings.HasPrefix(name, w.prefix) || w.show(name)
}

// overlap tells whether one of the two begins with the other.
func overlap(a, b string) bool {
	return strings.HasPrefix(a, b) || strings.HasPrefix(b, a)
}

// show passes on a file, unless it is gone or a folder now.
func (w *walker) show(name string) (goOn bool) {
	info, err := w.store.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return true
	case err != nil:
		return w.visit(name, nil, explain(err))
	case info.IsDir():
		return true
	case !info.Mode().IsRegular():
		return w.visit(name, nil, &fs.PathError{Op: "list", Path: name, Err: notAFile(info.Mode())})
	}
	return w.visit(name, info, nil)
}

package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// LoadOptions of a Load; the zero value loads all.
type LoadOptions struct {
	Roles    []Role                     // empty: all
	Parts    []string                   // names; empty: all
	Progress func(plain, total int64)   // bytes so far; called from several goroutines
	Path     func(Part) (string, error) // where below dir, with slashes; nil: the part's name
	Sync     bool                       // fsync files and folders before Load returns
}

// loaders is how many parts are loaded at once.
const loaders = 2

// Load writes parts as new files below dir, which must be there, and checks
// them as [Backup.Open] does. Files get the part's permissions, or 0600;
// folders 0700. After an error what it made is removed, as far as that works.
func (r *Repository) Load(ctx context.Context, b *Backup, dir string, ids Identities, o LoadOptions) error {
	l := &load{backup: b, ids: ids, o: o, progress: newProgress(o.Progress)}
	if err := l.run(ctx, dir); err != nil {
		return fmt.Errorf("load backup %s to %s: %w", b.ID(), dir, err)
	}
	return nil
}

type load struct {
	backup   *Backup
	ids      Identities
	o        LoadOptions
	progress *progress
	root     *os.Root

	mu   sync.Mutex
	made []string // files and folders, in the order in which they were made
}

func (l *load) run(ctx context.Context, dir string) (err error) {
	parts, err := l.choose()
	if err != nil {
		return err
	}
	for _, p := range parts {
		l.progress.total += p.Size
	}
	if l.root, err = os.OpenRoot(dir); err != nil {
		return err
	}
	defer l.root.Close()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(loaders)
	for _, p := range parts {
		g.Go(func() error { return l.part(gctx, p) })
	}
	if err = g.Wait(); err == nil && l.o.Sync {
		err = l.syncFolders()
	}
	if err != nil {
		l.undo()
	}
	return err
}

// choose returns the parts that are wanted. One that is named and not there is
// an error.
func (l *load) choose() ([]Part, error) {
	for _, name := range l.o.Parts {
		if _, err := l.backup.Part(name); err != nil {
			return nil, err
		}
	}
	var parts []Part
	for _, p := range l.backup.Manifest.Parts {
		if (len(l.o.Roles) == 0 || slices.Contains(l.o.Roles, p.Role)) &&
			(len(l.o.Parts) == 0 || slices.Contains(l.o.Parts, p.Name)) {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// part writes one part.
func (l *load) part(ctx context.Context, p Part) error {
	to := p.Name
	if l.o.Path != nil {
		var err error
		if to, err = l.o.Path(p); err != nil {
			return fmt.Errorf("part %s: %w", p.Name, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from, err := l.backup.open(ctx, p, l.ids)
	if err != nil {
		return fmt.Errorf("part %s: %w", p.Name, err)
	}
	err = l.write(filepath.FromSlash(to), p, from, cancel)
	if err := errors.Join(err, from.Close()); err != nil {
		return fmt.Errorf("part %s: %w", p.Name, err)
	}
	return nil
}

func (l *load) write(to string, p Part, from io.Reader, cancel func()) error {
	f, err := l.create(to)
	if err != nil {
		return err
	}
	early := &atomicfile.File{File: f} // sets the disk to work before it must
	err = copyAhead(early, l.progress.reader(from), cancel)
	if mode := p.Mode.Perm(); err == nil && mode != 0 {
		err = f.Chmod(mode)
	}
	if err == nil && l.o.Sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// create makes a new file and the folders that it needs.
func (l *load) create(to string) (*os.File, error) {
	if !filepath.IsLocal(to) {
		return nil, fmt.Errorf("%q leads out of the folder", to)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeFolder(filepath.Dir(to)); err != nil {
		return nil, err
	}
	f, err := l.root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		l.made = append(l.made, to)
	}
	return f, err
}

func (l *load) makeFolder(name string) error {
	if name == "." {
		return nil
	}
	if err := l.makeFolder(filepath.Dir(name)); err != nil {
		return err
	}
	err := l.root.Mkdir(name, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err == nil {
		l.made = append(l.made, name)
	}
	return err
}

// syncFolders makes the entries of all files durable.
func (l *load) syncFolders() error {
	folders := map[string]bool{".": true}
	for _, name := range l.made {
		folders[filepath.Dir(name)] = true
	}
	for name := range folders {
		d, err := l.root.Open(name)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// undo removes what was made, the newest first.
func (l *load) undo() {
	for _, name := range slices.Backward(l.made) {
		_ = l.root.Remove(name)
	}
}

// progress adds up what several goroutines do.
type progress struct {
	done  atomic.Int64
	total int64
	tell  func(done, total int64)
}

func newProgress(tell func(done, total int64)) *progress {
	return &progress{tell: tell}
}

func (p *progress) add(n int) {
	if done := p.done.Add(int64(n)); p.tell != nil {
		p.tell(done, p.total)
	}
}

// reader counts what is read.
func (p *progress) reader(r io.Reader) io.Reader { return &progressReader{r, p} }

type progressReader struct {
	r        io.Reader
	progress *progress
}

// Read implements io.Reader.
func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.progress.add(n)
	return n, err
}

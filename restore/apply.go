package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

const (
	backendName = "member/snap/db"
	walName     = "member/wal"
)

// Apply writes the data dirs of all targets, whole, or none of them, and calls
// progress with the bytes of each part.
func (p *Plan) Apply(ctx context.Context, progress func(int64)) (Result, error) {
	if err := p.Source.checkStopped(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dirs, err := p.open(ctx)
	defer dirs.abort()
	if err != nil {
		return Result{}, err
	}
	var keys snapcodec.HashKV
	var group errgroup.Group
	group.Go(func() error {
		err := p.Source.verify(p.Options.Hash)
		if err == nil && p.hashSource() {
			keys, err = p.Source.DB.HashKV(0)
		}
		if err != nil {
			cancel()
		}
		return err
	})
	group.Go(func() error { return p.writeAll(dirs, progress) })
	if err := group.Wait(); err != nil {
		return Result{}, err
	}
	if err := p.Source.checkUnchanged(); err != nil {
		return Result{}, err
	}
	if err := p.takeOver(dirs, progress); err != nil {
		return Result{}, err
	}
	result, err := p.finishAll(dirs, keys)
	if err != nil {
		return Result{}, err
	}
	return result, dirs.commit()
}

// Result tells what was written.
type Result struct {
	Keys snapcodec.HashKV // of all copies, if they were to be compared
}

// hashSource tells whether the copies will have the keys of the source.
func (p *Plan) hashSource() bool { return p.Options.CompareKeys && p.Options.Bump == 0 }

// takeOver makes the source's own file the backend of the last member, if the
// source is to be used up. Nobody needs the source after that.
func (p *Plan) takeOver(dirs allDirs, progress func(int64)) error {
	if !p.Options.UseUp {
		return nil
	}
	last := dirs[len(dirs)-1]
	f, err := last.data.TakeOver(backendName, p.Source.file, progress)
	if err != nil {
		return fmt.Errorf("member %s: %w", p.Targets[len(dirs)-1].Name, err)
	}
	last.backend = f
	return f.Truncate(p.Source.Size)
}

// finishAll makes each copy its member's, and compares their keys with each
// other and with the source's.
func (p *Plan) finishAll(dirs allDirs, source snapcodec.HashKV) (Result, error) {
	var result Result
	for i, t := range p.Targets {
		if err := p.edit(dirs[i]); err != nil {
			return result, fmt.Errorf("member %s: %w", t.Name, err)
		}
	}
	if p.Options.CompareKeys {
		var err error
		if result.Keys, err = p.compareKeys(dirs, source); err != nil {
			return result, err
		}
	}
	for i, t := range p.Targets {
		if err := dirs[i].finish(); err != nil {
			return result, fmt.Errorf("member %s: %w", t.Name, err)
		}
	}
	return result, nil
}

// compareKeys hashes the keys of all copies, which must be the same, and the
// source's unless its revision was raised.
func (p *Plan) compareKeys(dirs allDirs, source snapcodec.HashKV) (snapcodec.HashKV, error) {
	want, err := hashKeys(dirs[0].backend)
	if err != nil {
		return want, err
	}
	for i, d := range dirs[1:] {
		if got, err := hashKeys(d.backend); err != nil || got != want {
			return want, errors.Join(fmt.Errorf("the copy for member %s has hash %d at revision %d, that for %s has %d at %d",
				p.Targets[i+1].Name, got.Hash, got.HashRevision, p.Targets[0].Name, want.Hash, want.HashRevision), err)
		}
	}
	if p.hashSource() && source != want {
		return want, fmt.Errorf("the copies have hash %d at revision %d, the source has %d at %d",
			want.Hash, want.HashRevision, source.Hash, source.HashRevision)
	}
	return want, nil
}

func hashKeys(f *atomicfile.File) (snapcodec.HashKV, error) {
	info, err := f.Stat()
	if err != nil {
		return snapcodec.HashKV{}, err
	}
	db, err := snapcodec.OpenDB(f, info.Size(), snapcodec.DBOptions{Name: f.Name()})
	if err != nil {
		return snapcodec.HashKV{}, err
	}
	return db.HashKV(0)
}

// writeAll writes all that can be written before the source is proved.
func (p *Plan) writeAll(dirs allDirs, progress func(int64)) error {
	for i, t := range p.Targets {
		member, err := p.Cluster.Member(t.Name)
		if err != nil {
			return err
		}
		w := memberWriter{plan: p, member: member, dirs: dirs[i]}
		if err := errors.Join(w.writeLog(), w.writeSnapshot()); err != nil {
			return fmt.Errorf("member %s: %w", t.Name, err)
		}
		if p.Options.UseUp && i == len(p.Targets)-1 {
			return nil
		}
		if err := w.copyBackend(progress); err != nil {
			return fmt.Errorf("member %s: %w", t.Name, err)
		}
	}
	return nil
}

// memberWriter writes the files of one member.
type memberWriter struct {
	plan   *Plan
	member snapcodec.Member
	dirs   *dirs
}

// copyBackend copies the file as it is, without the SHA-256. It stays open.
func (w *memberWriter) copyBackend(progress func(int64)) error {
	f, err := w.dirs.data.Copy(backendName, w.plan.Source.file, progress)
	if err != nil {
		return err
	}
	w.dirs.backend = f
	return f.Truncate(w.plan.Source.Size)
}

// edit makes the copy of the backend the new member's.
func (p *Plan) edit(d *dirs) error {
	if err := addFreelist(d.backend, p.Source.DB); err != nil {
		return err
	}
	return p.editBackend(d.backend.Name())
}

// dirs are the folders of one member in the making.
type dirs struct {
	data    *atomicfile.Dir
	wal     *atomicfile.Dir  // where the segments have a place outside of data
	walPath string           // of the segments below data, if wal is nil
	backend *atomicfile.File // until it is finished
}

func (d *dirs) createSegment(name string) (io.WriteCloser, error) {
	if d.wal != nil {
		return d.wal.Create(name)
	}
	return d.data.Create(filepath.Join(d.walPath, name))
}

func (p *Plan) open(ctx context.Context) (allDirs, error) {
	sys := endingWith(ctx, p.Options.System)
	var all allDirs
	for _, t := range p.Targets {
		d := &dirs{walPath: walName}
		all = append(all, d)
		if err := d.open(t, atomicfile.Options{System: sys, Among: p.Options.Among, Replace: p.Options.Replace, Owner: p.ownerOf(t)}); err != nil {
			return all, err
		}
	}
	return all, nil
}

// ownerOf decides whom a member's files will belong to. Only root may give
// files away, so for others nothing is decided unless it was asked for.
func (p *Plan) ownerOf(t Target) *atomicfile.Owner {
	if p.Options.Owner != nil || os.Geteuid() != 0 {
		return p.Options.Owner
	}
	models := []string{t.Dir}
	if p.Source.Kind == KindDataDir {
		models = append(models, p.Source.Path)
	}
	for _, model := range models {
		if owner, err := atomicfile.OwnerOf(model); err == nil {
			return &owner
		}
	}
	return nil
}

// endingWith makes the writes fail once the context has ended.
func endingWith(ctx context.Context, sys atomicfile.System) atomicfile.System {
	before := sys.Before
	sys.Before = func(op atomicfile.Op, path string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if before == nil {
			return nil
		}
		return before(op, path)
	}
	return sys
}

// CheckTargets tells beforehand whether a restore would refuse the targets for
// what they hold, and changes nothing. The error wraps [atomicfile.ErrExists]
// where that is so.
func CheckTargets(targets []Target, o Options) error {
	options := atomicfile.Options{Among: o.Among, Replace: o.Replace}
	for _, t := range targets {
		if err := atomicfile.CheckDir(t.Dir, dataOptions(options)); err != nil {
			return err
		}
		inside, err := below(t.Dir, t.WALDir)
		if err != nil {
			return err
		}
		if t.WALDir == "" || inside != "" {
			continue
		}
		if err := atomicfile.CheckDir(t.WALDir, atomicfile.Options{Replace: o.Replace}); err != nil {
			return err
		}
	}
	return nil
}

// dataOptions are those of a data dir.
func dataOptions(o atomicfile.Options) atomicfile.Options {
	o.Entry = "member"
	return o
}

func (d *dirs) open(t Target, o atomicfile.Options) error {
	var err error
	if d.data, err = atomicfile.CreateDir(t.Dir, dataOptions(o)); err != nil {
		return err
	}
	o.Among = false
	if t.WALDir != "" {
		if err := d.placeLog(t, o); err != nil {
			return err
		}
	}
	if err := d.data.Mkdir("member/snap"); err != nil {
		return err
	}
	if d.wal != nil {
		return nil
	}
	return d.data.Mkdir(d.walPath)
}

// placeLog finds out whether the segments go inside the data dir.
func (d *dirs) placeLog(t Target, o atomicfile.Options) error {
	rel, err := below(t.Dir, t.WALDir)
	if err != nil {
		return err
	}
	if rel == "" {
		d.wal, err = atomicfile.CreateDir(t.WALDir, o)
		return err
	}
	if strings.HasPrefix(d.data.Path(), d.data.Target()+"/") && !strings.HasPrefix(rel, "member/") {
		return fmt.Errorf("%s: the data dir is a mount point: the WAL dir may be inside its member folder, or outside of it", t.WALDir)
	}
	d.walPath = rel
	return nil
}

// below is path relative to dir, empty if it is not inside.
func below(dir, path string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(dir, path)
	if err != nil || !filepath.IsLocal(rel) {
		return "", nil
	}
	return rel, nil
}

// finish makes the backend durable.
func (d *dirs) finish() error {
	f := d.backend
	d.backend = nil
	return f.Close()
}

// allDirs are the folders of all members.
type allDirs []*dirs

// commit publishes all of them together with the first data dir.
func (a allDirs) commit() error {
	var others []*atomicfile.Dir
	for i, d := range a {
		if i > 0 {
			others = append(others, d.data)
		}
		if d.wal != nil {
			others = append(others, d.wal)
		}
	}
	return a[0].data.Commit(others...)
}

func (a allDirs) abort() {
	for _, d := range a {
		d.abort()
	}
}

// abort removes what is not committed; what can't be removed, the next run
// for the same target will.
func (d *dirs) abort() {
	if d.backend != nil {
		d.backend.File.Close()
	}
	for _, dir := range []*atomicfile.Dir{d.data, d.wal} {
		if dir != nil {
			dir.Abort()
		}
	}
}

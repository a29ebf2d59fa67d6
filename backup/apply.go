package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Result tells what was written.
type Result struct {
	FirstIndex uint64 // of the entries; 0 if there are none
	LastIndex  uint64
	Commit     uint64
	Entries    int64
	Blanked    int64 // entries that a step changed
	WALBytes   int64
	Segments   int
}

// Size is about how many bytes Apply will write.
func (p *Plan) Size() int64 {
	size := p.Source.LogSize()
	if p.logAlone() {
		return size
	}
	if p.Source.Base != nil {
		size += p.Source.Base.Size
	}
	if p.Backend == BackendCopy && p.staged == nil {
		size += p.Source.Backend.Size
	}
	return size
}

// Apply writes the backup, whole or not at all, and calls progress with the
// bytes of each part. Its errors name the file that they are about; where an
// etcd was started meanwhile they match [datadir.ErrChanged].
func (p *Plan) Apply(ctx context.Context, progress func(int64)) (Result, error) {
	dirs, err := p.begin()
	if err != nil {
		return Result{}, err
	}
	defer dirs.abort()
	w := writer{plan: p, dirs: dirs, progress: progress}
	w.group, w.ctx = errgroup.WithContext(ctx)
	w.group.Go(w.writeLog)
	w.group.Go(w.writeSnapshot)
	w.group.Go(w.writeBackend)
	if err := w.group.Wait(); err != nil {
		return Result{}, err
	}
	return w.result, dirs.commit()
}

// begin takes the folders of a prepared plan, or opens them.
func (p *Plan) begin() (dirs, error) {
	switch {
	case p.staged != nil:
		return p.staged.dirs, nil
	case p.Backend == BackendCopy:
		if err := p.checkStopped(); err != nil {
			return dirs{}, err
		}
	}
	return p.open()
}

// dirs are the folders in the making. For the log alone, and where its
// segments have a place of their own, wal is set.
type dirs struct {
	data *atomicfile.Dir
	wal  *atomicfile.Dir
}

func (p *Plan) open() (dirs, error) {
	var d dirs
	var err error
	sys := p.Options.System
	if !p.logAlone() {
		if d.data, err = atomicfile.CreateDir(p.Options.Dir, atomicfile.Options{System: sys, Entry: "member"}); err != nil {
			return d, err
		}
	}
	if p.Options.WALDir != "" {
		if d.wal, err = atomicfile.CreateDir(p.Options.WALDir, atomicfile.Options{System: sys}); err != nil {
			return d, errors.Join(err, d.abort())
		}
	}
	if d.data == nil {
		return d, nil
	}
	for _, name := range []string{"member/snap", "member/wal"} {
		if name == "member/wal" && d.wal != nil {
			break
		}
		if err := d.data.Mkdir(name); err != nil {
			return d, errors.Join(err, d.abort())
		}
	}
	return d, nil
}

func (d dirs) commit() error {
	switch {
	case d.data == nil:
		return d.wal.Commit()
	case d.wal == nil:
		return d.data.Commit()
	default:
		return d.data.Commit(d.wal)
	}
}

func (d dirs) abort() error {
	var errs []error
	for _, dir := range []*atomicfile.Dir{d.data, d.wal} {
		if dir != nil {
			errs = append(errs, dir.Abort())
		}
	}
	return errors.Join(errs...)
}

// writer writes the parts of one backup, each in its own goroutine.
type writer struct {
	ctx      context.Context
	group    *errgroup.Group
	plan     *Plan
	dirs     dirs
	progress func(int64)
	result   Result
}

// CreateSegment makes a file for the log.
func (w *writer) CreateSegment(name string) (io.WriteCloser, error) {
	w.result.Segments++
	dir, path := w.dirs.wal, name
	if dir == nil {
		dir, path = w.dirs.data, filepath.Join("member/wal", name)
	}
	f, err := dir.Create(path)
	if err != nil {
		return nil, err
	}
	return segment{w.writeTo(f)}, nil
}

// segment is synced in the background once it is full.
type segment struct{ *counted }

func (s segment) Close() error {
	s.w.group.Go(s.File.Close)
	return nil
}

// writeLog copies the log from the base on.
func (w *writer) writeLog() error {
	log, err := w.plan.Source.OpenLog()
	if err != nil {
		return err
	}
	out, err := walcodec.NewLogWriter(w, w.plan.IDs, w.plan.logOptions(log.Segment()))
	if err != nil {
		return err
	}
	err = w.copyLog(out, log)
	w.result.WALBytes = out.Size()
	return errors.Join(err, out.Close())
}

func (w *writer) copyLog(out *walcodec.LogWriter, log *walcodec.Log) error {
	if w.plan.Source.Base != nil && !w.plan.logAlone() {
		if err := out.WriteSnapshot(walcodec.Snapshot{}); err != nil {
			return err
		}
	}
	copied, err := walcodec.Rewrite(out, log, w.plan.rewrite())
	if err != nil {
		return err
	}
	w.result.FirstIndex, w.result.LastIndex = copied.FirstIndex, copied.LastIndex
	w.result.Entries, w.result.Blanked = copied.Counts.Entry, copied.Replaced
	return w.closeLog(out, copied.HardState)
}

// closeLog appends what the plan adds at the end.
func (w *writer) closeLog(out *walcodec.LogWriter, last walcodec.HardState) error {
	state := w.plan.HardState()
	w.result.Commit = state.Commit
	if state != last && state.Commit > 0 {
		if err := out.WriteHardState(state); err != nil {
			return err
		}
	}
	if record := w.plan.record(); record != nil {
		return out.WriteSnapshot(*record)
	}
	return nil
}

// fromIndex is where to start reading: for the log alone, at its beginning.
func (p *Plan) fromIndex() uint64 {
	if p.logAlone() || p.Source.Base == nil {
		return 0
	}
	return p.Source.Base.Index
}

// logOptions starts the copy at segment 0, or where the source's log starts if
// that is copied alone. Framing is the source's, so that 2.x can read its own.
func (p *Plan) logOptions(first walcodec.Segment) walcodec.LogWriterOptions {
	o := walcodec.LogWriterOptions{}
	if p.fromIndex() == 0 {
		o.Seq, o.Index = first.Seq, first.Index
	}
	if !p.Source.Log.Padded {
		o.Framing = walcodec.FramingPlain
	}
	return o
}

// writeSnapshot copies the base snapshot.
func (w *writer) writeSnapshot() error {
	base := w.plan.Source.Base
	if base == nil || w.plan.logAlone() {
		return nil
	}
	src, err := w.plan.Source.OpenBase()
	if err != nil {
		return err
	}
	dst, err := w.dirs.data.Create(filepath.Join("member/snap", filepath.Base(base.Path)))
	if err != nil {
		return err
	}
	var edit snapcodec.Edit
	if version := newVersion; w.plan.takes(datadir.StepVersion) {
		edit.Version = &version
	}
	if members := w.plan.moveMembers(w.plan.Source.Members); w.plan.takes(datadir.StepPeerURL) {
		edit.Membership = &members
	}
	err = snapcodec.RewriteSnap(w.writeTo(dst), src, edit)
	return errors.Join(err, dst.Close())
}

// writeBackend copies or makes the v3 backend.
func (w *writer) writeBackend() error {
	switch w.plan.Backend {
	case BackendCopy:
		if w.plan.staged != nil {
			return w.plan.finishStaged()
		}
		return w.copyBackend()
	case BackendMake:
		return makeBackend(filepath.Join(w.dirs.data.Path(), backendName), w.plan.Index)
	default:
		return nil
	}
}

const backendName = "member/snap/db"

// copyBackend copies the file, and makes sure that nobody wrote it meanwhile.
func (w *writer) copyBackend() error {
	src, err := os.Open(w.plan.Source.Backend.Path)
	if err != nil {
		return err
	}
	defer src.Close()
	before, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := w.dirs.data.Create(backendName)
	if err != nil {
		return err
	}
	if err = dst.CopyFrom(src, w.progress); err == nil {
		err = w.sameIndex(dst.File)
	}
	if err := errors.Join(err, dst.Close()); err != nil {
		return err
	}
	after, err := src.Stat()
	if err != nil {
		return err
	}
	live, err := w.plan.Source.Files.Live()
	if err != nil {
		return err
	}
	if live == datadir.Running || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
		return w.started()
	}
	return w.plan.editBackend(dst.Name())
}

// sameIndex makes sure that nobody wrote the backend after it was inspected: the
// plan is made for the index that it had then, and the log may end there.
func (w *writer) sameIndex(copied *os.File) error {
	info, err := copied.Stat()
	if err != nil {
		return err
	}
	db, err := snapcodec.OpenDB(copied, info.Size(), snapcodec.DBOptions{Name: w.plan.Source.Backend.Path})
	if err != nil {
		return err
	}
	meta, err := db.Meta()
	if err == nil && meta.ConsistentIndex != w.plan.Source.Backend.ConsistentIndex {
		err = w.started()
	}
	return err
}

func (w *writer) started() error {
	return fmt.Errorf("%s: %w while it was copied: etcd was started on it", w.plan.Source.Backend.Path, datadir.ErrChanged)
}

// writeTo is where a part goes: it reports progress and ends with the context.
func (w *writer) writeTo(f *atomicfile.File) *counted { return &counted{File: f, w: w} }

type counted struct {
	*atomicfile.File
	w *writer
}

func (c *counted) Write(p []byte) (int, error) {
	if err := c.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.File.Write(p)
	c.w.progress(int64(n))
	return n, err
}

package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// FilesOptions of Files; the zero value works.
type FilesOptions struct {
	Options
	WALDir string // where the segments are, if not in the data dir
	// Scratch is where the copy of a running member's backend goes, which takes
	// as much room as the backend has; empty: TMPDIR.
	Scratch string
}

// Files saves a member's own files: the newest snapshot that its log covers,
// the log from there to its end, and the v3 backend. Loaded into a folder they
// are a data dir. An empty cluster is named by its id.
//
// The member may be stopped, dead or running. Of a running one the backend is
// copied as of one of its commits, and the log reaches at least as far as that.
// A torn last write is left out, and noted; damage is an error that names file
// and offset.
func Files(ctx context.Context, repo *repository.Repository, cluster, dataDir string, o FilesOptions) (*repository.Backup, error) {
	includes, err := findIncludes(o.Include)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		f := filesJob{job: job{Options: o.Options, repo: repo, cluster: cluster}, o: o, includes: includes}
		backup, err := f.run(ctx, dataDir)
		if err == nil {
			return backup, nil
		}
		if !errors.Is(err, errMoved) || try == maxMoved || sleep(ctx, movedPause<<try) != nil {
			return nil, fmt.Errorf("save %s: %w", dataDir, err)
		}
		f.info("%v: trying again", err)
	}
}

// A member that is started, stopped or made anew by a snapshot from its leader
// while it is read has changed a moment later no more.
const (
	maxMoved   = 4 // tries after the first
	movedPause = 100 * time.Millisecond
)

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// filesJob is one try.
type filesJob struct {
	job
	o        FilesOptions
	includes []include

	dir     *datadir.Dir
	log     *keeper
	report  *walcodec.Report
	snap    *os.File // the base; nil without one
	backend *backend // nil without one
}

func (f *filesJob) run(ctx context.Context, path string) (_ *repository.Backup, err error) {
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.inspect(ctx, path); err != nil {
		return nil, err
	}
	if err := f.begin(ctx, f.dir.IDs.ClusterID); err != nil {
		return nil, err
	}
	backup, err := f.save(ctx)
	if err != nil {
		return nil, errors.Join(err, f.abort(ctx))
	}
	return backup, nil
}

func (f *filesJob) save(ctx context.Context) (*repository.Backup, error) {
	if err := f.capture(ctx); err != nil {
		return nil, f.mayMove(err)
	}
	if err := f.store(ctx); err != nil {
		return nil, err
	}
	if err := f.unchanged(); err != nil {
		return nil, err
	}
	f.sumUp()
	return f.draft.Commit(ctx, f.facts)
}

func (f *filesJob) close() error {
	var errs []error
	if f.snap != nil {
		errs = append(errs, f.snap.Close())
	}
	if f.backend != nil {
		errs = append(errs, f.backend.close())
	}
	if f.log != nil {
		errs = append(errs, f.log.close())
	}
	if f.dir != nil {
		errs = append(errs, f.dir.Close())
	}
	return errors.Join(errs...)
}

func (f *filesJob) inspect(ctx context.Context, path string) error {
	files, err := datadir.Find(path, f.o.WALDir)
	if err != nil {
		return err
	}
	if l := files.Layout; l != datadir.LayoutMember && l != datadir.LayoutFlat {
		return fmt.Errorf("it is a %s: give the data dir that it belongs to", l)
	}
	live, err := files.Live()
	if err != nil {
		return err
	}
	f.dir, err = datadir.Inspect(ctx, path, datadir.Options{WALDir: f.o.WALDir})
	if err != nil && live != datadir.Stopped {
		return maybeMoved(err)
	}
	if err != nil {
		return err
	}
	return f.complete()
}

// complete refuses what no etcd could start from, for want of a part.
func (f *filesJob) complete() error {
	d := f.dir
	switch {
	case d.Base != nil && d.Backend == nil && d.Log.Padded:
		return fmt.Errorf("%s is missing: etcd 3 does not start from %s without it", filepath.Join(d.Snap, "db"), filepath.Base(d.Base.Path))
	case d.Base == nil && d.Log.First > 1:
		return fmt.Errorf("%s: the log starts at index %d, and no snapshot leads up to it", d.WAL, d.Log.First)
	}
	return nil
}

// baseIndex is where the log starts to matter.
func (f *filesJob) baseIndex() uint64 {
	if f.dir.Base == nil {
		return 0
	}
	return f.dir.Base.Index
}

// capture gets hold of everything, in an order that keeps a running member's
// files consistent: the log is opened before a purge can take it, then the
// backend is copied, then the log is read to where it ends by now.
func (f *filesJob) capture(ctx context.Context) error {
	f.log = newKeeper(f.dir.WAL)
	if _, err := f.log.hold(f.baseIndex()); err != nil {
		return err
	}
	var err error
	if f.dir.Base != nil {
		if f.snap, err = os.Open(f.dir.Base.Path); err != nil {
			return err
		}
	}
	if f.dir.Backend != nil {
		f.tellCopy()
		if f.backend, err = openBackend(ctx, f.dir, f.o.Scratch); err != nil {
			return err
		}
	}
	if f.report, err = f.log.verify(ctx, f.baseIndex()); err != nil {
		return err
	}
	return f.coherent()
}

// tellCopy says why the backend is copied first.
func (f *filesJob) tellCopy() {
	switch b := f.dir.Backend; f.dir.Live {
	case datadir.Running:
		f.info("etcd is running on it: copying %s first", b.Path)
	case datadir.LiveUnknown:
		f.info("this system can't tell whether etcd is running on it: copying %s first", b.Path)
	}
}

// coherent makes sure that snapshot, log and backend go together.
func (f *filesJob) coherent() error {
	base, r := f.baseIndex(), f.report
	for _, gap := range r.Gaps {
		if gap.Index > base+1 {
			return fmt.Errorf("%s: %w: entry %d is followed by entry %d", f.dir.WAL, errMoved, gap.After, gap.Index)
		}
	}
	if f.backend == nil {
		return nil
	}
	last, applied := max(r.LastIndex, base), f.backend.meta.ConsistentIndex
	if applied > last || applied < base {
		return fmt.Errorf("%s: %w: it has applied up to index %d, but snapshot and log reach from %d to %d",
			f.dir.Backend.Path, errMoved, applied, base, last)
	}
	return nil
}

// store puts all parts.
func (f *filesJob) store(ctx context.Context) error {
	f.total(f.size())
	if f.backend != nil {
		part := repository.Part{Name: "member/snap/db", Role: repository.RoleDB}
		if err := f.put(ctx, part, f.backend.copyTo); err != nil {
			return err
		}
	}
	if f.snap != nil {
		part := repository.Part{Name: "member/snap/" + filepath.Base(f.dir.Base.Path), Role: repository.RoleSnap}
		if err := f.put(ctx, part, f.copySnap); err != nil {
			return err
		}
	}
	if err := f.storeLog(ctx); err != nil {
		return err
	}
	return f.putIncludes(ctx, f.includes)
}

// size is how many bytes the parts have.
func (f *filesJob) size() int64 {
	n := f.report.Used + sizeOf(f.includes)
	if f.backend != nil {
		n += f.backend.info.Size()
	}
	if f.snap != nil {
		n += f.dir.Base.Size
	}
	return n
}

func (f *filesJob) copySnap(ctx context.Context, w io.Writer) error {
	n, err := io.Copy(w, &limited{ctx, io.NewSectionReader(f.snap, 0, f.dir.Base.Size)})
	if err == nil && n != f.dir.Base.Size {
		err = fmt.Errorf("%s: %w: it is shorter than it was", f.snap.Name(), errMoved)
	}
	return err
}

// storeLog puts the segments. A last one in which nothing is whole is left out.
func (f *filesJob) storeLog(ctx context.Context) error {
	for _, s := range f.report.Segments {
		if s.Used == 0 {
			continue
		}
		part := repository.Part{Name: "member/wal/" + s.Name, Role: repository.RoleWAL}
		if err := f.put(ctx, part, func(ctx context.Context, w io.Writer) error { return f.log.copySegment(ctx, s, w) }); err != nil {
			return err
		}
	}
	return nil
}

// unchanged makes sure that a member that was stopped still is.
func (f *filesJob) unchanged() error {
	if f.dir.Live != datadir.Stopped {
		return nil
	}
	live, err := f.dir.Files.Live()
	if err != nil {
		return err
	}
	if live != datadir.Stopped {
		return fmt.Errorf("%w: etcd was started on it", errMoved)
	}
	if f.backend == nil {
		return nil
	}
	return f.backend.unchanged()
}

// mayMove lets an error count as a change where an etcd runs, or may.
func (f *filesJob) mayMove(err error) error {
	if f.dir.Live == datadir.Stopped {
		return err
	}
	return maybeMoved(err)
}

// maybeMoved lets an error count as a change, but for damage and others that
// another try won't cure.
func maybeMoved(err error) error {
	var damage *walcodec.CorruptError
	lasting := []error{snapcodec.ErrBusy, fs.ErrPermission, syscall.ENOSPC, context.Canceled, context.DeadlineExceeded}
	if errors.As(err, &damage) || slices.ContainsFunc(lasting, func(e error) bool { return errors.Is(err, e) }) {
		return err
	}
	return &movedError{err}
}

// movedError is an error that a change may have caused.
type movedError struct{ cause error }

func (e *movedError) Error() string        { return e.cause.Error() }
func (e *movedError) Unwrap() error        { return e.cause }
func (e *movedError) Is(target error) bool { return target == errMoved }

// sumUp writes down what was found.
func (f *filesJob) sumUp() {
	d, m := f.dir, &f.facts
	m.Kind = repository.Files
	m.MemberID, m.MemberName = formatID(d.IDs.NodeID), d.Started[d.IDs.NodeID]
	m.Members = members(d)
	m.EtcdVersion = f.origin()
	m.RaftTerm, m.RaftIndex = f.report.LastTerm, f.report.LastIndex
	if d.Base != nil && m.RaftIndex < d.Base.Index {
		m.RaftTerm, m.RaftIndex = d.Base.Term, d.Base.Index
	}
	m.V2 = d.Backend == nil || d.Facts.V2Data != ""
	if torn := f.report.Err(); torn != nil {
		f.note("the log's last write was cut short and is left out: %v", torn)
	}
	for _, snap := range d.Snapshots {
		if snap.Problem != "" && !f.recorded(snap) {
			f.note("%s is passed over: %s", snap.Path, snap.Problem)
		}
	}
	f.sumUpBackend()
}

// origin is the release that wrote the files, as far as they tell. The facts
// lack what the backend says if that could not be read while etcd wrote it: then
// the copy says it.
func (f *filesJob) origin() string {
	d := f.dir
	switch {
	case d.Backend == nil || d.Backend.Unread == nil:
		return d.Facts.Origin.String()
	case f.backend.meta.StorageVersion != "":
		return f.backend.meta.StorageVersion
	case f.backend.meta.Term != 0:
		return datadir.R35.String()
	}
	return ""
}

// recorded tells of a snapshot that etcd was making when it was inspected: by
// now the log knows it.
func (f *filesJob) recorded(snap datadir.Snapshot) bool {
	return snap.Index > f.baseIndex() && slices.ContainsFunc(f.report.Snapshots, func(r walcodec.SnapshotRecord) bool {
		return r.Index == snap.Index
	})
}

func (f *filesJob) sumUpBackend() {
	b, m := f.backend, &f.facts
	if b == nil {
		if f.dir.Log.Padded {
			f.note("there is no v3 backend: etcd makes it anew from the log")
		}
		return
	}
	if name := filepath.Base(f.dir.Backend.Path); name != "db" {
		f.note("member/snap/db is %s: the member had received it and not yet put it in its place", name)
	}
	m.StorageVersion = b.meta.StorageVersion
	m.Revision, m.CompactRevision = b.hash.CurrentRevision, b.hash.CompactRevision
	m.HashKV, m.HashRevision = &b.hash.Hash, b.hash.HashRevision
	m.Keys = &b.status.TotalKey
}

// members are the cluster's, as of the log's end as far as it is known.
func members(d *datadir.Dir) []repository.Member {
	var all []repository.Member
	for _, id := range slices.Sorted(maps.Keys(d.PeerURLs)) {
		known, ok := snapcodec.Member{}, false
		if d.Backend != nil {
			known, ok = d.Backend.Members.Member(id)
		}
		if !ok {
			known, _ = d.Members.Member(id)
		}
		all = append(all, repository.Member{
			ID: formatID(id), Name: d.Started[id], PeerURLs: d.PeerURLs[id],
			ClientURLs: known.ClientURLs, Learner: known.IsLearner,
		})
	}
	return all
}

func formatID(id uint64) string { return snapcodec.FormatID(id) }

package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
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
	j := job{Options: o.Options, repo: repo, cluster: cluster}
	var backup *repository.Backup
	err = datadir.Retry(ctx, func() (err error) {
		f := filesJob{job: j, o: o, includes: includes}
		backup, err = f.run(ctx, dataDir)
		return err
	}, func(cause error) { j.info("%v: trying again", cause) })
	if err != nil {
		return nil, fmt.Errorf("save %s: %w", dataDir, err)
	}
	return backup, nil
}

// filesJob is one try.
type filesJob struct {
	job
	o        FilesOptions
	includes []include

	dir     *datadir.Dir
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
		return nil, f.dir.Live.MayChange(err)
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
	if f.dir, err = datadir.Inspect(ctx, path, datadir.Options{WALDir: f.o.WALDir}); err != nil {
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

// capture gets hold of everything. Snapshot and log are open, or the next
// moment, so that a purge takes nothing away; a running member's backend is
// copied before the log is read to its end, see [datadir.Dir.CopyBackend].
func (f *filesJob) capture(ctx context.Context) error {
	var err error
	if f.dir.Base != nil {
		if f.snap, err = os.Open(f.dir.Base.Path); err != nil {
			return err
		}
	}
	if f.dir.Backend == nil {
		return nil
	}
	f.tellCopy()
	f.backend, err = openBackend(ctx, f.dir, f.o.Scratch)
	return err
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
	n := f.dir.Report().Used + sizeOf(f.includes)
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
		err = fmt.Errorf("%s: %w: it is shorter than it was", f.snap.Name(), datadir.ErrChanged)
	}
	return err
}

// storeLog puts the segments. A last one in which nothing is whole is left out.
func (f *filesJob) storeLog(ctx context.Context) error {
	for _, s := range f.dir.Report().Segments {
		if s.Used == 0 {
			continue
		}
		part := repository.Part{Name: "member/wal/" + s.Name, Role: repository.RoleWAL}
		if err := f.put(ctx, part, func(ctx context.Context, w io.Writer) error { return copySegment(ctx, f.dir, s, w) }); err != nil {
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
		return fmt.Errorf("%w: etcd was started on it", datadir.ErrChanged)
	}
	if f.backend == nil {
		return nil
	}
	return f.backend.unchanged()
}

// sumUp writes down what was found.
func (f *filesJob) sumUp() {
	d, m := f.dir, &f.facts
	m.Kind = repository.Files
	m.MemberID, m.MemberName = formatID(d.IDs.NodeID), d.Started[d.IDs.NodeID]
	m.Members = members(d)
	m.EtcdVersion = d.Facts.Origin.String()
	m.RaftTerm, m.RaftIndex = d.Log.LastTerm, d.Log.Last
	m.V2 = d.Backend == nil || d.Facts.V2Data != ""
	if d.Torn != nil {
		f.note("the log's last write was cut short and is left out: %v", d.Torn)
	}
	for _, snap := range d.Snapshots {
		if snap.Problem != "" {
			f.note("%s is passed over: %s", snap.Path, snap.Problem)
		}
	}
	f.sumUpBackend()
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

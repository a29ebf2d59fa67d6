package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Options of [Inspect]; the zero value looks where etcd puts things itself.
type Options struct {
	WALDir string // where the segments are, if not in the data dir
}

// Dir is what a folder of etcd's files holds. Close it: the segments stay open
// until then, so that what was inspected can be read even after a purge.
type Dir struct {
	Files
	Live      Liveness
	IDs       walcodec.Metadata
	Base      *Snapshot  // the newest usable one; nil: the log starts at index 1
	Snapshots []Snapshot // all of them, newest first
	Log       Log
	Torn      error // matches walcodec.ErrTorn if the last write was cut short
	Backend   *Backend
	Members   snapcodec.Membership // as of the base; empty without one
	Started   map[uint64]string    // names of the members that have run, by id, as of the commit index
	Removed   map[uint64]bool      // members that may never come back
	Facts     Facts

	segments *pinned
	end      walcodec.Position
	logSize  int64  // bytes
	v2Data   string // first v2 user data in the base
}

// Inspect finds etcd's files at path and reads the log from the newest usable
// snapshot on. Damage in what a start needs is an error that names file and
// offset; a torn tail is not, see Torn.
func Inspect(ctx context.Context, path string, o Options) (*Dir, error) {
	files, err := Find(path, o.WALDir)
	if err != nil {
		return nil, err
	}
	if files.WAL == "" {
		return nil, fmt.Errorf("%s: the %s has no WAL folder", path, files.Layout)
	}
	d := &Dir{Files: files}
	if d.Live, err = files.Live(); err != nil {
		return nil, err
	}
	if d.segments, err = pinSegments(files.WAL, files.Segment); err != nil {
		return nil, err
	}
	if err := d.read(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), d.Close())
	}
	return d, nil
}

// Close closes the segments.
func (d *Dir) Close() error { return d.segments.Close() }

// FS are the segments, as they were when the folder was inspected.
func (d *Dir) FS() fs.FS { return d.segments }

// End is where the log that was inspected ends; a live one grows on.
func (d *Dir) End() walcodec.Position { return d.end }

// LogSize is how many bytes of the log a copy reads at the most.
func (d *Dir) LogSize() int64 { return d.logSize }

func (d *Dir) read(ctx context.Context) error {
	var err error
	if d.Snapshots, err = snapshots(d.Snap); err != nil {
		return err
	}
	report, err := d.chooseBase(ctx)
	if err != nil {
		return err
	}
	if err := d.takeReport(report); err != nil {
		return err
	}
	if d.Backend, err = readBackend(d.Files, d.Live, d.baseIndex()); err != nil {
		return err
	}
	members, err := d.summarize(report)
	if err != nil {
		return err
	}
	d.Started, d.Removed = members.started, members.removed
	d.Facts, err = d.facts(members.version)
	return err
}

func (d *Dir) baseIndex() uint64 {
	if d.Base == nil {
		return 0
	}
	return d.Base.Index
}

// chooseBase finds the newest usable snapshot and verifies the log from there.
func (d *Dir) chooseBase(ctx context.Context) (*walcodec.Report, error) {
	for i := range d.Snapshots {
		snap := &d.Snapshots[i]
		report, err := d.verify(ctx, snap.Index)
		if errors.Is(err, walcodec.ErrPurged) {
			snap.Problem = err.Error()
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := snap.usable(report); err != nil {
			snap.Problem = err.Error()
			continue
		}
		d.Base = snap
		return report, nil
	}
	return d.verify(ctx, 0)
}

// verify checks every record from the segment that can hold index on.
func (d *Dir) verify(ctx context.Context, index uint64) (*walcodec.Report, error) {
	report, err := walcodec.Verify(ctx, d.segments, walcodec.VerifyOptions{FromIndex: index})
	if err != nil {
		return nil, err
	}
	if err := report.Err(); err != nil && !errors.Is(err, walcodec.ErrTorn) {
		return nil, err
	}
	return report, nil
}

func (d *Dir) takeReport(r *walcodec.Report) error {
	if r.Metadata == nil {
		return fmt.Errorf("%s: the log has no metadata record: etcd was stopped while it made it", d.WAL)
	}
	d.IDs, d.end, d.logSize = *r.Metadata, r.End, r.Used
	if err := r.Err(); err != nil {
		d.Torn = err
	}
	if r.HardState != nil && r.HardState.Commit > max(r.LastIndex, d.baseIndex()) {
		return fmt.Errorf("%s: the log ends at index %d, but its last hard state commits %d: its end is missing",
			d.WAL, r.LastIndex, r.HardState.Commit)
	}
	return d.checkContinuity(r)
}

// checkContinuity makes sure that no entry is missing after the base.
func (d *Dir) checkContinuity(r *walcodec.Report) error {
	base := d.baseIndex()
	for _, gap := range r.Gaps {
		if gap.Index > base+1 && !d.covered(r, gap) {
			return fmt.Errorf("%s: entry %d is followed by entry %d: %d entries are missing and no snapshot covers them",
				d.WAL, gap.After, gap.Index, gap.Index-gap.After-1)
		}
	}
	if r.FirstIndex > base+1 {
		return d.noStart(r.FirstIndex)
	}
	return nil
}

// covered tells that a log alone has a record of a snapshot from the leader
// that filled the gap.
func (d *Dir) covered(r *walcodec.Report, gap walcodec.Gap) bool {
	return d.Snap == "" && slices.ContainsFunc(r.Snapshots, func(s walcodec.SnapshotRecord) bool {
		return s.Index+1 >= gap.Index
	})
}

// noStart says why nothing leads up to the first entry of the log.
func (d *Dir) noStart(first uint64) error {
	if d.Snap == "" {
		return nil // the log alone: what comes before it is not ours to judge
	}
	msg := fmt.Sprintf("the log starts at index %d and no usable snapshot leads up to it", first)
	for _, snap := range d.Snapshots {
		msg += fmt.Sprintf("\n  %s: %s", snap.Path, snap.Problem)
	}
	return errors.New(msg)
}

// summarize reads the log once more, with base, commit and overwrites known.
func (d *Dir) summarize(r *walcodec.Report) (*roster, error) {
	log, err := walcodec.OpenLog(d.segments, walcodec.LogOptions{FromIndex: d.baseIndex(), End: d.end})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s, err := d.newSummarizer(r)
	if err != nil {
		return nil, err
	}
	if err := s.run(log); err != nil {
		return nil, err
	}
	d.Log = s.log
	d.Log.Commit = min(max(s.commit, s.base), max(s.log.Last, s.base))
	return s.members, d.checkBackend()
}

// checkBackend refuses a backend that is ahead of the log: etcd would boot, and
// drop every write up to its index. A live one may be, by what came in meanwhile.
func (d *Dir) checkBackend() error {
	last := max(d.Log.Last, d.baseIndex())
	if d.Backend == nil || d.Live == Running || d.Backend.ConsistentIndex <= last {
		return nil
	}
	return fmt.Errorf("%s: it has applied up to index %d, but the log ends at %d: the log's end is missing",
		d.Backend.Path, d.Backend.ConsistentIndex, last)
}

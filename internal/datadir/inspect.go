package datadir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Options of [Inspect]; the zero value looks where etcd puts things itself.
type Options struct {
	WALDir string // where the segments are, if not in the data dir
}

// Dir is what a folder of etcd's files holds. Close it: the base and the
// segments stay open until then, so that what was inspected can be read even
// after a purge.
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
	PeerURLs  map[uint64][]string  // of every member, by id, as of the commit index
	Facts     Facts

	segments   *segments
	base       *os.File // nil without one
	copied     bool     // Backend is a copy that CopyBackend made
	log        *walcodec.Log
	report     *walcodec.Report
	end        walcodec.Position // of the log, as it was inspected
	logSize    int64             // bytes
	overwrites walcodec.Overwrites
	v2Data     string // first v2 user data in the base
}

// Inspect finds etcd's files at path and reads the log from the newest usable
// snapshot on. Damage in what a start needs is an error that names file and
// offset; a torn tail is not, see Torn. Errors that an etcd may have caused which
// runs on it match [ErrChanged].
func Inspect(ctx context.Context, path string, o Options) (*Dir, error) {
	files, err := Find(path, o.WALDir)
	if err != nil {
		return nil, err
	}
	if files.WAL == "" {
		return nil, fmt.Errorf("%s: the %s has no WAL folder", path, files.Layout)
	}
	if files.Layout == LayoutSegment {
		return nil, fmt.Errorf("%s: is one segment of a log: give its folder", path)
	}
	d := &Dir{Files: files, segments: newSegments(files.WAL)}
	if d.Live, err = files.Live(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.read(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, d.Live.MayChange(err)), d.Close())
	}
	return d, nil
}

// Close closes base and segments.
func (d *Dir) Close() error {
	err := d.segments.close()
	if d.base != nil {
		err = errors.Join(err, d.base.Close())
	}
	return err
}

// Report is what the verification of the log found, from the segment on that
// holds the base. The caller leaves it as it is.
func (d *Dir) Report() *walcodec.Report { return d.report }

// OpenSegment is a segment of the report, at its start.
func (d *Dir) OpenSegment(name string) (fs.File, error) { return d.segments.Open(name) }

// OpenBase is the base snapshot. The Dir keeps its file: it is not closed.
func (d *Dir) OpenBase() (*snapcodec.Snap, error) {
	return snapcodec.OpenSnap(d.base, d.Base.Size, snapcodec.SnapOptions{Name: d.Base.Path})
}

// OpenLog is the log that was inspected, from the segment that holds the base
// on, at its start. It reads what was verified, though etcd may write and purge
// meanwhile. The Dir keeps it: it is read by one at a time, and not closed.
func (d *Dir) OpenLog() (*walcodec.Log, error) { return d.log, d.log.Rewind(d.end) }

// Entries visits the entries after an index that no later leader took back, in
// their order. Record and entry are valid until visit returns; its error ends
// the visit.
func (d *Dir) Entries(after uint64, visit func(walcodec.Record, walcodec.Entry) error) error {
	log, err := d.OpenLog()
	if err != nil {
		return err
	}
	for {
		rec, err := log.Next()
		if err == io.EOF || errors.Is(err, walcodec.ErrTorn) {
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Kind != walcodec.KindEntry {
			continue
		}
		e, err := walcodec.ParseEntry(rec.Data)
		if err != nil {
			return err
		}
		at := walcodec.Position{Seq: log.Segment().Seq, Offset: rec.Offset}
		if e.Index <= after || d.overwrites.Discards(at, e.Index) {
			continue
		}
		if err := visit(rec, e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
}

// LogSize is how many bytes of the log a copy reads at the most.
func (d *Dir) LogSize() int64 { return d.logSize }

func (d *Dir) read(ctx context.Context) error {
	var err error
	if d.Snapshots, err = snapshots(d.Snap); err != nil {
		return err
	}
	backend, err := readBackend(d.Files, d.Live)
	if err != nil {
		return err
	}
	report, scan, err := d.chooseBase(ctx, backend)
	if err != nil {
		return err
	}
	if err := d.takeReport(report); err != nil {
		return err
	}
	return d.sumUp(report, scan)
}

func (d *Dir) baseIndex() uint64 {
	if d.Base == nil {
		return 0
	}
	return d.Base.Index
}

// chooseBase finds the newest usable snapshot and verifies the log from there.
func (d *Dir) chooseBase(ctx context.Context, backend *Backend) (*walcodec.Report, *scan, error) {
	for i := range d.Snapshots {
		snap := &d.Snapshots[i]
		report, scan, err := d.verify(ctx, snap.Index, backend)
		if errors.Is(err, walcodec.ErrPurged) {
			snap.Problem = err.Error()
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		var unreadable *fs.PathError
		if err := snap.usable(report); errors.As(err, &unreadable) {
			return nil, nil, err
		} else if err != nil {
			snap.Problem = err.Error()
			continue
		}
		d.Base = snap
		if d.base, err = os.Open(snap.Path); err != nil {
			return nil, nil, err
		}
		d.Backend, err = backend.forBase(snap.Index, d.Files, d.Live)
		if err != nil || d.Backend == backend {
			return report, scan, err
		}
		return d.verify(ctx, snap.Index, d.Backend)
	}
	d.Backend = backend
	return d.verify(ctx, 0, backend)
}

// verify opens the log at the segment that can hold the entries after base,
// and checks every record from there on.
func (d *Dir) verify(ctx context.Context, base uint64, backend *Backend) (*walcodec.Report, *scan, error) {
	var err error
	if d.log, err = walcodec.OpenLog(d.segments, walcodec.LogOptions{FromIndex: base}); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.WAL, err)
	}
	mark := uint64(0)
	if backend != nil {
		mark = backend.ConsistentIndex
	}
	scan := newScan(base, mark, d.log.Segments())
	report, err := d.log.Verify(ctx, walcodec.VerifyOptions{Visit: scan.visit})
	if err != nil {
		return nil, nil, err
	}
	if err := report.Err(); err != nil && !errors.Is(err, walcodec.ErrTorn) {
		return nil, nil, err
	}
	return report, scan, nil
}

func (d *Dir) takeReport(r *walcodec.Report) error {
	if r.Metadata == nil {
		return fmt.Errorf("%s: the log has no metadata record: etcd was stopped while it made it", d.WAL)
	}
	d.report, d.IDs, d.end, d.logSize, d.overwrites = r, *r.Metadata, r.End, r.Used, r.Overwrites
	d.Torn = r.Err()
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

// sumUp draws the summary and the facts together.
func (d *Dir) sumUp(r *walcodec.Report, s *scan) error {
	members := newRoster()
	var base point
	if d.Base != nil {
		base = point{d.Base.Index, d.Base.Term}
		if err := d.loadBase(members); err != nil {
			return err
		}
	}
	f := fold{scan: s, report: r, members: members, self: d.IDs.NodeID, held: d.Backend.holds}
	d.Log = f.sum(base)
	if d.Backend != nil {
		members.loadMembers(d.Backend.Members) // 3.6 and later log names as v3 requests
	}
	d.Started, d.Removed, d.PeerURLs = members.started, members.removed, members.urls
	if err := d.checkBackend(); err != nil {
		return err
	}
	var err error
	d.Facts, err = d.facts(members.version)
	return err
}

// checkBackend refuses a backend that is ahead of the log: etcd would boot, and
// drop every write up to its index. A live one may be, by what came in meanwhile.
func (d *Dir) checkBackend() error {
	last := max(d.Log.Last, d.baseIndex())
	if d.Backend == nil || d.Live == Running && !d.copied {
		return nil
	}
	if d.Backend.ConsistentIndex <= last {
		return d.checkCopied()
	}
	return fmt.Errorf("%s: it has applied up to index %d, but the log ends at %d: the log's end is missing",
		d.Backend.Path, d.Backend.ConsistentIndex, last)
}

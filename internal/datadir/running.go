package datadir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// copyTries is how often a backend is copied that is replaced meanwhile, by a
// defragmentation or a snapshot from the leader.
const copyTries = 5

// CopyBackend copies the backend of a member that runs, or may, to dst, whole
// as of one of its commits, and then reads the log on, from the same base, to
// where it ends by now. In this order snapshot, log and copy go together: base
// and log were opened when etcd had not yet purged them, the backend held the
// base's index by then, and whatever it had applied is in the log. From here on
// the Dir tells of the copy as it does of a stopped member's backend, under the
// backend's own path. Progress is called with the bytes that were copied, a
// negative number where some are copied anew.
//
// Errors of what etcd may have changed meanwhile match [ErrChanged]; the Dir is
// of no use then.
func (d *Dir) CopyBackend(ctx context.Context, dst *os.File, progress func(int64)) error {
	err := d.copyBackend(ctx, dst, progress)
	if err == nil {
		err = d.readOn(ctx, dst)
	}
	return d.Live.MayChange(err)
}

func (d *Dir) copyBackend(ctx context.Context, dst *os.File, progress func(int64)) error {
	for try := 1; ; try++ {
		src, err := os.Open(d.Backend.Path)
		if err != nil {
			return err
		}
		_, err = snapcodec.CopyLive(ctx, src, dst, snapcodec.LiveCopyOptions{Progress: progress})
		err = errors.Join(err, src.Close())
		if !errors.Is(err, snapcodec.ErrReplaced) || try == copyTries {
			return err
		}
	}
}

// readOn takes the copy for the backend.
func (d *Dir) readOn(ctx context.Context, copied *os.File) error {
	path := d.Backend.Path
	var err error
	if d.Backend, err = readBackendFile(copied, path); err != nil {
		return fmt.Errorf("the copied backend: %w", err)
	}
	d.copied = true
	report, scan, err := d.verify(ctx, d.baseIndex(), d.Backend)
	if err != nil {
		return err
	}
	d.forgetUnfinished(report)
	if err := d.takeReport(report); err != nil {
		return err
	}
	return d.sumUp(report, scan)
}

// forgetUnfinished drops the snapshots that etcd was about to make when the
// base was chosen: by now the log knows them. Base points into the old list.
func (d *Dir) forgetUnfinished(r *walcodec.Report) {
	d.Snapshots = slices.DeleteFunc(slices.Clone(d.Snapshots), func(s Snapshot) bool {
		return s.Index > d.baseIndex() && slices.ContainsFunc(r.Snapshots, func(rec walcodec.SnapshotRecord) bool {
			return rec.Index == s.Index && rec.Term == s.Term
		})
	})
}

// checkCopied refuses a copy that is older than the base, as one is that was
// taken before the member put the backend from its leader in its place.
func (d *Dir) checkCopied() error {
	if !d.copied || d.Backend.ConsistentIndex >= d.baseIndex() {
		return nil
	}
	return fmt.Errorf("%s: it has applied up to index %d, and %s starts at %d",
		d.Backend.Path, d.Backend.ConsistentIndex, filepath.Base(d.Base.Path), d.baseIndex())
}

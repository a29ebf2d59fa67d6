package prove

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Options adjust [Verify]. The zero value goes as far as what lies there can
// be verified.
type Options struct {
	Level     Level  // "": Boot, or Structure for a folder of segments
	WALDir    string // where the segments are, if not in the data dir
	AllowTorn bool   // a last write that was cut short, as by a crash, is no damage
	Binary    string // an etcd to boot v3 data with; "": the built-in 3.7
}

// subject is what is verified.
type subject struct {
	opts  Options
	files datadir.Files
	live  datadir.Liveness
	dir   *datadir.Dir           // nil until it was inspected
	v3    *v3engine.Verification // nil: no v3 data, or not at rest

	// what the check of the log found
	last     uint64   // index of the last entry
	recorded []string // names of the snapshots that it has records of
}

// Verify checks the data dir, backup, folder of segments, v3 snapshot or copied
// v3 backend at path. Damage is in the report; the error says that there is nothing there to verify.
func Verify(ctx context.Context, path string, o Options) (*Report, error) {
	if isSnapshotFile(path) {
		return verifyFile(ctx, path, o)
	}
	began := time.Now()
	files, err := datadir.Find(path, o.WALDir)
	if err != nil {
		return nil, err
	}
	if files.WAL == "" || files.Layout == datadir.LayoutSegment {
		return nil, fmt.Errorf("%s: is a %s: want a data dir, a backup or a folder of segments", path, files.Layout)
	}
	live, err := files.Live()
	if err != nil {
		return nil, err
	}
	r := &Report{Path: path, Kind: files.Layout.String(), Level: o.Level, Result: Passed, Checks: []Check{}, Time: began.UTC().Format(time.RFC3339)}
	if r.Level == "" {
		r.Level, r.Note = defaultLevel(files)
	}
	s := &subject{opts: o, files: files, live: live}
	s.checkAll(ctx, r)
	r.Seconds = time.Since(began).Seconds()
	return r, ctx.Err()
}

func defaultLevel(files datadir.Files) (Level, string) {
	if files.Snap == "" && files.Layout == datadir.LayoutWAL {
		return Structure, "a log alone: digest and structure are verified, booting it proves nothing about the snapshot that may belong to it"
	}
	return Boot, ""
}

// checkAll goes up level by level. What a lower one found broken is not booted.
func (s *subject) checkAll(ctx context.Context, r *Report) {
	s.checkDigests(ctx, r)
	if r.Level == Digest {
		return
	}
	s.checkStructure(ctx, r)
	if s.dir != nil {
		defer s.dir.Close()
		r.Etcd = s.dir.Facts.Origin.String()
		r.NodeID, r.ClusterID = snapcodec.FormatID(s.dir.IDs.NodeID), snapcodec.FormatID(s.dir.IDs.ClusterID)
	}
	s.checkV3Source(r)
	if s.v3 != nil {
		defer s.v3.Close()
	}
	if r.Level == Structure {
		return
	}
	s.checkBoot(ctx, r)
}

package prove

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
	"github.com/etcd-lifeboat/lifeboat/restore"
)

// hasV3 tells whether there is v3 data to verify.
func hasV3(d *datadir.Dir) bool {
	return d.Log.V3 > 0 || d.Backend != nil && d.Backend.HasKeys || !d.Facts.Origin.Before(datadir.R36)
}

// v3Checks puts the engine's checks into the report.
func (r *Report) v3Checks(level Level) v3engine.Checks {
	return func(name string, check func(*v3engine.Finding) error) {
		r.check(level, name, func(f *finding) error {
			var found v3engine.Finding
			err := check(&found)
			f.detail = found.Detail
			for _, p := range found.Problems {
				f.problem(p)
			}
			return err
		})
	}
}

// checkV3Source compares the backend with the log.
func (s *subject) checkV3Source(r *Report) {
	if s.dir == nil || !hasV3(s.dir) || s.live == datadir.Running {
		return
	}
	s.v3 = v3engine.OfDir(s.dir, v3engine.VerifyOptions{Binary: s.opts.Binary})
	s.v3.CheckSource(r.v3Checks(Structure))
}

// checkV3Boot boots a copy in etcd.
func (s *subject) checkV3Boot(ctx context.Context, r *Report) {
	if s.v3 == nil {
		r.check(Boot, "v3 boot", func(*finding) error {
			return errors.New("not tried: an etcd is writing the v3 data: verify a backup, or a snapshot that 'lifeboat snapshot save' took")
		})
		return
	}
	s.v3.CheckBoot(ctx, r.v3Checks(Boot))
}

// isSnapshotFile tells a file that is no segment.
func isSnapshotFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && !strings.HasSuffix(path, ".wal")
}

// verifyFile checks a snapshot or a copied backend.
func verifyFile(ctx context.Context, path string, o Options) (*Report, error) {
	began := time.Now()
	r := &Report{Path: path, Kind: "v3 file", Level: o.Level, Result: Passed, Checks: []Check{}, Time: began.UTC().Format(time.RFC3339)}
	if r.Level == "" {
		r.Level = Boot
	}
	src, err := restore.OpenFile(path)
	switch {
	case isDamage(err):
		r.check(Digest, "v3 file", func(*finding) error { return err })
		return r, nil
	case err != nil:
		return nil, err
	}
	defer src.Close()
	r.describeFile(src)
	v := v3engine.OfFile(src, v3engine.VerifyOptions{Binary: o.Binary})
	defer v.Close()
	v.CheckDigest(r.v3Checks(Digest))
	if r.Level != Digest {
		v.CheckSource(r.v3Checks(Structure))
	}
	if r.Level == Boot {
		v.CheckBoot(ctx, r.v3Checks(Boot))
	}
	r.Seconds = time.Since(began).Seconds()
	return r, ctx.Err()
}

func (r *Report) describeFile(src *restore.Source) {
	r.Kind = string(src.Kind)
	if v := src.Meta.StorageVersion; v != "" {
		r.Etcd = v
	}
	if src.Kind == restore.KindBackend {
		r.Note = fmt.Sprintf("a %s, without a SHA-256 at its end: nothing proves the values in it", src.Kind)
	}
}

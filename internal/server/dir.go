package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// dirs is where a member's files are.
type dirs struct {
	wal, snap string
	flat      string // the dir, if wal and snap lie in it without member/
}

func (d dirs) db() string { return filepath.Join(d.snap, "db") }

// findDirs locates the log and the snapshots. The dir for the latter need not
// exist.
func findDirs(dir, walDir string) (dirs, error) {
	files, err := datadir.Find(dir, walDir)
	if err != nil {
		return dirs{}, err
	}
	if files.WAL == "" || files.Layout == datadir.LayoutSegment {
		return dirs{}, fmt.Errorf("%s: %w: no folder of WAL segments", dir, datadir.ErrNotEtcd)
	}
	found := dirs{wal: files.WAL, snap: files.Snap}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return dirs{}, err
	}
	if files.Layout == datadir.LayoutFlat && walDir == "" && filepath.Base(absolute) != "member" {
		found.flat = dir
	}
	if found.snap == "" {
		found.snap = snapFor(files.Layout, dir, walDir)
	}
	return found, nil
}

// snapFor is where snapshots go in a dir that has none. In a bare folder of
// segments they lie between these, which etcd ignores.
func snapFor(layout datadir.Layout, dir, walDir string) string {
	switch {
	case layout == datadir.LayoutFlat:
		return filepath.Join(dir, "snap")
	case layout == datadir.LayoutWAL && walDir == "":
		return dir
	default:
		return filepath.Join(dir, "member", "snap")
	}
}

// modernise moves the layout of etcd 2.0.0 and 2.0.1 under member/, as later
// releases of 2.x did at boot; etcd 3 looks nowhere else.
func (d dirs) modernise() (dirs, error) {
	if d.flat == "" {
		return d, nil
	}
	member := filepath.Join(d.flat, "member")
	if err := os.MkdirAll(member, 0o700); err != nil {
		return d, err
	}
	moved := dirs{wal: filepath.Join(member, "wal"), snap: filepath.Join(member, "snap")}
	// wal last: until it moved, the dir is still found as it was
	for _, m := range [][2]string{{d.snap, moved.snap}, {d.wal, moved.wal}} {
		if err := os.Rename(m[0], m[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return d, err
		}
	}
	return moved, nil
}

// cloneDir copies what the v2 engine needs: snapshots first, so that the log
// is the newer of the two when the source is being written. The v3 backend
// stays behind.
func cloneDir(ctx context.Context, dir, walDir, dst string) error {
	src, err := findDirs(dir, walDir)
	if err != nil {
		return err
	}
	member := filepath.Join(dst, "member")
	if err := cloneFiles(ctx, src.snap, filepath.Join(member, "snap"), ".snap"); err != nil {
		return err
	}
	return cloneSegments(ctx, src.wal, filepath.Join(member, "wal"))
}

func cloneFiles(ctx context.Context, src, dst, suffix string) error {
	if err := os.MkdirAll(dst, 0o700); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(src, "*"+suffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		err := atomicfile.CopyScratch(ctx, name, filepath.Join(dst, filepath.Base(name)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // purged meanwhile
			return err
		}
	}
	return nil
}

func cloneSegments(ctx context.Context, src, dst string) error {
	segments, err := walcodec.Segments(os.DirFS(src))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dst, 0o700); err != nil {
		return err
	}
	for _, segment := range segments {
		if err := atomicfile.CopyScratch(ctx, filepath.Join(src, segment.Name), filepath.Join(dst, segment.Name)); err != nil {
			return err
		}
	}
	return nil
}

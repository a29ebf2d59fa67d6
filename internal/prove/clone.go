package prove

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// clone copies the log, the snapshots and the backend in use to dst, a dir that
// etcd would boot. Nothing is synced: the copy is thrown away.
func clone(ctx context.Context, files datadir.Files, dst string) error {
	wal, snap := filepath.Join(dst, "member", "wal"), filepath.Join(dst, "member", "snap")
	if err := errors.Join(os.MkdirAll(wal, 0o700), os.MkdirAll(snap, 0o700)); err != nil {
		return err
	}
	// snapshots first: should the source be written, its log is then the newer
	if files.Snap != "" {
		if err := cloneSnaps(ctx, files.Snap, snap); err != nil {
			return err
		}
	}
	segments, err := walcodec.Segments(os.DirFS(files.WAL))
	if err != nil {
		return err
	}
	for _, s := range segments {
		if err := atomicfile.CopyScratch(ctx, filepath.Join(files.WAL, s.Name), filepath.Join(wal, s.Name)); err != nil {
			return err
		}
	}
	return nil
}

func cloneSnaps(ctx context.Context, src, dst string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		switch snapcodec.Classify(entry.Name()) {
		case snapcodec.FileSnap, snapcodec.FileDB, snapcodec.FileSnapDB:
		default:
			continue
		}
		if err := atomicfile.CopyScratch(ctx, filepath.Join(src, entry.Name()), filepath.Join(dst, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

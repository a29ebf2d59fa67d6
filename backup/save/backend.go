package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// backend is the v3 backend to store: the member's own file, or a copy of it
// as it was at one moment.
type backend struct {
	path    string // of the member's own file
	file    *os.File
	info    fs.FileInfo
	scratch *atomicfile.TempDir // holds the copy; nil for the member's own file

	meta   snapcodec.BackendMeta
	status snapcodec.Status
	hash   snapcodec.HashKV
}

// openBackend opens the backend of a stopped member, or copies that of one
// that runs, or may, into a scratch folder.
func openBackend(ctx context.Context, dir *datadir.Dir, scratch string) (*backend, error) {
	b := &backend{path: dir.Backend.Path}
	err := b.open(ctx, dir, scratch)
	if err == nil {
		err = b.read(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *backend) open(ctx context.Context, dir *datadir.Dir, scratch string) (err error) {
	if dir.Live == datadir.Stopped {
		b.file, err = os.Open(b.path)
	} else {
		err = b.copy(ctx, dir, scratch)
	}
	if err != nil {
		return err
	}
	b.info, err = b.file.Stat()
	return err
}

// copy makes a copy of a backend that an etcd writes to.
func (b *backend) copy(ctx context.Context, dir *datadir.Dir, scratch string) (err error) {
	if b.scratch, err = atomicfile.NewTempDir(scratch, "save"); err != nil {
		return fmt.Errorf("scratch folder for a copy of %s: %w", b.path, err)
	}
	b.file, err = os.OpenFile(filepath.Join(b.scratch.Path, "db"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return dir.CopyBackend(ctx, b.file, func(int64) {})
}

// read proves the pages and finds the facts.
func (b *backend) read(ctx context.Context) error {
	db, err := snapcodec.OpenDB(b.file, b.info.Size(), snapcodec.DBOptions{Name: b.path})
	if err != nil {
		return err
	}
	if b.meta, err = db.Meta(); err != nil {
		return err
	}
	report, err := db.Check()
	if err != nil {
		return err
	}
	if report.Total > 0 {
		return fmt.Errorf("%s: %d problems in its pages, the first: %w", b.path, report.Total, report.Problems[0])
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.status, err = db.Status(); err != nil {
		return err
	}
	b.hash, err = db.HashKV(0)
	return err
}

// copyTo writes the file to w.
func (b *backend) copyTo(ctx context.Context, w io.Writer) error {
	n, err := io.Copy(w, &limited{ctx, io.NewSectionReader(b.file, 0, b.info.Size())})
	if err == nil && n != b.info.Size() {
		err = fmt.Errorf("%s: %w: it is shorter than it was", b.path, datadir.ErrChanged)
	}
	return err
}

// unchanged makes sure that nobody wrote the member's own file meanwhile.
func (b *backend) unchanged() error {
	if b.scratch != nil {
		return nil
	}
	now, err := os.Stat(b.path)
	if err != nil {
		return err
	}
	if changed(b.info, now) {
		return fmt.Errorf("%s: %w while it was read", b.path, datadir.ErrChanged)
	}
	return nil
}

func (b *backend) close() error {
	var errs []error
	if b.file != nil {
		errs = append(errs, b.file.Close())
	}
	if b.scratch != nil {
		errs = append(errs, b.scratch.Remove())
	}
	return errors.Join(errs...)
}

package backup

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Prepare plans as [NewPlan] does, to be applied. Of a member that runs, or may,
// it first copies the backend to where the backup is made, as of one commit and
// with the log that goes with it (see [datadir.Dir.CopyBackend]), and plans by
// that: what a backup needs follows from what it holds. Progress is called with
// the bytes that were copied. Close the plan.
//
// Errors match [datadir.ErrChanged] where another try may do, with the source
// inspected anew, and [snapcodec.ErrBusy] where the member commits too fast.
func Prepare(ctx context.Context, src *datadir.Dir, o Options, progress func(int64)) (*Plan, error) {
	draft, err := newPlan(src, o)
	if err != nil {
		return nil, err
	}
	if !draft.copiesRunning() {
		return NewPlan(src, o)
	}
	staged, revision, err := draft.stage(ctx, progress)
	if err != nil {
		return nil, err
	}
	p, err := NewPlan(src, o)
	if err != nil {
		return nil, errors.Join(err, staged.abort())
	}
	p.staged, p.Revision = staged, revision
	return p, nil
}

// copiesRunning tells whether the backend is that of a member which runs, or may.
func (p *Plan) copiesRunning() bool {
	return !p.logAlone() && p.Source.Backend != nil && p.Options.Backend != BackendSkip && !p.stopped()
}

// Close removes what Prepare has copied and Apply did not put in its place.
func (p *Plan) Close() error {
	if p.staged == nil {
		return nil
	}
	return p.staged.abort()
}

// staged is a backup in the making that has its backend already.
type staged struct {
	dirs dirs
	db   *atomicfile.File // nil once it is closed
}

func (s *staged) abort() error {
	var err error
	if s.db != nil {
		err = s.db.File.Close()
		s.db = nil
	}
	return errors.Join(err, s.dirs.abort())
}

// stage copies the backend, and returns its revision.
func (p *Plan) stage(ctx context.Context, progress func(int64)) (*staged, int64, error) {
	dirs, err := p.open()
	if err != nil {
		return nil, 0, err
	}
	s := &staged{dirs: dirs}
	revision, err := p.copyRunning(ctx, s, progress)
	if err != nil {
		return nil, 0, errors.Join(err, s.abort())
	}
	return s, revision, nil
}

func (p *Plan) copyRunning(ctx context.Context, s *staged, progress func(int64)) (int64, error) {
	var err error
	if s.db, err = s.dirs.data.Create(backendName); err != nil {
		return 0, err
	}
	if err := p.Source.CopyBackend(ctx, s.db.File, progress); err != nil {
		return 0, err
	}
	revision, err := prove(s.db.File, p.Source.Backend)
	return revision, p.Source.Live.MayChange(err)
}

// prove reads all pages of a copied backend, and returns its revision.
func prove(f *os.File, b *datadir.Backend) (int64, error) {
	db, err := snapcodec.OpenDB(f, b.Size, snapcodec.DBOptions{Name: b.Path})
	if err != nil {
		return 0, err
	}
	report, err := db.Check()
	if err != nil {
		return 0, err
	}
	if report.Total > 0 {
		return 0, fmt.Errorf("%s: %d problems in its pages, the first: %w", b.Path, report.Total, report.Problems[0])
	}
	return db.CurrentRevision()
}

// finishStaged makes the copy durable, and the plan's changes to it.
func (p *Plan) finishStaged() error {
	db := p.staged.db
	p.staged.db = nil
	if err := db.Close(); err != nil {
		return err
	}
	return p.editBackend(db.Name())
}

package save

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// LiveOptions of Live; the zero value works.
type LiveOptions struct {
	Options
	Timeout time.Duration // of a question to a member; 0: DefaultTimeout
	Stall   time.Duration // how long a member may send nothing; 0: live.DefaultStall
	Tries   int           // how often a stream is begun at the most; 0: DefaultTries
}

// The defaults of [LiveOptions].
const (
	DefaultTimeout = 5 * time.Second
	DefaultTries   = 4
)

// Live streams a snapshot from a running member into the repository, as the
// part "db": what etcd sends, its SHA-256 at the end included. No local file is
// made. An empty cluster is named by its id.
//
// A stream that breaks off, stands still or is not whole is begun anew with
// another endpoint, if one is fit. The repository may be slow; etcd waits, and
// keeps the pages that it frees meanwhile. With authentication on, etcd lets
// only root take snapshots.
//
// The hash and the number of the keys are the member's own answers, at the
// revision of the image. What it does not answer is left unknown, and noted.
// v2 data is no part of a snapshot: [Files] saves it.
func Live(ctx context.Context, repo *repository.Repository, cluster string, cfg clientv3.Config, o LiveOptions) (*repository.Backup, error) {
	includes, err := findIncludes(o.Include)
	if err != nil {
		return nil, err
	}
	o.Timeout, o.Tries = cmp.Or(o.Timeout, DefaultTimeout), cmp.Or(o.Tries, DefaultTries)
	l := liveJob{job: job{Options: o.Options, repo: repo, cluster: cluster}, o: o, cfg: cfg}
	backup, err := l.save(ctx, includes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("save: %w", err), l.abort(ctx))
	}
	return backup, nil
}

type liveJob struct {
	job
	o     LiveOptions
	cfg   clientv3.Config
	avoid []string // endpoints that failed
	size  int64    // of the image, bytes

	included int64 // bytes of what is saved along
}

func (l *liveJob) save(ctx context.Context, includes []include) (*repository.Backup, error) {
	choice, err := live.Pick(ctx, l.cfg, l.o.Timeout)
	if err != nil {
		return nil, err
	}
	if err := l.begin(ctx, choice.ClusterID); err != nil {
		return nil, err
	}
	if err := l.putIncludes(ctx, includes); err != nil {
		return nil, err
	}
	l.included = sizeOf(includes)
	image, err := l.stream(ctx, &choice)
	if err != nil {
		return nil, err
	}
	l.sumUp(choice, image)
	l.ask(ctx, choice)
	return l.draft.Commit(ctx, l.facts)
}

// stream stores a snapshot of the choice or, if that fails, of another
// endpoint, which is the choice then.
func (l *liveJob) stream(ctx context.Context, choice *live.Choice) (snapcodec.Image, error) {
	for try := 1; ; try++ {
		image, err := l.try(ctx, choice)
		var source *sourceError
		if !errors.As(err, &source) {
			return image, err
		}
		if try == l.o.Tries || live.Denied(err) || errors.Is(err, live.ErrMixed) {
			return image, source
		}
		l.warn("%v: trying again (%d of %d)", source, try, l.o.Tries-1)
		if choice.Address != "" {
			l.avoid = append(l.avoid, choice.Address)
		}
		if err := sleep(ctx, time.Second<<min(try-1, 5)); err != nil {
			return image, err
		}
		*choice = live.Choice{}
	}
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// try picks an endpoint, unless that is done, and stores a snapshot of it.
func (l *liveJob) try(ctx context.Context, choice *live.Choice) (snapcodec.Image, error) {
	if choice.Address == "" {
		var err error
		if *choice, err = l.pickAgain(ctx); err != nil {
			return snapcodec.Image{}, &sourceError{err}
		}
	}
	for _, passed := range choice.Passed {
		l.info("passed over %s", passed)
	}
	l.total(choice.DBSize + snapcodec.TrailerSize + l.included)
	l.info("taking the snapshot from %s (member %x, etcd %s): %s", choice.Address, choice.MemberID, choice.Version, choice.Why)
	return l.receive(ctx, choice.Address)
}

func (l *liveJob) pickAgain(ctx context.Context) (live.Choice, error) {
	choice, err := live.Pick(ctx, l.cfg, l.o.Timeout, l.avoid...)
	if err != nil {
		return live.Choice{}, err
	}
	if id := formatID(choice.ClusterID); id != l.facts.ClusterID {
		return live.Choice{}, fmt.Errorf("%s belongs to cluster %s by now, it was %s", choice.Address, id, l.facts.ClusterID)
	}
	return choice, nil
}

// sourceError is an error of the member, not of the repository: another member
// may do better.
type sourceError struct{ cause error }

func (e *sourceError) Error() string { return e.cause.Error() }
func (e *sourceError) Unwrap() error { return e.cause }

// receive stores a snapshot of the member at address, and reads on the way what
// it is of.
func (l *liveJob) receive(ctx context.Context, address string) (snapcodec.Image, error) {
	in := imageWriter{Inspector: snapcodec.NewInspector(snapcodec.DBOptions{Name: "snapshot from " + address})}
	var image snapcodec.Image
	part := repository.Part{Name: "db", Role: repository.RoleDB}
	err := l.put(ctx, part, func(ctx context.Context, w io.Writer) error {
		in.w = w
		if err := l.pass(ctx, address, &in); err != nil {
			return err
		}
		var err error
		if image, err = in.Finish(); err != nil {
			return &sourceError{err}
		}
		return nil
	})
	return image, err
}

// pass hands on what the member sends. Its errors are told from those of the
// writer.
func (l *liveJob) pass(ctx context.Context, address string, in *imageWriter) error {
	_, err := live.Save(ctx, l.cfg, address, in, live.Options{Stall: l.o.Stall})
	var write *live.WriteError
	switch {
	case in.bad != nil:
		return &sourceError{in.bad}
	case err == nil || ctx.Err() != nil || errors.As(err, &write):
		return err
	}
	return &sourceError{err}
}

// imageWriter writes an image that is inspected on the way.
type imageWriter struct {
	*snapcodec.Inspector
	w   io.Writer
	bad error // the image is none
}

func (i *imageWriter) Write(p []byte) (int, error) {
	if n, err := i.w.Write(p); err != nil {
		return n, err
	}
	_, i.bad = i.Inspector.Write(p)
	return len(p), i.bad
}

// sumUp writes down what came.
func (l *liveJob) sumUp(choice live.Choice, image snapcodec.Image) {
	m := &l.facts
	m.Kind = repository.Live
	m.Endpoint, m.MemberID, m.EtcdVersion = choice.Address, formatID(choice.MemberID), choice.Version
	l.size = image.Size
	for _, unknown := range image.Unknown {
		l.note("not checked in the snapshot: %s", unknown)
	}
	if meta := image.Meta; meta != nil {
		m.StorageVersion = meta.StorageVersion
		m.RaftTerm, m.RaftIndex = meta.Term, meta.ConsistentIndex
		m.CompactRevision = max(meta.FinishedCompact, meta.ScheduledCompact)
	}
	m.Revision = max(0, image.CurrentRevision())
}

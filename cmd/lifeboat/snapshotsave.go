package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

type snapshotSaveOptions struct {
	path    string
	client  clientFlags
	stall   time.Duration
	retries int
}

func newSnapshotSaveCommand(e *env) *cobra.Command {
	var o snapshotSaveOptions
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Take a snapshot from a running member",
		Long: `Take a snapshot of the v3 backend from a running member. FILE appears whole,
its SHA-256 checked, or not at all; - is the standard output.

Of the endpoints a member is picked that is healthy, has caught up and is no
learner, a follower rather than the leader. A stream that breaks off or stands
still is started over, from another endpoint if that is better then.

Flags and ETCDCTL_* variables are etcdctl's. There is no time limit unless
--command-timeout is given.`,
		Example: `  lifeboat snapshot save backup.db --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379 \
    --cacert ca.crt --cert client.crt --key client.key
  lifeboat snapshot save - | zstd > backup.db.zst`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			if err := o.client.complete(cmd, e); err != nil {
				return withExit(exitUsage, err)
			}
			if o.stall <= 0 || o.retries < 0 {
				return withExit(exitUsage, errors.New("--stall-timeout has to be above 0, --retries not below"))
			}
			ctx, cancel := o.client.limit(cmd)
			defer cancel()
			return saveExit(o.run(ctx, e))
		},
	}
	o.client.addFlags(cmd)
	f := cmd.Flags()
	f.DurationVar(&o.stall, "stall-timeout", live.DefaultStall, "give a stream up when nothing comes for so long")
	f.IntVar(&o.retries, "retries", 3, "how often a stream that breaks off is started over")
	addIgnoredWriteOut(cmd)
	return cmd
}

func (o *snapshotSaveOptions) run(ctx context.Context, e *env) error {
	cfg, err := o.client.config(e)
	if err != nil {
		return fmt.Errorf("snapshot save: %w", err)
	}
	if o.path == "-" {
		return o.toStdout(ctx, e, cfg)
	}
	file, err := atomicfile.CreateFile(o.path, atomicfile.Options{})
	if err != nil {
		return fmt.Errorf("snapshot save: %w", err)
	}
	defer file.Abort()
	result, err := o.save(ctx, e, cfg, file, file.Restart)
	if err == nil {
		err = file.Commit()
	}
	if err != nil {
		return fmt.Errorf("snapshot save: %w", err)
	}
	fmt.Fprintf(e.Stdout, "Snapshot saved at %s\n", o.path)
	if result.Version != "" {
		fmt.Fprintf(e.Stdout, "Server version %s\n", result.Version)
	}
	return nil
}

func (o *snapshotSaveOptions) toStdout(ctx context.Context, e *env, cfg clientv3.Config) error {
	out := &begun{w: e.Stdout}
	_, err := o.save(ctx, e, cfg, out, out.restart)
	if err != nil {
		return fmt.Errorf("snapshot save: %w", err)
	}
	return nil
}

// begun is an output that can't be taken back.
type begun struct {
	w    io.Writer
	size int64
}

func (b *begun) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.size += int64(n)
	return n, err
}

func (b *begun) restart() error {
	if b.size > 0 {
		return fmt.Errorf("%d bytes of it are on the standard output, which can't be taken back: throw them away", b.size)
	}
	return nil
}

// save tries until a snapshot came whole; restart empties what w holds.
func (o *snapshotSaveOptions) save(ctx context.Context, e *env, cfg clientv3.Config, w io.Writer, restart func() error) (live.Result, error) {
	for try := 0; ; try++ {
		result, err := o.try(ctx, e, cfg, w)
		if err == nil || try >= o.retries || !worthRetry(ctx, err) {
			return result, err
		}
		if restartErr := restart(); restartErr != nil {
			return result, errors.Join(err, restartErr)
		}
		fmt.Fprintf(e.Stderr, "%v\ntrying again (%d of %d)\n", err, try+1, o.retries)
		select {
		case <-ctx.Done():
			return result, err
		case <-time.After(time.Second << try):
		}
	}
}

// worthRetry tells apart what another try may change.
func worthRetry(ctx context.Context, err error) bool {
	var write *live.WriteError
	if ctx.Err() != nil || errors.As(err, &write) {
		return false
	}
	return !live.Denied(err) && !errors.Is(err, live.ErrMixed)
}

func (o *snapshotSaveOptions) try(ctx context.Context, e *env, cfg clientv3.Config, w io.Writer) (live.Result, error) {
	choice, err := live.Pick(ctx, cfg, cfg.DialTimeout)
	if err != nil {
		return live.Result{}, err
	}
	for _, passed := range choice.Passed {
		fmt.Fprintf(e.Stderr, "passed over %s\n", passed)
	}
	fmt.Fprintf(e.Stderr, "taking the snapshot from %s (member %x, etcd %s): %s\n", choice.Address, choice.MemberID, choice.Version, choice.Why)
	bar := newProgress(e.Stderr, "snapshot", choice.DBSize)
	defer bar.done()
	return live.Save(ctx, cfg, choice.Address, w, live.Options{Stall: o.stall, Progress: bar.add})
}

// saveExit gives the known errors their exit codes.
func saveExit(err error) error {
	var stall *live.StallError
	if errors.Is(err, live.ErrUnreachable) || errors.As(err, &stall) {
		return withExit(exitUnreachable, connectionHint(err))
	}
	return backupExit(err)
}

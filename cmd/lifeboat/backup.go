package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

type backupOptions struct {
	dataDir       string
	walDir        string
	backupDir     string
	backupWALDir  string
	keepClusterID bool
	nodeID        string
	target        string
	withV3        bool
	assumeStopped bool
	dryRun        bool
	output        outputFlag
}

func newBackupCommand(e *env) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup --data-dir DIR --backup-dir DIR",
		Short: "Copy a member's data dir to a folder that etcd boots, ids rewritten",
		Long: `Backup copies a data dir, as 'etcdctl backup' did: the newest usable snapshot,
the log after it, and the v3 backend if there is one. Node and cluster id are
rewritten so that the copy can't talk to the living cluster. Entries, terms and
indexes stay as they are. The source is only read, and no lock is taken.

etcd may be running on it: its backend is then copied as of one of its commits,
and the log reaches at least as far, so that the copy holds all that this member
acknowledged before the backup began.

The copy boots with --force-new-cluster. With --for it is changed for another
etcd version, or refused if no change can make that version boot it.`,
		Example: `  lifeboat backup --data-dir /var/lib/etcd --backup-dir /backup/etcd
  lifeboat backup --data-dir /var/lib/etcd --backup-dir /backup/etcd --for 3.5
  lifeboat backup --wal-dir /var/lib/etcd/member/wal --backup-wal-dir /backup/wal`,
		Args: usageArgs(cobra.NoArgs),
	}
	o.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opts, err := o.parse(cmd)
		if err != nil {
			return withExit(exitUsage, err)
		}
		return backupExit(o.run(cmd.Context(), e, opts))
	}
	return cmd
}

func (o *backupOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "", "the data dir to back up")
	f.StringVar(&o.walDir, "wal-dir", "", "its WAL dir, if that is elsewhere; alone: back up the log only")
	f.StringVar(&o.backupDir, "backup-dir", "", "the folder to make; must be absent or empty")
	f.StringVar(&o.backupWALDir, "backup-wal-dir", "", "the folder to make for the log, if not in --backup-dir")
	f.BoolVar(&o.keepClusterID, "keep-cluster-id", false, "keep the cluster id (default: a fresh random one)")
	f.StringVar(&o.nodeID, "node-id", "", "node id of the copy, hex as 'member list' prints it (default: a fresh random one)")
	f.StringVar(&o.target, "for", "", "etcd version that is to boot the copy, such as 3.5 (default: as the source)")
	f.BoolVar(&o.withV3, "with-v3", false, "the v3 backend: =true copies it or refuses, =false leaves it out\n(default: copy it, if there is one)")
	f.BoolVar(&o.assumeStopped, "assume-stopped", false, "no etcd runs on the source, though this system can't tell")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be written, and write nothing")
	addOutputFlag(cmd, &o.output)
}

// parse checks what can be checked without the source.
func (o *backupOptions) parse(cmd *cobra.Command) (backup.Options, error) {
	opts := backup.Options{
		Dir: absolute(o.backupDir), WALDir: absolute(o.backupWALDir),
		KeepClusterID: o.keepClusterID, AssumeStopped: o.assumeStopped,
	}
	switch {
	case o.dataDir == "" && o.walDir == "":
		return opts, errors.New("--data-dir is needed (or --wal-dir alone, for the log only)")
	case o.dataDir != "" && o.backupDir == "":
		return opts, errors.New("--backup-dir is needed with --data-dir")
	case o.dataDir == "" && o.backupDir != "":
		return opts, errors.New("--backup-dir needs --data-dir; for the log alone give --wal-dir and --backup-wal-dir")
	case o.dataDir == "" && o.backupWALDir == "":
		return opts, errors.New("--backup-wal-dir is needed with --wal-dir alone")
	}
	if cmd.Flags().Changed("with-v3") {
		opts.Backend = backup.BackendSkip
		if o.withV3 {
			opts.Backend = backup.BackendRequire
		}
	}
	return opts, o.parseNames(&opts)
}

func (o *backupOptions) parseNames(opts *backup.Options) error {
	var err error
	if o.nodeID != "" {
		if opts.NodeID, err = parseNodeID(o.nodeID); err != nil {
			return err
		}
	}
	if o.target != "" {
		if opts.For, err = datadir.ParseRelease(o.target); err != nil {
			return fmt.Errorf("--for: %w", err)
		}
	}
	return nil
}

func (o *backupOptions) run(ctx context.Context, e *env, opts backup.Options) error {
	path, walDir := o.dataDir, o.walDir
	if path == "" {
		path, walDir = o.walDir, ""
	}
	var report backupReport
	err := datadir.Retry(ctx, func() (err error) {
		report, err = o.backUp(ctx, e, path, walDir, opts)
		return err
	}, func(cause error) { fmt.Fprintf(e.Stderr, "%v: trying again\n", cause) })
	if err != nil {
		return err
	}
	if err := printBackup(e, o.output, report); err != nil || o.output == outputJSON {
		return err
	}
	_, err = fmt.Fprint(e.Stdout, report.startHint())
	return err
}

// backUp is one try.
func (o *backupOptions) backUp(ctx context.Context, e *env, path, walDir string, opts backup.Options) (backupReport, error) {
	src, err := datadir.Inspect(ctx, path, datadir.Options{WALDir: walDir})
	if err != nil {
		return backupReport{}, fmt.Errorf("backup: %w", err)
	}
	defer src.Close()
	plan, err := o.plan(ctx, e, src, opts)
	if err != nil {
		return backupReport{}, fmt.Errorf("backup: %w", err)
	}
	defer plan.Close()
	return applyBackup(ctx, e, "backup", plan, o.dryRun)
}

// plan decides what to write. It copies the backend of a running member, unless
// the plan is only to be shown.
func (o *backupOptions) plan(ctx context.Context, e *env, src *datadir.Dir, opts backup.Options) (*backup.Plan, error) {
	if o.dryRun {
		return backup.NewPlan(src, opts)
	}
	size := int64(0)
	if src.Backend != nil {
		size = src.Backend.Size
	}
	bar := newProgress(e.Stderr, "copy the backend in use", size)
	defer bar.done()
	return backup.Prepare(ctx, src, opts, bar.add)
}

// applyBackup carries a plan out, unless it is only to be shown.
func applyBackup(ctx context.Context, e *env, what string, plan *backup.Plan, dryRun bool) (backupReport, error) {
	for _, warning := range plan.Warnings {
		fmt.Fprintln(e.Stderr, "warning:", warning)
	}
	if dryRun {
		return newBackupReport(plan, nil), nil
	}
	bar := newProgress(e.Stderr, what, plan.Size())
	result, err := plan.Apply(ctx, bar.add)
	bar.done()
	if err != nil {
		return backupReport{}, fmt.Errorf("%s: %w", what, err)
	}
	return newBackupReport(plan, &result), nil
}

// parseNodeID reads a member id in hex.
func parseNodeID(text string) (uint64, error) {
	id, err := snapcodec.ParseID(strings.TrimPrefix(text, "0x"))
	if err == nil && id == 0 {
		err = errors.New("0 is no member id")
	}
	if err != nil {
		return 0, fmt.Errorf("--node-id: %w", err)
	}
	return id, nil
}

// backupExit gives the known errors their exit codes and a way out.
func backupExit(err error) error {
	var identity *backup.IdentityError
	switch {
	case errors.As(err, &identity):
		return fmt.Errorf("%w\n"+
			"To replace the member: remove it (member remove), add it again (member add), and give the new id as --node-id.\n"+
			"If the whole cluster is gone: back up without --keep-cluster-id and start the copy with --force-new-cluster", err)
	case errors.Is(err, backup.ErrMaybeLive):
		return fmt.Errorf("%w\nIf you are sure that it is stopped: --assume-stopped", err)
	case errors.Is(err, backup.ErrLive):
		return fmt.Errorf("%w\nStop the member, or back it up first: lifeboat backup --keep-cluster-id", err)
	case errors.Is(err, snapcodec.ErrBusy), errors.Is(err, datadir.ErrChanged) && !isDamage(err):
		return fmt.Errorf("%w\nTake its v3 data through the server (lifeboat save --endpoints URL), stop the member, or try again when it has less to do", err)
	case errors.Is(err, atomicfile.ErrBusy):
		return withExit(exitLocked, err)
	case isDamage(err):
		return withExit(exitDamage, err)
	}
	return err
}

// absolute makes a path that a message shows good to paste from anywhere; an
// empty one stays empty.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

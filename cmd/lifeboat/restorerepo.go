package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/restore"
)

// restoreRepoOptions are the flags of restore that are for a repository.
type restoreRepoOptions struct {
	repo       repoFlag
	pick       pickFlags
	identities identityFlags
	scratch    string
	includeDir string
}

func (o *restoreRepoOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	o.pick.addFlags(cmd)
	o.identities.addFlags(cmd)
	f.StringVar(&o.scratch, "scratch-dir", "", "where a backup of a repository is unpacked (default: beside the data dir)")
	f.StringVar(&o.includeDir, "include-dir", "", "put the files there that were saved along (save --include); must be absent or empty")
}

// forRepo names a flag that was given and needs a repository.
func (o *restoreRepoOptions) forRepo(cmd *cobra.Command) string {
	for _, name := range []string{"cluster", "before", "label", "identity", "passphrase-file", "scratch-dir", "include-dir"} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// runRepo unpacks a backup of a repository beside the target, and restores it
// from there.
func (o *restoreOptions) runRepo(cmd *cobra.Command, e *env) error {
	ctx := cmd.Context()
	sel, err := o.stored.pick.selector(o.source)
	if err != nil {
		return withExit(exitUsage, err)
	}
	if o.dataDir == "" {
		return withExit(exitUsage, errors.New("--data-dir is needed"))
	}
	ids, err := o.stored.identities.read(e)
	if err != nil {
		return err
	}
	repo, err := o.stored.repo.open(ctx, e)
	if err != nil {
		return err
	}
	b, why, err := repo.Find(ctx, sel)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.Stderr, "restoring %s, %s old: %s\n", b.ID(), ago(b.Manifest.Started, time.Now()), why)
	o.shown = fmt.Sprintf("%s of %s in %s", b.ID(), b.Cluster(), repo)
	if err := o.checkUnpack(cmd, b); err != nil {
		return err
	}
	tmp, err := atomicfile.NewTempDir(o.scratchDir(), "restore")
	if err != nil {
		return err
	}
	return errors.Join(o.restoreStored(cmd, e, b, stored{repo: repo, ids: ids, dir: tmp.Path}), tmp.Remove())
}

// checkUnpack refuses what is not worth unpacking a backup for.
func (o *restoreOptions) checkUnpack(cmd *cobra.Command, b *repository.Backup) error {
	if dir := o.stored.includeDir; dir != "" {
		if err := atomicfile.CheckDir(dir, atomicfile.Options{}); err != nil {
			return fmt.Errorf("--include-dir: %w", err)
		}
	}
	one := []restore.Target{{Dir: absolute(o.dataDir), WALDir: absolute(o.walDir)}}
	switch {
	case o.seeds():
		return errors.Join(o.checkSeed(cmd), o.checkFree(one, restore.Options{}))
	case b.Manifest.V2:
		return errors.Join(o.checkV2(cmd), o.checkFree(one, restore.Options{}))
	}
	plan, err := o.parse()
	if err != nil {
		return withExit(exitUsage, err)
	}
	if err := o.checkTargets(&plan); err != nil {
		return err
	}
	return orReplace(o.checkFree(plan.targets, plan.Options))
}

// checkFree looks for what is in the way, if anything is to be written.
func (o *restoreOptions) checkFree(targets []restore.Target, opts restore.Options) error {
	if o.dryRun {
		return nil
	}
	return restore.CheckTargets(targets, opts)
}

// scratchDir is on the file system that the target will be on.
func (o *restoreOptions) scratchDir() string {
	if o.stored.scratch != "" {
		return o.stored.scratch
	}
	dir := filepath.Dir(absolute(o.dataDir))
	if _, err := os.Stat(o.dataDir); err == nil && !o.replace {
		dir = absolute(o.dataDir) // it may be a mount point
	}
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// stored is where a backup is unpacked from, and to.
type stored struct {
	repo *repository.Repository
	ids  repository.Identities
	dir  string
}

func (o *restoreOptions) restoreStored(cmd *cobra.Command, e *env, b *repository.Backup, from stored) error {
	ctx := cmd.Context()
	if err := from.unpack(ctx, e, b, from.dir, repository.RoleDB, repository.RoleSnap, repository.RoleWAL); err != nil {
		return err
	}
	o.source = from.dir
	if b.Manifest.Kind == repository.Live {
		part, err := b.Part(liveDB)
		if err != nil {
			return err
		}
		o.source = filepath.Join(from.dir, filepath.FromSlash(part.Name))
	}
	if err := o.restoreUnpacked(cmd, e, b); err != nil || o.stored.includeDir == "" || o.dryRun {
		return err
	}
	return from.includes(ctx, e, b, o.stored.includeDir)
}

// liveDB is the name of the part that a live backup has.
const liveDB = "db"

// restoreUnpacked restores what the scratch dir holds, as the data asks for it.
func (o *restoreOptions) restoreUnpacked(cmd *cobra.Command, e *env, b *repository.Backup) error {
	switch {
	case o.seeds():
		return o.seed(cmd, e)
	case b.Manifest.V2:
		return o.restoreV2(cmd, e)
	}
	return o.restoreCluster(cmd, e)
}

// checkV2 looks at the flags that go with v2 data.
func (o *restoreOptions) checkV2(cmd *cobra.Command) error {
	for _, flag := range []string{"name", "initial-cluster", "initial-cluster-token", "bump-revision", "replace", "owner"} {
		if cmd.Flags().Changed(flag) {
			return withExit(exitUsage, fmt.Errorf("%s holds v2 data: restore makes the data dir of one member, to which others are added then; it takes no --%s", o.shown, flag))
		}
	}
	return nil
}

// restoreV2 makes a data dir that keeps v2 data: that of one member, as
// 'backup' does.
func (o *restoreOptions) restoreV2(cmd *cobra.Command, e *env) error {
	if err := o.checkV2(cmd); err != nil {
		return err
	}
	opts := backup.Options{Dir: absolute(o.dataDir), WALDir: absolute(o.walDir), AssumeStopped: true}
	if o.target != "" {
		var err error
		if opts.For, err = datadir.ParseRelease(o.target); err != nil {
			return withExit(exitUsage, fmt.Errorf("--for: %w", err))
		}
	}
	src, err := datadir.Inspect(cmd.Context(), o.source, datadir.Options{})
	if err != nil {
		return err
	}
	defer src.Close()
	plan, err := backup.NewPlan(src, opts)
	if err != nil {
		return err
	}
	report, err := applyBackup(cmd.Context(), e, "restore", plan, o.dryRun)
	if err != nil {
		return err
	}
	report.Source, report.unpacked = o.shown, true
	if err := printBackup(e, o.output, report); err != nil || o.output == outputJSON {
		return err
	}
	_, err = fmt.Fprint(e.Stdout, report.startHint())
	return err
}

// unpack loads the parts of some roles into dir, proved by their digests.
func (s stored) unpack(ctx context.Context, e *env, b *repository.Backup, dir string, roles ...repository.Role) error {
	plain, _ := b.Size()
	bar := newProgress(e.Stderr, "unpack", plain)
	defer bar.done()
	return s.repo.Load(ctx, b, dir, s.ids, repository.LoadOptions{Roles: roles, Progress: bar.set})
}

// includes puts the files that were saved along where they are wanted.
func (s stored) includes(ctx context.Context, e *env, b *repository.Backup, target string) error {
	dir, err := atomicfile.CreateDir(target, atomicfile.Options{})
	if err != nil {
		return fmt.Errorf("--include-dir: %w", err)
	}
	defer dir.Abort()
	if err := s.unpack(ctx, e, b, dir.Path(), repository.RoleInclude); err != nil {
		return err
	}
	if err := dir.Commit(); err != nil {
		return err
	}
	fmt.Fprintf(e.Stderr, "The files that were saved along are in %s\n", target)
	return nil
}

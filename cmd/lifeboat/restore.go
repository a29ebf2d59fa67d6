package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/restore"
)

type restoreOptions struct {
	source        string
	sourceWALDir  string
	dataDir       string
	walDir        string
	name          string
	cluster       string
	token         string
	bump          string
	target        string
	replace       bool
	owner         string
	keepClusterID bool
	nodeID        string
	assumeStopped bool
	dryRun        bool
	stored        restoreRepoOptions
	shown         string // what the source was unpacked from, if it was
	output        outputFlag
}

func newRestoreCommand(e *env) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore SOURCE|ID|latest --data-dir DIR",
		Short: "Make the data dirs of a new cluster from a snapshot, a backup or a data dir",
		Long: `Make the data dirs of a new cluster from SOURCE: a snapshot file, a copied
member/snap/db, a data dir of etcd 3.4 or later, or a backup of one. Of a data
dir the log after the backend is kept too, so that nothing that was
acknowledged is lost.

With --repo it is a backup in a repository: an ID or the beginning of one,
latest (the default) or latest-verified, of those that --cluster, --before and
--label leave. It is unpacked beside the data dir, every byte proved on the way,
and restored from there. One that holds v2 data becomes the data dir of a
cluster of one, as 'lifeboat backup' makes it.

All members of --initial-cluster are made in one call, from one source: then
--data-dir (and --wal-dir) has {name} where the member's name goes. With --name
only that member is made, and the other hosts make theirs from the same source
with the same --initial-cluster and token. Ids are those of 'etcdutl snapshot
restore'.

All data dirs appear whole, or none. The source is only read, and proved first:
by its SHA-256, or where it has none by all its pages. The hash of the keys is
compared between the source and all copies.

The drop-in for etcdutl is 'lifeboat snapshot restore'.`,
		Example: `  lifeboat restore backup.db --data-dir /var/lib/etcd --name m1 \
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380,m3=https://10.0.0.3:2380
  lifeboat restore backup.db --data-dir '/restore/{name}' --initial-cluster m1=http://127.0.0.1:2380,m2=http://127.0.0.1:12380
  lifeboat restore /var/lib/etcd --data-dir /var/lib/etcd-new --dry-run
  lifeboat restore --repo /backup/etcd latest --data-dir /var/lib/etcd --identity key.txt
  lifeboat restore --repo s3://backups/etcd --before 2026-11-20T03:00:00Z --data-dir /var/lib/etcd`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
	}
	o.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.source = strings.Join(args, "")
		if o.stored.repo.means(o.source, e) {
			if err := o.runRepo(cmd, e); err != nil {
				return repoExit(fmt.Errorf("restore: %w", err))
			}
			return nil
		}
		if flag := o.stored.forRepo(cmd); flag != "" {
			return withExit(exitUsage, fmt.Errorf("--%s is for a repository: --repo is needed (or $%s)", flag, repoVariable))
		}
		if o.source == "" {
			return withExit(exitUsage, errors.New("what is to be restored? Give a snapshot, a backup, a data dir, or --repo"))
		}
		if o.seeds() {
			return o.seed(cmd, e)
		}
		if err := o.restoreCluster(cmd, e); err != nil {
			return restoreExit(fmt.Errorf("restore: %w", err))
		}
		return nil
	}
	return cmd
}

// restoreCluster makes the members of a new cluster.
func (o *restoreOptions) restoreCluster(cmd *cobra.Command, e *env) error {
	opts, err := o.parse()
	if err != nil {
		return withExit(exitUsage, err)
	}
	return orReplace(o.run(cmd.Context(), e, opts))
}

// orReplace says what to do about a target that is there.
func orReplace(err error) error {
	if errors.Is(err, atomicfile.ErrExists) {
		return fmt.Errorf("%w\nGive another one, or --replace: what is there is kept beside the new one then", err)
	}
	return err
}

func (o *restoreOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "", "the data dir to make; {name} stands for the member's name")
	f.StringVar(&o.walDir, "wal-dir", "", "where the write-ahead log goes, if not into the data dir; {name} likewise")
	f.StringVar(&o.name, "name", "", "make this member only (default: all of --initial-cluster)")
	f.StringVar(&o.cluster, "initial-cluster", defaultInitialMember, "all members of the new cluster, NAME=PEER-URL,…")
	f.StringVar(&o.token, "initial-cluster-token", defaultClusterToken, "token of the new cluster")
	f.StringVar(&o.bump, "bump-revision", "0", "raise the latest revision by so much and mark it as compacted, so that no\nwatcher sees it go back; auto: by a billion if Kubernetes keeps its objects there")
	f.StringVar(&o.target, "for", "", "etcd version that is to boot the result, such as 3.6 (default: any)")
	f.BoolVar(&o.replace, "replace", false, "take the place of data dirs that are there, and keep those beside the new ones")
	f.StringVar(&o.owner, "owner", "", "USER[:GROUP] that the data dirs will belong to (default: as the target\nthat is there, else the source data dir, if root runs this)")
	f.BoolVar(&o.keepClusterID, "keep-cluster-id", false, "with --node-id: make the data dir of a member that was just added to the\nliving cluster, from a data dir or backup of it (as 'member seed')")
	f.StringVar(&o.nodeID, "node-id", "", "id of that member, hex as 'member add' prints it")
	f.StringVar(&o.sourceWALDir, "source-wal-dir", "", "of a data dir: where its write-ahead log is, if not in it")
	f.BoolVar(&o.assumeStopped, "assume-stopped", false, "no etcd runs on the source, though this system can't tell")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be written, and write nothing")
	o.stored.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
}

// restorePlan is what the flags ask for.
type restorePlan struct {
	restore.Options
	cluster  restore.Cluster
	targets  []restore.Target
	autoBump bool
}

// memberName is where a member's name goes in a path.
const memberName = "{name}"

// autoBump is what etcd's own documentation advises for Kubernetes.
const autoBump = 1_000_000_000

// parse checks what can be checked without the source.
func (o *restoreOptions) parse() (restorePlan, error) {
	p := restorePlan{Options: restore.Options{CompareKeys: true, Among: true}}
	if o.dataDir == "" {
		return p, errors.New("--data-dir is needed")
	}
	var err error
	if p.cluster, err = restore.NewCluster(o.cluster, o.token); err != nil {
		return p, fmt.Errorf("--initial-cluster: %w", err)
	}
	if p.targets, err = o.targets(p.cluster); err != nil {
		return p, err
	}
	if p.Owner, err = parseOwner(o.owner); err != nil {
		return p, fmt.Errorf("--owner: %w", err)
	}
	if o.target != "" {
		if p.For, err = datadir.ParseRelease(o.target); err != nil {
			return p, fmt.Errorf("--for: %w", err)
		}
	}
	if p.autoBump = o.bump == "auto"; p.autoBump {
		return p, nil
	}
	if p.Bump, err = strconv.ParseUint(o.bump, 10, 63); err != nil {
		return p, fmt.Errorf("--bump-revision %q: want a number or auto", o.bump)
	}
	return p, nil
}

// seed makes the data dir of a member of the living cluster.
func (o *restoreOptions) seed(cmd *cobra.Command, e *env) error {
	if err := o.checkSeed(cmd); err != nil {
		return err
	}
	if info, err := os.Stat(o.source); err == nil && !info.IsDir() {
		return withExit(exitUsage, fmt.Errorf("%s: a snapshot does not hold the cluster's id: --keep-cluster-id takes a data dir, or a backup that kept it", o.source))
	}
	seed := seedOptions{
		from: o.source, fromWAL: o.sourceWALDir, nodeID: o.nodeID, dryRun: o.dryRun, output: o.output,
		options: backup.Options{Dir: o.dataDir, WALDir: o.walDir, AssumeStopped: o.assumeStopped},
	}
	id, err := seed.parse()
	if err != nil {
		return withExit(exitUsage, err)
	}
	return backupExit(seed.run(cmd.Context(), e, id))
}

// seeds tells whether the target is a member of the living cluster.
func (o *restoreOptions) seeds() bool { return o.keepClusterID || o.nodeID != "" }

// checkSeed looks at the flags that go with a member of the living cluster.
func (o *restoreOptions) checkSeed(cmd *cobra.Command) error {
	if !o.keepClusterID || o.nodeID == "" {
		return withExit(exitUsage, errors.New("--keep-cluster-id and --node-id go together: the ids of a new cluster follow from --initial-cluster and its token"))
	}
	for _, flag := range []string{"name", "initial-cluster", "initial-cluster-token", "bump-revision", "for", "replace", "owner"} {
		if cmd.Flags().Changed(flag) {
			return withExit(exitUsage, fmt.Errorf("--%s is for a new cluster, --keep-cluster-id for a member of the living one", flag))
		}
	}
	return nil
}

// parseOwner reads USER[:GROUP], names or numbers; empty is nobody's wish. A
// user's own group goes with the user's name, the same number with a number.
func parseOwner(text string) (*atomicfile.Owner, error) {
	if text == "" {
		return nil, nil
	}
	name, group, named := strings.Cut(text, ":")
	var owner atomicfile.Owner
	if uid, err := strconv.Atoi(name); err == nil {
		owner = atomicfile.Owner{UID: uid, GID: uid}
	} else if owner, err = accountOf(name); err != nil {
		return nil, err
	}
	if !named {
		return &owner, nil
	}
	var err error
	owner.GID, err = groupOf(group)
	return &owner, err
}

func accountOf(name string) (atomicfile.Owner, error) {
	account, err := user.Lookup(name)
	if err != nil {
		return atomicfile.Owner{}, err
	}
	uid, err := strconv.Atoi(account.Uid)
	if err != nil {
		return atomicfile.Owner{}, err
	}
	gid, err := strconv.Atoi(account.Gid)
	return atomicfile.Owner{UID: uid, GID: gid}, err
}

func groupOf(name string) (int, error) {
	if gid, err := strconv.Atoi(name); err == nil {
		return gid, nil
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(group.Gid)
}

// targets are the dirs of the member that was named, or of all.
func (o *restoreOptions) targets(c restore.Cluster) ([]restore.Target, error) {
	var targets []restore.Target
	for _, name := range c.Names() {
		if o.name != "" && o.name != name {
			continue
		}
		targets = append(targets, restore.Target{Name: name, Dir: inPattern(o.dataDir, name), WALDir: inPattern(o.walDir, name)})
	}
	switch {
	case len(targets) == 0:
		_, err := c.Member(o.name)
		return nil, fmt.Errorf("--name: %w", err)
	case len(targets) == 1:
		return targets, nil
	}
	for flag, path := range map[string]string{"--data-dir": o.dataDir, "--wal-dir": o.walDir} {
		if path != "" && !strings.Contains(path, memberName) {
			return nil, fmt.Errorf("%s %s: with %d members it has to hold %s, where the member's name goes (or give --name, to make one)", flag, path, len(targets), memberName)
		}
	}
	return targets, nil
}

func inPattern(path, name string) string {
	return absolute(strings.ReplaceAll(path, memberName, name))
}

func (o *restoreOptions) run(ctx context.Context, e *env, p restorePlan) error {
	src, err := restore.Open(ctx, o.source, restore.OpenOptions{WALDir: o.sourceWALDir, AssumeStopped: o.assumeStopped})
	if err != nil {
		return err
	}
	defer src.Close()
	if src.Kind == restore.KindBackend {
		p.Hash = restore.HashSkipped
	}
	p.UseUp = o.shown != "" // it is a scratch copy
	warnings, err := p.decideBump(src)
	if err != nil {
		return err
	}
	if err := o.checkTargets(&p); err != nil {
		return err
	}
	plan, err := restore.NewPlan(src, p.cluster, p.targets, p.Options)
	if err != nil {
		return err
	}
	warnings = append(warnings, plan.Warnings...)
	for _, warning := range warnings {
		fmt.Fprintln(e.Stderr, "warning:", warning)
	}
	report := newRestoreReport(plan, o, warnings)
	if o.shown != "" {
		report.Source = o.shown
	}
	if o.dryRun {
		if err := restore.CheckTargets(p.targets, p.Options); err != nil {
			fmt.Fprintf(e.Stderr, "warning: it would be refused: %v\n", orReplace(err))
		}
		return printRestore(e, o.output, report)
	}
	bar := newProgress(e.Stderr, "restore", plan.Size())
	result, err := plan.Apply(ctx, bar.add)
	bar.done()
	if err != nil {
		return err
	}
	report.done(result)
	return printRestore(e, o.output, report)
}

// decideBump settles --bump-revision auto, and collects what there is to warn of.
func (p *restorePlan) decideBump(src *restore.Source) ([]string, error) {
	var warnings []string
	if src.Kind == restore.KindBackend {
		warnings = append(warnings, fmt.Sprintf("%s: no SHA-256 at its end: a copied backend, whose pages are checked, but whose values nothing proves", src.Path))
	}
	if wal := src.LogBeside(); wal != "" {
		warnings = append(warnings, fmt.Sprintf("the log in %s, which may hold newer writes, is not restored: give the data dir instead", wal))
	}
	if p.Bump > 0 {
		return warnings, nil
	}
	kubernetes, err := src.Kubernetes()
	switch {
	case err != nil:
		return nil, err
	case !kubernetes:
		return warnings, nil
	case p.autoBump:
		p.Bump = autoBump
		return warnings, nil
	}
	return append(warnings, "Kubernetes keeps its objects here, and its clients keep what they have seen: without --bump-revision auto they may miss changes"), nil
}

// checkTargets looks for an etcd on what is to be replaced.
func (o *restoreOptions) checkTargets(p *restorePlan) error {
	if !o.replace {
		return nil
	}
	p.Replace = time.Now().UTC().Format(".replaced-20060102T150405Z")
	for _, t := range p.targets {
		files := datadir.Files{Snap: filepath.Join(t.Dir, "member", "snap"), WAL: filepath.Join(t.Dir, "member", "wal")}
		if t.WALDir != "" {
			files.WAL = t.WALDir
		}
		if _, err := os.Stat(t.Dir); err != nil {
			continue
		}
		live, err := files.Live()
		if err != nil {
			return err
		}
		if live == datadir.Running {
			return fmt.Errorf("%s: etcd is running on it: stop it first", t.Dir)
		}
	}
	return nil
}

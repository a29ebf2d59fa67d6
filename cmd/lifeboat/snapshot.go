package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/restore"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newSnapshotCommand(e *env) *cobra.Command {
	cmd := group("snapshot", "Save, look at and restore v3 snapshots, as etcdctl and etcdutl do",
		newSnapshotRestoreCommand(e),
		newSnapshotSaveCommand(e),
		newSnapshotStatusCommand(e),
	)
	cmd.Long = `Save, look at and restore v3 snapshots: one file with the whole v3 backend.
Flags and results are those of etcdctl and etcdutl 3.7.

Raft snapshots (member/snap/TERM-INDEX.snap), which hold members and v2 keys,
are another thing: see 'lifeboat snap'. A restore that does more, from data
dirs too and to all members at once: 'lifeboat restore'.`
	return cmd
}

// The defaults of etcd's own flags.
const (
	defaultMemberName    = "default"
	defaultPeerURL       = "http://localhost:2380"
	defaultClusterToken  = "etcd-cluster"
	defaultInitialMember = defaultMemberName + "=" + defaultPeerURL
)

type snapshotRestoreOptions struct {
	path          string
	dataDir       string
	walDir        string
	name          string
	cluster       string
	token         string
	peerURLs      string
	skipHash      bool
	bump          uint64
	markCompacted bool
}

func newSnapshotRestoreCommand(e *env) *cobra.Command {
	var o snapshotRestoreOptions
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the data dir of one member of a new cluster from a snapshot",
		Long: `Make the data dir of one member of a new cluster from a snapshot, as
'etcdutl snapshot restore' does: the same ids, members and log for the same
flags, so that dirs made by both form one cluster. Run it once for each member.

The snapshot is only read, its SHA-256 is checked, and the data dir appears
whole or not at all.`,
		Example: `  lifeboat snapshot restore backup.db --data-dir /var/lib/etcd --name m1 \
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \
    --initial-advertise-peer-urls https://10.0.0.1:2380`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			if err := o.validate(); err != nil {
				return withExit(exitUsage, err)
			}
			return restoreExit(o.run(cmd.Context(), e))
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *snapshotRestoreOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "", "the data dir to make; must be absent or empty (default: NAME.etcd)")
	f.StringVar(&o.walDir, "wal-dir", "", "where the write-ahead log goes, if not into the data dir")
	f.StringVar(&o.name, "name", defaultMemberName, "name of this member")
	f.StringVar(&o.cluster, "initial-cluster", defaultInitialMember, "all members of the new cluster, NAME=PEER-URL,…")
	f.StringVar(&o.token, "initial-cluster-token", defaultClusterToken, "token of the new cluster")
	f.StringVar(&o.peerURLs, "initial-advertise-peer-urls", defaultPeerURL, "this member's peer URLs, comma-separated")
	f.BoolVar(&o.skipHash, "skip-hash-check", false, "don't check the SHA-256, which a copied member/snap/db does not have;\nits pages are checked instead")
	f.Uint64Var(&o.bump, "bump-revision", 0, "raise the latest revision by so much")
	f.BoolVar(&o.markCompacted, "mark-compacted", false, "mark the latest revision as compacted (required with --bump-revision)")
	f.Uint64("initial-memory-map-size", 0, "taken for etcdutl's sake, without effect")
	_ = f.MarkHidden("initial-memory-map-size")
	addIgnoredWriteOut(cmd)
}

// validate checks what can be checked without the file.
func (o *snapshotRestoreOptions) validate() error {
	if (o.bump > 0) != o.markCompacted {
		return errors.New("--bump-revision and --mark-compacted go together")
	}
	if o.dataDir == "" {
		o.dataDir = o.name + ".etcd"
	}
	return nil
}

func (o *snapshotRestoreOptions) run(ctx context.Context, e *env) error {
	cluster, member, err := o.identity(ctx)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	src, err := restore.OpenFile(o.path)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer src.Close()
	opts := restore.Options{Bump: o.bump}
	if o.skipHash {
		opts.Hash = restore.HashSkipped
	}
	target := restore.Target{Name: o.name, Dir: absolute(o.dataDir), WALDir: absolute(o.walDir)}
	plan, err := restore.NewPlan(src, cluster, []restore.Target{target}, opts)
	if err != nil {
		return fmt.Errorf("restore: %w", withHashHint(err))
	}
	bar := newProgress(e.Stderr, "restore", plan.Size())
	_, err = plan.Apply(ctx, bar.add)
	bar.done()
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	fmt.Fprintf(e.Stderr, "restored %s to %s: member %s (%x) of cluster %x\n", o.path, target.Dir, o.name, member.ID, cluster.ID)
	return nil
}

// identity derives the ids and checks the flags against each other.
func (o *snapshotRestoreOptions) identity(ctx context.Context) (restore.Cluster, snapcodec.Member, error) {
	cluster, err := restore.NewCluster(o.cluster, o.token)
	if err != nil {
		return cluster, snapcodec.Member{}, err
	}
	member, err := cluster.Member(o.name)
	if err != nil {
		return cluster, member, err
	}
	return cluster, member, restore.CheckAdvertised(ctx, member, strings.Split(o.peerURLs, ","))
}

// withHashHint says how to restore a file without SHA-256.
func withHashHint(err error) error {
	if errors.Is(err, restore.ErrNoHash) {
		return fmt.Errorf("%w\nIf it is a copied member/snap/db of a stopped etcd: --skip-hash-check", err)
	}
	return err
}

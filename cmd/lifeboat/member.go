package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newMemberCommand(e *env) *cobra.Command {
	return group("member", "Prepare a member of a living cluster", newMemberSeedCommand(e))
}

type seedOptions struct {
	from    string
	fromWAL string
	nodeID  string
	options backup.Options
	dryRun  bool
	output  outputFlag
}

func newMemberSeedCommand(e *env) *cobra.Command {
	var o seedOptions
	cmd := &cobra.Command{
		Use:   "seed --from DIR --node-id HEX --data-dir DIR",
		Short: "Make the data dir of a member that was just added to a living cluster",
		Long: `Seed copies the data dir of another member of the cluster, stopped, or a
'backup --keep-cluster-id' of it, for a member that was just added. Started on
it, the new member catches up from the log, without a snapshot transfer, as long
as the leader still has the entries that follow.

Add the member first (etcdctl member add prints its id), then take the source:
it must know the new member. An id that has run before is refused, since an older
log could take back what that member has acknowledged.`,
		Args: usageArgs(cobra.NoArgs),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.from, "from", "", "the data dir of another member, or a backup that kept the cluster id")
	f.StringVar(&o.fromWAL, "from-wal-dir", "", "its WAL dir, if that is elsewhere")
	f.StringVar(&o.nodeID, "node-id", "", "id of the new member, hex as 'member add' prints it")
	f.StringVar(&o.options.Dir, "data-dir", "", "the data dir to make; must be absent or empty")
	f.StringVar(&o.options.WALDir, "wal-dir", "", "the WAL dir to make, if not in --data-dir")
	f.BoolVar(&o.options.AssumeStopped, "assume-stopped", false, "no etcd runs on the source, though this system can't tell")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be written, and write nothing")
	addOutputFlag(cmd, &o.output)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		id, err := o.parse()
		if err != nil {
			return withExit(exitUsage, err)
		}
		return backupExit(o.run(cmd.Context(), e, id))
	}
	return cmd
}

func (o *seedOptions) parse() (uint64, error) {
	if o.from == "" || o.nodeID == "" || o.options.Dir == "" {
		return 0, errors.New("--from, --node-id and --data-dir are needed")
	}
	o.options.Dir, o.options.WALDir = absolute(o.options.Dir), absolute(o.options.WALDir)
	return parseNodeID(o.nodeID)
}

func (o *seedOptions) run(ctx context.Context, e *env, id uint64) error {
	src, err := datadir.Inspect(ctx, o.from, datadir.Options{WALDir: o.fromWAL})
	if err != nil {
		return fmt.Errorf("member seed: %w", err)
	}
	defer src.Close()
	plan, err := backup.NewSeed(src, id, o.options)
	if err != nil {
		return fmt.Errorf("member seed: %w", err)
	}
	report, err := applyBackup(ctx, e, "member seed", plan, o.dryRun)
	if err != nil {
		return err
	}
	if err := printBackup(e, o.output, report); err != nil || o.output == outputJSON {
		return err
	}
	_, err = fmt.Fprint(e.Stdout, seedHint(src, plan.Options, id))
	return err
}

// seedHint is what to start. The flags are for the new member's own listeners;
// who else is in the cluster it knows from its log.
func seedHint(src *datadir.Dir, o backup.Options, id uint64) string {
	wal := ""
	if o.WALDir != "" {
		wal = " --wal-dir " + o.WALDir
	}
	peers := strings.Join(src.PeerURLs[id], ",")
	return fmt.Sprintf("Start member %s, on the host of its peer URL:\n  etcd --name NAME --data-dir %s%s --initial-cluster-state existing --initial-cluster NAME=%s \\\n    --listen-peer-urls %s --initial-advertise-peer-urls %s --listen-client-urls URL --advertise-client-urls URL\n",
		snapcodec.FormatID(id), o.Dir, wal, peers, peers, peers)
}

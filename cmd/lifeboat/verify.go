package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
)

type verifyOptions struct {
	path      string
	walDir    string
	level     string
	allowTorn bool
	binary    string
	stored    verifyRepoOptions
	output    outputFlag
}

func newVerifyCommand(e *env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify DIR|FILE | verify --repo REPO [ID|latest]",
		Short: "Prove that a backup or data dir is sound and boots",
		Long: `Verify proves that a backup, a data dir or a v3 snapshot is sound:

  digest     every checksum that etcd stored: the log's chain, the snapshots'
  structure  and every record, request, key and page decodes; log, snapshot
             and backend make one state
  boot       and a copy in a temporary dir boots: v2 data in the built-in
             server, v3 data in etcd, the built-in 3.7 or --etcd-binary. It has
             the indexes, keys, users and roles that log and backend say, takes
             a write and shows it

Each level includes those before it. The default is boot; for a folder of
segments it is structure. DIR itself is only read.

With --repo a backup in a repository is verified: at level digest what is stored
is compared with the manifest, for which no key is needed; at the others it is
also unpacked to a temporary dir, verified there, and compared with what the
manifest says of its keys. The proof is written beside the backup. --all takes
every backup, --share a part of them: those whose proofs are oldest.

A check that could not run has not passed. Exit codes: 0 all passed, 3 damage
found, 1 something could not be checked.`,
		Example: `  lifeboat verify /backup/etcd
  lifeboat verify /backup/etcd --level digest -o json
  lifeboat verify snapshot.db --etcd-binary /opt/etcd-3.5/etcd
  lifeboat verify --repo /backup latest --identity key.txt
  lifeboat verify --repo s3://backup/etcd --share 10% --level digest`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.path = args[0]
			}
			return o.run(cmd, e)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.level, "level", "", "digest, structure or boot (default: boot, or structure for a folder of segments)")
	f.StringVar(&o.walDir, "wal-dir", "", "where the segments are, if not in DIR")
	f.BoolVar(&o.allowTorn, "allow-torn", false, "a last write that was cut short, as by a crash, is no damage")
	f.StringVar(&o.binary, "etcd-binary", "", "boot v3 data with this etcd (3.4 or later) instead of the built-in 3.7")
	o.stored.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *verifyRepoOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	o.pick.addFlags(cmd)
	f.BoolVar(&o.all, "all", false, "verify all backups in the repository")
	f.StringVar(&o.share, "share", "", "verify this part of all, such as 10%, at least one: those with the oldest proofs")
	f.StringVar(&o.scratch, "scratch-dir", "", "where backups are unpacked (default: $TMPDIR)")
	o.identities.addFlags(cmd)
}

// forRepo names a flag that was given and needs a repository.
func (o *verifyRepoOptions) forRepo(cmd *cobra.Command) string {
	for _, name := range []string{"cluster", "before", "label", "all", "share", "identity", "passphrase-file", "scratch-dir"} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

func (o *verifyOptions) run(cmd *cobra.Command, e *env) error {
	var level prove.Level
	if o.level != "" {
		var err error
		if level, err = repository.ParseLevel(o.level); err != nil {
			return withExit(exitUsage, fmt.Errorf("--level: %w", err))
		}
	}
	if o.stored.repo.means(o.path, e) {
		return o.checkRepo(cmd, e, level)
	}
	if flag := o.stored.forRepo(cmd); flag != "" {
		return withExit(exitUsage, fmt.Errorf("--%s is for a repository: --repo is needed (or $%s)", flag, repoVariable))
	}
	if o.path == "" {
		return withExit(exitUsage, errors.New("what is to be verified? Give a data dir, a backup, a snapshot, or --repo"))
	}
	return o.runPath(cmd.Context(), e, level)
}

// checkRepo looks at the flags that are for a repository, then verifies.
func (o *verifyOptions) checkRepo(cmd *cobra.Command, e *env, level prove.Level) error {
	several := o.stored.all || o.stored.share != ""
	switch {
	case o.stored.all && o.stored.share != "":
		return withExit(exitUsage, errors.New("--all and --share exclude each other"))
	case several && (o.path != "" || o.stored.pick.before != "" || len(o.stored.pick.labels) > 0):
		return withExit(exitUsage, errors.New("--all and --share take no id, --before or --label"))
	case o.walDir != "" || o.allowTorn:
		return withExit(exitUsage, errors.New("--wal-dir and --allow-torn are for a dir"))
	}
	if err := o.runRepo(cmd.Context(), e, level); err != nil {
		return repoExit(fmt.Errorf("verify: %w", err))
	}
	return nil
}

func (o *verifyOptions) runPath(ctx context.Context, e *env, level prove.Level) error {
	options := prove.Options{Level: level, WALDir: o.walDir, AllowTorn: o.allowTorn, Binary: o.binary}
	report, err := prove.Verify(ctx, o.path, options)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if o.output == outputJSON {
		err = printJSON(e.Stdout, report)
	} else {
		err = printProof(e.Stdout, report)
	}
	return errors.Join(err, verdict(report))
}

// verdict is the error that a report stands for.
func verdict(r *prove.Report) error {
	switch r.Result {
	case prove.Passed:
		return nil
	case prove.Damaged:
		return withExit(exitDamage, fmt.Errorf("%s: is damaged", r.Path))
	}
	return fmt.Errorf("%s: could not be verified", r.Path)
}

func printProof(w io.Writer, r *prove.Report) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LEVEL\tCHECK\tRESULT\tTIME\tFOUND")
	for _, c := range r.Checks {
		took := time.Duration(c.Seconds * float64(time.Second)).Round(time.Millisecond)
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\t%s\n", c.Level, c.Name, c.Result, took, c.Detail)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range r.Checks {
		for _, p := range c.Problems {
			fmt.Fprintf(w, "%s: %s: %s\n", c.Result, c.Name, p)
		}
	}
	if r.Note != "" {
		fmt.Fprintf(w, "%s\n", r.Note)
	}
	_, err := fmt.Fprintf(w, "%s: %s, level %s\n", r.Path, r.Result, r.Level)
	return err
}

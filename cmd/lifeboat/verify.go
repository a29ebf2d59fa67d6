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
)

type verifyOptions struct {
	path      string
	walDir    string
	level     string
	allowTorn bool
	binary    string
	output    outputFlag
}

func newVerifyCommand(e *env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify DIR|FILE",
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

A check that could not run has not passed. Exit codes: 0 all passed, 3 damage
found, 1 something could not be checked.`,
		Example: `  lifeboat verify /backup/etcd
  lifeboat verify /backup/etcd --level digest -o json
  lifeboat verify snapshot.db --etcd-binary /opt/etcd-3.5/etcd`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.run(cmd.Context(), e)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.level, "level", "", "digest, structure or boot (default: boot, or structure for a folder of segments)")
	f.StringVar(&o.walDir, "wal-dir", "", "where the segments are, if not in DIR")
	f.BoolVar(&o.allowTorn, "allow-torn", false, "a last write that was cut short, as by a crash, is no damage")
	f.StringVar(&o.binary, "etcd-binary", "", "boot v3 data with this etcd (3.4 or later) instead of the built-in 3.7")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, e *env) error {
	options := prove.Options{WALDir: o.walDir, AllowTorn: o.allowTorn, Binary: o.binary}
	if o.level != "" {
		level, err := prove.ParseLevel(o.level)
		if err != nil {
			return withExit(exitUsage, fmt.Errorf("--level: %w", err))
		}
		options.Level = level
	}
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

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/forensic"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newSnapCommand(e *env) *cobra.Command {
	return group("snap", "Look into raft snapshots and the v2 key tree in them",
		newSnapDumpCommand(e),
		newSnapLsCommand(e),
		newSnapVerifyCommand(e),
	)
}

type snapListOptions struct {
	path   string
	walDir string
	output outputFlag
}

func newSnapLsCommand(e *env) *cobra.Command {
	var o snapListOptions
	cmd := &cobra.Command{
		Use:   "ls PATH",
		Short: "List the files of member/snap",
		Long: `List the files of member/snap: snapshots with their place in the raft log,
checksum, members, v2 index, and whether the log covers them; the v3 backend;
what etcd set aside or left behind.

PATH is a data dir, a backup, a snap folder or one snapshot. Nothing is
locked or written.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.list(cmd.Context(), e)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func newSnapVerifyCommand(e *env) *cobra.Command {
	var o snapListOptions
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Check every raft snapshot",
		Long: `Check every raft snapshot of a data dir, a backup or a snap folder, or one
snapshot: the envelope, the checksum, every node of the key tree, the members,
and that the name says what the content says.

Exit codes: 0 all are sound, 3 one is damaged, 1 there was none to check.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.verify(cmd.Context(), e)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *snapListOptions) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.walDir, "wal-dir", "", "where the segments are, if not in the data dir")
	addOutputFlag(cmd, &o.output)
}

func (o *snapListOptions) list(ctx context.Context, e *env) error {
	list, err := forensic.ListSnaps(ctx, o.path, o.walDir)
	if err != nil {
		return withSnapHint(o.path, err)
	}
	return o.print(e, list)
}

// verify is list without the files that it can't check, which it names.
func (o *snapListOptions) verify(ctx context.Context, e *env) error {
	list, err := forensic.ListSnaps(ctx, o.path, o.walDir)
	if err != nil {
		return withSnapHint(o.path, err)
	}
	skipped := list.KeepSnapshots()
	if len(skipped) > 0 {
		fmt.Fprintf(e.Stderr, "not checked, not raft snapshots: %s\n", strings.Join(skipped, ", "))
	}
	if len(list.Files) == 0 {
		return fmt.Errorf("%s: %w: no TERM-INDEX.snap to check", o.path, forensic.ErrNoSnaps)
	}
	return o.print(e, list)
}

func (o *snapListOptions) print(e *env, list *forensic.SnapList) error {
	var err error
	if o.output == outputJSON {
		err = printJSON(e.Stdout, list)
	} else {
		err = printSnaps(e.Stdout, list)
	}
	if err != nil {
		return err
	}
	for _, f := range list.Files {
		if f.Problem != "" {
			fmt.Fprintf(e.Stderr, "%s: %s: %s\n", f.State, filepath.Join(list.Dir, f.Name), f.Problem)
		}
	}
	if n := list.Damaged(); n > 0 {
		return withExit(exitDamage, fmt.Errorf("%d of %d files are damaged", n, len(list.Files)))
	}
	return nil
}

func printSnaps(w io.Writer, list *forensic.SnapList) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tKIND\tTERM\tINDEX\tSIZE\tSTATE\tV2 INDEX\tNODES\tMEMBERS\tIN THE LOG")
	for _, f := range list.Files {
		index, nodes, members := "-", "-", "-"
		if f.Tree != nil {
			index, nodes, members = fmt.Sprint(f.Tree.V2Index), fmt.Sprint(f.Tree.Nodes), memberNames(f.Tree)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.Kind,
			spanText(f.Term, f.Term), spanText(f.Index, f.Index), f.Size, f.State, index, nodes, members, inLog(f))
	}
	return t.Flush()
}

func memberNames(t *forensic.TreeReport) string {
	var names []string
	for _, m := range t.Members {
		name := m.Name
		if name == "" {
			name = m.ID.String()
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

func inLog(f forensic.SnapReport) string {
	switch {
	case f.InLog == nil:
		return "-"
	case *f.InLog:
		return "yes"
	}
	return "no: " + f.InLogProblem
}

// withSnapHint says where to go with a path that is not a snapshot.
func withSnapHint(path string, err error) error {
	switch {
	case strings.HasSuffix(path, ".wal"):
		return fmt.Errorf("%w\nIt is named as a WAL segment: try 'lifeboat wal dump %s'", err, path)
	case errors.Is(err, datadir.ErrNotEtcd), errors.Is(err, forensic.ErrNoSnaps):
		return fmt.Errorf("%w\nGive a data dir (with member/snap in it), a snap folder, or one TERM-INDEX.snap", err)
	}
	return err
}

type snapDumpOptions struct {
	forensic.TreeOptions
	path   string
	walDir string
	output outputFlag
}

func newSnapDumpCommand(e *env) *cobra.Command {
	var o snapDumpOptions
	cmd := &cobra.Command{
		Use:   "dump PATH",
		Short: "Print the v2 key tree of a snapshot",
		Long: `Print the v2 key tree of a snapshot, one node a line: keys as clients know
them, and what etcd itself keeps beside them, marked internal.

PATH is one snapshot; or a data dir, a backup or a snap folder, of which the
newest usable snapshot is taken. Entries of the log after it are not in it.`,
		Example: `  lifeboat snap dump /var/lib/etcd --key '/registry/*'
  lifeboat snap dump member/snap/0000000000000002-000000000000025a.snap --members`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.run(cmd.Context(), e)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.walDir, "wal-dir", "", "where the segments are, if not in the data dir")
	flags.StringVar(&o.Key, "key", "", "print this key or path only; a * at the end takes all that start so")
	flags.BoolVar(&o.Members, "members", false, "print the members instead of the keys")
	flags.IntVar(&o.Width, "width", 80, "cut values in lines to so many bytes, 0 for whole")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *snapDumpOptions) run(ctx context.Context, e *env) error {
	if o.Width < 0 {
		return withExit(exitUsage, fmt.Errorf("--width %d: want 0 or more", o.Width))
	}
	if o.output == outputJSON {
		o.Format = forensic.FormatJSON
	}
	tree, err := forensic.OpenTree(ctx, o.path, o.walDir)
	if err != nil {
		return withSnapHint(o.path, snapDamage(err))
	}
	if tree.Why != "" {
		h := tree.Header()
		fmt.Fprintf(e.Stderr, "reading %s (term %d, index %d): %s\n", tree.Path, h.Term, h.Index, tree.Why)
	}
	o.Now = time.Now()
	err = forensic.DumpTree(e.Stdout, tree, o.TreeOptions)
	return snapDamage(errors.Join(err, tree.Close()))
}

// snapDamage gives damage its exit code.
func snapDamage(err error) error {
	var corrupt *snapcodec.CorruptError
	if errors.As(err, &corrupt) {
		return withExit(exitDamage, corrupt)
	}
	return err
}

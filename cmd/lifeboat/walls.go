package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/forensic"
)

type walLsOptions struct {
	walSource
	output outputFlag
}

func newWALLsCommand(e *env) *cobra.Command {
	var o walLsOptions
	cmd := &cobra.Command{
		Use:   "ls PATH",
		Short: "List the segments of a log and sum it up",
		Long: `List the segments of a log, and sum up whose log it is, what it holds and
which etcd it points to.

PATH is a data dir, a backup, a folder of segments or one segment file. A
running member does not mind: no lock is taken and nothing is written.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.setPath(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context(), e)
		},
	}
	o.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *walLsOptions) run(ctx context.Context, e *env) error {
	log, survey, err := o.survey(ctx)
	if err != nil {
		return err
	}
	facts, err := log.Facts(ctx, survey)
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	report := log.Report(survey, facts)
	if o.output == outputJSON {
		err = printJSON(e.Stdout, report)
	} else {
		err = printWAL(e.Stdout, report)
	}
	if err != nil {
		return err
	}
	tellDamage(e.Stderr, survey)
	tellTorn(e.Stderr, log, survey)
	if len(survey.Damage) > 0 {
		return withExit(exitDamage, fmt.Errorf("the log is damaged in %s", counted(len(survey.Damage), "place")))
	}
	return nil
}

func printWAL(w io.Writer, r forensic.LogReport) error {
	if err := printSegments(w, r); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("log", "%s (%s, member %s)", r.WALDir, r.Layout, r.Member)
	row("node id", "%s", orNone(r.NodeID))
	row("cluster id", "%s", orNone(r.ClusterID))
	row("entries", "%s", entriesText(r))
	row("hard state", "%s", stateText(r.HardState))
	for i, s := range r.Snapshots {
		row(once(i, "snapshots"), "index %d, term %d%s", s.Index, s.Term, votersText(s))
	}
	if f := r.Entries; f != nil {
		row("they are", "%s", kindsText(f))
		for i, line := range f.Evidence {
			row(once(i, "written by"), "%s", line)
		}
	}
	if len(r.Others) > 0 {
		row("beside it", "%s", strings.Join(r.Others, ", "))
	}
	return t.Flush()
}

func printSegments(w io.Writer, r forensic.LogReport) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "SEQ\tSEGMENT\tINDEX\tTERM\tENTRIES\tUSED\tSIZE\tSTATE")
	for _, s := range r.Segments {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", s.Seq, s.Name,
			spanText(s.FirstIndex, s.LastIndex), spanText(s.FirstTerm, s.LastTerm), s.Entries, s.Used, s.Size, segmentState(s))
	}
	return t.Flush()
}

func segmentState(s forensic.SegmentReport) string {
	switch {
	case s.Damage > 0:
		return "damaged in " + counted(s.Damage, "place")
	case s.Torn:
		return "torn tail"
	}
	return "ok"
}

// spanText writes first and last as a range.
func spanText(first, last uint64) string {
	switch {
	case last == 0:
		return "-"
	case first == last, first == 0:
		return fmt.Sprint(last)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func orNone(id *forensic.ID) string {
	if id == nil {
		return "unknown: no metadata record is readable"
	}
	return id.String()
}

func entriesText(r forensic.LogReport) string {
	if r.Records.Entry == 0 {
		return "none"
	}
	text := fmt.Sprintf("%s, %d records, last term %d", spanText(r.FirstIndex, r.LastIndex), r.Records.Entry, r.LastTerm)
	if r.Entries != nil && r.Entries.Overwritten > 0 {
		text += fmt.Sprintf(", %d overwritten", r.Entries.Overwritten)
	}
	return text
}

func stateText(h *forensic.StateReport) string {
	if h == nil {
		return "none"
	}
	return fmt.Sprintf("term %d, vote %s, commit %d", h.Term, h.Vote, h.Commit)
}

func votersText(s forensic.SnapshotReport) string {
	if len(s.Voters) == 0 {
		return ""
	}
	return ", voters " + joinIDs(s.Voters)
}

func joinIDs(ids []forensic.ID) string {
	var words []string
	for _, id := range ids {
		words = append(words, id.String())
	}
	return strings.Join(words, " ")
}

func kindsText(f *forensic.EntryReport) string {
	var words []string
	for _, kind := range []struct {
		n    int64
		name string
	}{{f.V2, "v2 request"}, {f.V3, "v3 request"}, {f.ConfChange, "conf change"}, {f.Noop, "no-op"}, {f.Unknown, "unknown payload"}} {
		if kind.n > 0 {
			words = append(words, counted(kind.n, kind.name))
		}
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}

// once is the name of a row, for the first of several only.
func once(i int, name string) string {
	if i > 0 {
		return ""
	}
	return name
}

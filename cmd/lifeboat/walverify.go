package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/forensic"
)

type walVerifyOptions struct {
	walSource
	output outputFlag
	strict bool
}

func newWALVerifyCommand(e *env) *cobra.Command {
	var o walVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Check every record of a log",
		Long: `Check every record of a log: framing, checksums across all segments, shape of
the payloads, missing segments and entries, and that the log reaches its
commit index.

PATH is a data dir, a backup, a folder of segments or one segment file. A
running member does not mind: no lock is taken and nothing is written.

Exit codes: 0 clean (a torn tail is told, and refused with --strict), 3
damaged, 1 could not be checked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.setPath(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context(), e)
		},
	}
	o.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	cmd.Flags().BoolVar(&o.strict, "strict", false, "take a torn tail as damage")
	return cmd
}

func (o *walVerifyOptions) run(ctx context.Context, e *env) error {
	log, survey, err := o.survey(ctx)
	if err != nil {
		return err
	}
	if err := log.Close(); err != nil {
		return err
	}
	report := log.Report(survey, nil)
	if o.output == outputJSON {
		err = printJSON(e.Stdout, report)
	} else {
		err = printVerdict(e.Stdout, report)
	}
	if err != nil {
		return err
	}
	tellDamage(e.Stderr, survey)
	if !o.strict {
		tellTorn(e.Stderr, log, survey)
	}
	if len(survey.Damage) > 0 {
		return withExit(exitDamage, fmt.Errorf("the log is damaged in %s", counted(len(survey.Damage), "place")))
	}
	if o.strict {
		return tornRefused(survey)
	}
	return nil
}

func printVerdict(w io.Writer, r forensic.LogReport) error {
	if err := printSegments(w, r); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %s, %d records, entries %s, %s\n",
		r.Verdict, counted(len(r.Segments), "segment"), total(r.Records), spanText(r.FirstIndex, r.LastIndex), stateText(r.HardState))
	return err
}

func counted[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func total(c forensic.RecordCounts) int64 {
	return c.Metadata + c.Entry + c.State + c.CRC + c.Snapshot
}

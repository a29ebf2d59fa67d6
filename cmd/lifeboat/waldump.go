package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/forensic"
)

type walDumpOptions struct {
	walSource
	forensic.DumpOptions
	output outputFlag
	strict bool
}

func newWALDumpCommand(e *env) *cobra.Command {
	var o walDumpOptions
	cmd := &cobra.Command{
		Use:   "dump PATH",
		Short: "Print the records of a log",
		Long: `Print the records of a log, one a line: entries with what they do, hard
states, snapshot records, checksums and ids.

PATH is a data dir, a backup, a folder of segments or one segment file. A
running member does not mind: no lock is taken and nothing is written.

A torn tail (the last write cut short) ends the dump and is told on stderr.
Damage elsewhere ends it with exit code 3; --skip-damage reads on and prints
what was skipped in its place.

What --type takes: kinds of records, v2 and v3, groups, types of entries:

` + wrapWords(forensic.Types(), 76),
		Example: `  lifeboat wal dump /var/lib/etcd
  lifeboat wal dump /var/lib/etcd --type put,delete --key '/registry/pods/*'
  lifeboat wal dump /var/lib/etcd --from-index 4410 -o json | jq .key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.setPath(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context(), e)
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *walDumpOptions) addFlags(cmd *cobra.Command) {
	o.walSource.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	flags := cmd.Flags()
	flags.Uint64Var(&o.FromIndex, "from-index", 0, "first index to print")
	flags.Uint64Var(&o.ToIndex, "to-index", 0, "last index to print")
	flags.StringSliceVar(&o.Types, "type", nil, "print these types only, separated by commas")
	flags.StringVar(&o.Key, "key", "", "print entries that touch this v3 key or v2 path; a * at the end takes all that start so")
	flags.BoolVar(&o.Effective, "effective", false, "leave out entries that a later leader overwrote")
	flags.BoolVar(&o.SkipDamage, "skip-damage", false, "read on past damage, and say what was skipped")
	flags.BoolVar(&o.strict, "strict", false, "take a torn tail as damage")
	flags.IntVar(&o.Width, "width", 80, "cut values in lines to so many bytes, 0 for whole")
	flags.BoolVar(&o.Offsets, "offsets", false, "begin lines with SEGMENT:OFFSET")
}

func (o *walDumpOptions) run(ctx context.Context, e *env) error {
	if o.Width < 0 {
		return withExit(exitUsage, fmt.Errorf("--width %d: want 0 or more", o.Width))
	}
	if o.output == outputJSON {
		o.Format = forensic.FormatJSON
	}
	if err := o.Check(); err != nil {
		return withExit(exitUsage, err)
	}
	log, survey, err := o.survey(ctx)
	if err != nil {
		return err
	}
	o.Now = time.Now()
	err = forensic.Dump(ctx, e.Stdout, log, survey, o.DumpOptions)
	if err = errors.Join(err, log.Close()); err != nil {
		return o.stopped(err)
	}
	tellDamage(e.Stderr, survey)
	if o.strict {
		err = tornRefused(survey)
	} else {
		tellTorn(e.Stderr, log, survey)
	}
	if len(survey.Damage) > 0 {
		return withExit(exitDamage, fmt.Errorf("the log is damaged in %s", counted(len(survey.Damage), "place")))
	}
	return err
}

// stopped adds to damage how to read on.
func (o *walDumpOptions) stopped(err error) error {
	var damage *forensic.Damage
	if errors.As(err, &damage) {
		return withExit(exitDamage, fmt.Errorf("%w\n--skip-damage reads on behind it", damage))
	}
	return err
}

// wrapWords sets words in lines of width columns, indented by two.
func wrapWords(words []string, width int) string {
	var b strings.Builder
	column := width
	for _, word := range words {
		if column+1+len(word) > width {
			b.WriteString("\n  ")
			column = 2
		} else {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return strings.TrimPrefix(b.String(), "\n")
}

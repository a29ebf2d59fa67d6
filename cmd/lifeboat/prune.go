package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

type pruneOptions struct {
	repo    repoFlag
	cluster string
	keep    keepFlags
	lockFor string
	yes     bool
	dryRun  bool
	output  outputFlag
}

// keepFlags are the rules of a policy.
type keepFlags struct {
	counts   map[string]*string
	within   string
	timezone string
}

// keepRules names the rules that count, and where their numbers go.
var keepRules = []struct {
	name string
	of   func(*repository.Policy) *int
}{
	{"last", func(p *repository.Policy) *int { return &p.Last }},
	{"hourly", func(p *repository.Policy) *int { return &p.Hourly }},
	{"daily", func(p *repository.Policy) *int { return &p.Daily }},
	{"weekly", func(p *repository.Policy) *int { return &p.Weekly }},
	{"monthly", func(p *repository.Policy) *int { return &p.Monthly }},
	{"yearly", func(p *repository.Policy) *int { return &p.Yearly }},
}

func newPruneCommand(e *env) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune --repo REPO --keep-…",
		Short: "Remove the backups that no rule keeps",
		Long: `Prune removes backups that none of the rules keeps, and what died saves and
prunes left that is older than a day. Each cluster is decided on by itself.

--keep-daily 7 keeps the newest backup of each of the last 7 days that have one,
and so on; --keep-last the newest so many; --keep-within all of that time.
Never removed are the newest backup, the newest that is proven at each level,
those on hold, and whatever can't be read or isn't a repository's.

In a terminal it only shows what it would do, unless --yes is given; elsewhere,
as from cron, it does it, unless --dry-run is given.`,
		Example: `  lifeboat prune --repo /backup/etcd --keep-last 3 --keep-daily 7 --keep-weekly 5 --keep-monthly 12
  lifeboat prune --repo s3://backups/etcd --keep-within 30d --yes`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			policy, err := o.keep.policy()
			if err == nil && o.yes && o.dryRun {
				err = errors.New("--yes and --dry-run exclude each other")
			}
			if err != nil {
				return withExit(exitUsage, err)
			}
			if err := o.run(cmd.Context(), e, policy); err != nil {
				return repoExit(fmt.Errorf("prune: %w", err))
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.cluster, "cluster", "", "only this cluster's (default: each, by itself)")
	o.keep.addFlags(cmd)
	f.StringVar(&o.lockFor, "lock-for", "", "lock the objects of what is kept for so long from now, such as 30d, where the store can")
	f.BoolVar(&o.yes, "yes", false, "remove, in a terminal too")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be removed, and why the rest is kept")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (k *keepFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	k.counts = map[string]*string{}
	for _, rule := range keepRules {
		k.counts[rule.name] = f.String("keep-"+rule.name, "", "keep the newest backup of so many of these that have one, or all")
	}
	f.Lookup("keep-last").Usage = "keep the newest so many, or all"
	f.StringVar(&k.within, "keep-within", "", "keep all that are not older, such as 36h, 30d or 1y6m")
	f.StringVar(&k.timezone, "timezone", "Local", "whose calendar days, weeks, months and years are, such as Europe/Berlin")
}

// policy reads the rules.
func (k *keepFlags) policy() (repository.Policy, error) {
	var p repository.Policy
	var err error
	for _, rule := range keepRules {
		if *rule.of(&p), err = parseKeep(*k.counts[rule.name]); err != nil {
			return p, fmt.Errorf("--keep-%s %w", rule.name, err)
		}
	}
	if k.within != "" {
		if p.Within, err = repository.ParseSpan(k.within); err != nil {
			return p, fmt.Errorf("--keep-within: %w", err)
		}
	}
	if p.Location, err = time.LoadLocation(k.timezone); err != nil {
		return p, fmt.Errorf("--timezone: %w", err)
	}
	if err := p.Validate(); errors.Is(err, repository.ErrNoRule) {
		return p, errors.New("no rule says what to keep: give at least one of --keep-last, --keep-hourly, --keep-daily, --keep-weekly, --keep-monthly, --keep-yearly, --keep-within")
	} else if err != nil {
		return p, err
	}
	return p, nil
}

// parseKeep reads a number, or all; nothing is none.
func parseKeep(text string) (int, error) {
	switch text {
	case "":
		return 0, nil
	case "all":
		return repository.Unlimited, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q: want a number or all", text)
	}
	return n, nil
}

func (o *pruneOptions) run(ctx context.Context, e *env, policy repository.Policy) error {
	now := time.Now()
	options, err := o.options(now)
	if err != nil {
		return withExit(exitUsage, err)
	}
	repo, err := o.repo.open(ctx, e)
	if err != nil {
		return err
	}
	plan, err := repo.PlanPrune(ctx, o.cluster, policy, now)
	if err != nil {
		return err
	}
	report := newPruneReport(plan)
	if report.DryRun = o.onlyShows(e); report.DryRun {
		if err := o.print(e, plan, report, now); err != nil {
			return err
		}
		return planDamage(repo, plan)
	}
	result, err := plan.Apply(ctx, options)
	if result != nil {
		report.apply(result)
	}
	return errors.Join(o.print(e, plan, report, now), err, planDamage(repo, plan))
}

// options are those of the removal.
func (o *pruneOptions) options(now time.Time) (repository.PruneOptions, error) {
	if o.lockFor == "" {
		return repository.PruneOptions{}, nil
	}
	span, err := repository.ParseSpan(o.lockFor)
	if err != nil {
		return repository.PruneOptions{}, fmt.Errorf("--lock-for: %w", err)
	}
	return repository.PruneOptions{LockFor: now.Sub(span.Before(now))}, nil
}

// onlyShows tells whether nothing is to be removed: that is the rule where
// somebody looks on.
func (o *pruneOptions) onlyShows(e *env) bool {
	f, ok := e.Stdout.(*os.File)
	return o.dryRun || !o.yes && ok && term.IsTerminal(int(f.Fd()))
}

// planDamage is the error for what could not be read and so was left.
func planDamage(repo *repository.Repository, p *repository.PrunePlan) error {
	if len(p.Damaged) == 0 {
		return nil
	}
	return withExit(exitDamage, fmt.Errorf("%s: %s damaged and left as they are, see above", repo, numbered(len(p.Damaged), "object")))
}

func (o *pruneOptions) print(e *env, p *repository.PrunePlan, r *pruneReport, now time.Time) error {
	if o.output == outputJSON {
		return printJSON(e.Stdout, r)
	}
	if err := r.printTable(e.Stdout, p, now); err != nil {
		return err
	}
	if err := printLeft(e.Stdout, &repository.Listing{Unfinished: p.Waiting, Damaged: p.Damaged, Unknown: p.Unknown}, now); err != nil {
		return err
	}
	if _, err := io.WriteString(e.Stdout, r.summary()); err != nil {
		return err
	}
	if r.DryRun && !o.dryRun {
		fmt.Fprintln(e.Stderr, "Nothing was removed. To remove what is marked: add --yes")
	}
	return nil
}

func (r *pruneReport) printTable(w io.Writer, p *repository.PrunePlan, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tCLUSTER\tAGE\tSTORED\t\tBECAUSE")
	for i, d := range p.Decisions {
		_, stored := d.Backup.Size()
		entry := r.Backups[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", entry.ID, entry.Cluster, ago(d.Backup.Manifest.Started, now),
			formatBytes(stored), entry.Outcome, strings.Join(entry.Reasons, "; "))
	}
	for _, l := range r.Leftovers {
		fmt.Fprintf(table, "%s\t%s\t\t%s\t%s\t%s\n", l.ID, l.Cluster, formatBytes(l.Size), l.Outcome, "left by a save or prune that died")
	}
	return table.Flush()
}

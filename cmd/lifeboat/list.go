package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

type listOptions struct {
	repo    repoFlag
	cluster string
	labels  []string
	maxAge  string
	output  outputFlag
}

func newListCommand(e *env) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list --repo REPO",
		Short: "List the backups in a repository",
		Long: `List shows the backups in a repository, the oldest first, and what else lies
there: saves that are under way or died, what can't be read, what is not a
repository's.

With --max-age it fails with exit code 7 if the newest backup of some cluster
that a verification passed is older: for a monitor that has to cry out when
backups stop, or are never verified.`,
		Example: `  lifeboat list --repo /backup/etcd
  lifeboat list --repo s3://backups/etcd --cluster prod --max-age 26h`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.run(cmd.Context(), e); err != nil {
				return repoExit(fmt.Errorf("list: %w", err))
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.cluster, "cluster", "", "only this cluster's")
	f.StringArrayVar(&o.labels, "label", nil, "only backups with this label, KEY=VALUE; may be repeated")
	f.StringVar(&o.maxAge, "max-age", "", "fail if the newest verified backup is older, such as 26h or 7d")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *listOptions) run(ctx context.Context, e *env) error {
	labels, err := repository.ParseLabels(o.labels)
	if err != nil {
		return withExit(exitUsage, err)
	}
	now := time.Now()
	var oldest time.Time
	if o.maxAge != "" {
		span, err := repository.ParseSpan(o.maxAge)
		if err != nil {
			return withExit(exitUsage, fmt.Errorf("--max-age: %w", err))
		}
		oldest = span.Before(now)
	}
	repo, err := o.repo.open(ctx, e)
	if err != nil {
		return err
	}
	listing, err := repo.List(ctx, o.cluster)
	if err != nil {
		return err
	}
	shown := slices.DeleteFunc(slices.Clone(listing.Backups), func(b *repository.Backup) bool { return !hasLabels(b, labels) })
	if err := o.print(e, listing, shown, now); err != nil {
		return err
	}
	return errors.Join(listingDamage(repo, listing), tooOld(shown, oldest), noneOf(repo, shown))
}

func hasLabels(b *repository.Backup, labels map[string]string) bool {
	for key, value := range labels {
		if b.Manifest.Labels[key] != value {
			return false
		}
	}
	return true
}

// listingDamage is the error for what a listing could not read.
func listingDamage(repo *repository.Repository, l *repository.Listing) error {
	if len(l.Damaged) == 0 {
		return nil
	}
	return withExit(exitDamage, fmt.Errorf("%s: %s damaged, see above", repo, numbered(len(l.Damaged), "object")))
}

// noneOf is the error where there is no backup: an empty list is no good news.
func noneOf(repo *repository.Repository, shown []*repository.Backup) error {
	if len(shown) > 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", repo, errNoBackups)
}

// tooOld is the error for the clusters whose newest verified backup is older;
// a zero time asks for nothing.
func tooOld(shown []*repository.Backup, oldest time.Time) error {
	if oldest.IsZero() {
		return nil
	}
	if len(shown) == 0 {
		return withExit(exitTooOld, errors.New("there is no verified backup at all"))
	}
	newest := map[string]time.Time{}
	for _, b := range shown {
		at := newest[b.Cluster()]
		if b.Proven(repository.Digest) != nil && len(b.Damaged) == 0 && b.Manifest.Started.After(at) {
			at = b.Manifest.Started
		}
		newest[b.Cluster()] = at
	}
	var errs []error
	for cluster, at := range newest {
		switch {
		case at.IsZero():
			errs = append(errs, fmt.Errorf("%s: no backup is verified", cluster))
		case at.Before(oldest):
			errs = append(errs, fmt.Errorf("%s: the newest verified backup is of %s", cluster, at.Format(time.RFC3339)))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return withExit(exitTooOld, errors.Join(errs...))
}

func (o *listOptions) print(e *env, l *repository.Listing, shown []*repository.Backup, now time.Time) error {
	if o.output == outputJSON {
		return printJSON(e.Stdout, newListReport(l, shown))
	}
	if len(shown) > 0 {
		if err := printBackups(e.Stdout, shown, now); err != nil {
			return err
		}
	}
	return printLeft(e.Stdout, l, now)
}

func printBackups(w io.Writer, shown []*repository.Backup, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tCLUSTER\tAGE\tKIND\tETCD\tREVISION\tKEYS\tSTORED\tVERIFIED\tNOTES")
	for _, b := range shown {
		m := b.Manifest
		_, stored := b.Size()
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", m.ID, m.Cluster, ago(m.Started, now), m.Kind,
			orDash(m.EtcdVersion), m.Revision, keyCount(m), formatBytes(stored), verified(b, now), strings.Join(remarks(b), ", "))
	}
	return table.Flush()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func keyCount(m repository.Manifest) string {
	if m.Keys == nil {
		return "-"
	}
	return strconv.FormatInt(*m.Keys, 10)
}

// verified says what the last proof found, if it can be read.
func verified(b *repository.Backup, now time.Time) string {
	if len(b.Proofs) == 0 {
		return "never"
	}
	p := b.Proofs[len(b.Proofs)-1]
	switch {
	case p.Result != repository.ResultPassed:
		return fmt.Sprintf("%s (%s, %s ago)", strings.ToUpper(string(p.Result)), p.Level, ago(p.Time, now))
	case b.Proven(p.Level) == nil:
		return "UNKNOWN"
	}
	for _, level := range []repository.Level{repository.Boot, repository.Structure} {
		if best := b.Proven(level); best != nil {
			p = *best
			break
		}
	}
	return fmt.Sprintf("%s %s ago", p.Level, ago(p.Time, now))
}

// remarks are what else there is to know at a glance.
func remarks(b *repository.Backup) []string {
	var notes []string
	if len(b.Damaged) > 0 {
		notes = append(notes, "DAMAGED")
	}
	if len(b.Unread) > 0 {
		notes = append(notes, "PROOF UNREADABLE")
	}
	if b.Manifest.Encryption != "" {
		notes = append(notes, "encrypted")
	}
	if b.Hold != nil {
		notes = append(notes, "held")
	}
	if b.Pruned != nil {
		notes = append(notes, "being pruned")
	}
	return append(notes, labelTexts(b.Manifest.Labels)...)
}

func labelTexts(labels map[string]string) []string {
	var texts []string
	for key, value := range labels {
		texts = append(texts, key+"="+value)
	}
	slices.Sort(texts)
	return texts
}

// printLeft shows what is not a sound backup.
func printLeft(w io.Writer, l *repository.Listing, now time.Time) error {
	var b strings.Builder
	for _, u := range l.Unfinished {
		what := "unfinished: a save under way, or one that died"
		if u.Pruned {
			what = "what a prune left that did not end"
		}
		fmt.Fprintf(&b, "%s of %s: %s; %s, last written %s ago\n", u.ID, u.Cluster, what, formatBytes(u.Size), ago(u.Modified, now))
	}
	for _, d := range l.Damaged {
		fmt.Fprintf(&b, "damaged: %v\n", d.Err)
	}
	for i, key := range l.Unknown {
		if i == maxUnknown {
			fmt.Fprintf(&b, "and %d more unknown objects\n", len(l.Unknown)-i)
			break
		}
		fmt.Fprintf(&b, "unknown: %s is none of a repository's objects\n", key)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxUnknown bounds how many foreign objects are named.
const maxUnknown = 20

func numbered(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return fmt.Sprintf("%d %ss are", n, noun)
}

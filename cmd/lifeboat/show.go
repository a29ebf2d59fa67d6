package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

type showOptions struct {
	repo   repoFlag
	pick   pickFlags
	output outputFlag
}

func newShowCommand(e *env) *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use:   "show --repo REPO [ID|latest]",
		Short: "Show all that is known of a backup",
		Long: `Show prints what the manifest of a backup says: where it is from, what it holds,
its parts with sizes and digests, for whom it is encrypted, its proofs and hold.

ID is an id or the beginning of one, latest or latest-verified.`,
		Example: `  lifeboat show --repo /backup/etcd latest
  lifeboat show --repo /backup/etcd 20261120T030000Z -o json`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.run(cmd.Context(), e, strings.Join(args, "")); err != nil {
				return repoExit(fmt.Errorf("show: %w", err))
			}
			return nil
		},
	}
	o.repo.addFlag(cmd)
	o.pick.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *showOptions) run(ctx context.Context, e *env, id string) error {
	sel, err := o.pick.selector(id)
	if err != nil {
		return withExit(exitUsage, err)
	}
	repo, err := o.repo.open(ctx, e)
	if err != nil {
		return err
	}
	b, why, err := repo.Find(ctx, sel)
	if err != nil {
		return err
	}
	if o.output == outputJSON {
		return printJSON(e.Stdout, newBackupEntry(b))
	}
	fmt.Fprintf(e.Stderr, "%s: %s\n", b.ID(), why)
	return showBackup(e.Stdout, b, time.Now())
}

// showBackup prints a backup for people.
func showBackup(w io.Writer, b *repository.Backup, now time.Time) error {
	m := b.Manifest
	var text strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&text, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("id", "%s", m.ID)
	line("cluster", "%s (id %s)", m.Cluster, orDash(m.ClusterID))
	line("taken", "%s to %s, %s ago, by %s", m.Started.Format(time.RFC3339), m.Finished.Format(time.RFC3339), ago(m.Started, now), m.Tool)
	line("from", "%s", origin(m))
	line("etcd", "%s, storage version %s", orDash(m.EtcdVersion), orDash(m.StorageVersion))
	line("raft", "term %d, index %d", m.RaftTerm, m.RaftIndex)
	line("keys", "%s", keysLine(m))
	for _, member := range m.Members {
		line("member", "%s %s, peers %s", member.ID, orDash(member.Name), orDash(strings.Join(member.PeerURLs, ",")))
	}
	plain, stored := b.Size()
	line("size", "%s, stored as %s", formatBytes(plain), formatBytes(stored))
	if m.Encryption != "" {
		line("encrypted", "for %s", strings.Join(m.Recipients, ", "))
	} else {
		line("encrypted", "no")
	}
	if len(m.Labels) > 0 {
		line("labels", "%s", strings.Join(labelTexts(m.Labels), ", "))
	}
	if b.Hold != nil {
		line("held", "since %s: %s", b.Hold.Time.Format(time.RFC3339), b.Hold.Reason)
	}
	if b.Pruned != nil {
		line("pruned", "a removal began at %s", b.Pruned.Time.Format(time.RFC3339))
	}
	for _, note := range m.Notes {
		line("note", "%s", note)
	}
	for _, err := range b.Damaged {
		line("DAMAGED", "%v", err)
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return err
	}
	return showTables(w, b, now)
}

// origin says where a backup was taken from.
func origin(m repository.Manifest) string {
	member := fmt.Sprintf("member %s %s", orDash(m.MemberID), m.MemberName)
	if m.Kind == repository.Live {
		return fmt.Sprintf("%s, a snapshot through %s", strings.TrimSpace(member), m.Endpoint)
	}
	return strings.TrimSpace(member) + ", its files"
}

// keysLine says what keys there are. Only v3 data has a revision.
func keysLine(m repository.Manifest) string {
	if m.V2 && m.Revision == 0 {
		return "v2 data only"
	}
	text := fmt.Sprintf("%s at revision %d, ", someKeys(m.Keys), m.Revision) + compacted(m.CompactRevision)
	if m.HashKV != nil {
		text += fmt.Sprintf(", hashKV %d at %d", *m.HashKV, m.HashRevision)
	}
	if m.V2 {
		text += ", and v2 data"
	}
	return text
}

func someKeys(n *int64) string {
	if n == nil {
		return "keys"
	}
	return counted(int(*n), "key")
}

// compacted says up to where a key's history is gone; etcd writes -1 for nowhere.
func compacted(revision int64) string {
	if revision <= 0 {
		return "never compacted"
	}
	return fmt.Sprintf("compacted to %d", revision)
}

// showTables prints parts and proofs.
func showTables(w io.Writer, b *repository.Backup, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nPART\tSIZE\tSTORED\tSHA-256")
	for _, p := range b.Manifest.Parts {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.Name, formatBytes(p.Size), formatBytes(p.StoredSize), p.SHA256)
	}
	if len(b.Proofs) == 0 {
		fmt.Fprintln(table, "\nNever verified: lifeboat verify proves that it can be restored")
		return table.Flush()
	}
	fmt.Fprintln(table, "\nVERIFIED\tLEVEL\tRESULT\tTOOK\tBY\tFOUND")
	for _, p := range b.Proofs {
		took := time.Duration(p.Seconds * float64(time.Second)).Round(time.Millisecond)
		fmt.Fprintf(table, "%s ago\t%s\t%s\t%v\t%s\t%s\n", ago(p.Time, now), p.Level, p.Result, took, p.Tool, proofFinding(p))
	}
	return table.Flush()
}

// proofFinding is what there is to say of a proof in a line.
func proofFinding(p repository.Proof) string {
	for _, c := range p.Checks {
		if c.Result != repository.ResultPassed {
			return c.Name + ": " + c.Detail
		}
	}
	if p.HashKV != nil && p.Keys != nil {
		return fmt.Sprintf("%s, revision %d, hashKV %d", someKeys(p.Keys), p.Revision, *p.HashKV)
	}
	return fmt.Sprintf("%d checks", len(p.Checks))
}

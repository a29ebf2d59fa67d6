package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/restore"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// restoreReport is what restore prints; its JSON is described in docs/commands.
type restoreReport struct {
	Source         string          `json:"source"`
	Kind           restore.Kind    `json:"kind"`
	ClusterID      string          `json:"cluster_id"`
	InitialCluster string          `json:"initial_cluster"`
	Token          string          `json:"token"`
	Members        []memberReport  `json:"members"`
	Index          uint64          `json:"index"`
	Term           uint64          `json:"term"`
	LogEntries     int             `json:"log_entries"`
	LogBlanked     int             `json:"log_blanked"`
	Bump           uint64          `json:"bump_revision"`
	Keys           *restoredHashKV `json:"keys,omitempty"`
	Boots          []string        `json:"boots"`
	Refused        []refusal       `json:"refused"`
	Warnings       []string        `json:"warnings"`
	Written        bool            `json:"written"`
}

type memberReport struct {
	Name     string   `json:"name"`
	ID       string   `json:"id"`
	PeerURLs []string `json:"peer_urls"`
	DataDir  string   `json:"data_dir"`
	WALDir   string   `json:"wal_dir,omitempty"`
	Replaces string   `json:"replaces,omitempty"` // where what was there is kept
	Start    string   `json:"start"`
}

type restoredHashKV struct {
	Hash            uint32 `json:"hash"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compact_revision"`
}

func newRestoreReport(p *restore.Plan, o *restoreOptions, warnings []string) *restoreReport {
	r := &restoreReport{
		Source: p.Source.Path, Kind: p.Source.Kind,
		ClusterID: snapcodec.FormatID(p.Cluster.ID), InitialCluster: o.cluster, Token: o.token,
		Index: p.Index, Term: p.Term, Bump: p.Options.Bump,
		Boots: []string{}, Refused: []refusal{}, Warnings: append([]string{}, warnings...),
	}
	r.LogEntries, r.LogBlanked = p.LogEntries()
	for _, t := range p.Targets {
		r.Members = append(r.Members, r.member(p, t))
	}
	for _, release := range datadir.Tested() {
		if err := p.Facts.Boots(release); err != nil {
			r.Refused = append(r.Refused, refusal{Etcd: release.String(), Cause: err.Error()})
		} else {
			r.Boots = append(r.Boots, release.String())
		}
	}
	return r
}

func (r *restoreReport) member(p *restore.Plan, t restore.Target) memberReport {
	m, _ := p.Cluster.Member(t.Name) // NewPlan has looked for it
	report := memberReport{Name: t.Name, ID: snapcodec.FormatID(m.ID), PeerURLs: m.PeerURLs, DataDir: t.Dir, WALDir: t.WALDir}
	if p.Options.Replace != "" && occupied(t.Dir) {
		report.Replaces = t.Dir + p.Options.Replace
	}
	flags := []string{"--name", t.Name, "--data-dir", t.Dir}
	if t.WALDir != "" {
		flags = append(flags, "--wal-dir", t.WALDir)
	}
	flags = append(flags,
		"--initial-cluster", r.InitialCluster, "--initial-cluster-token", r.Token,
		"--initial-advertise-peer-urls", strings.Join(m.PeerURLs, ","),
		"--listen-peer-urls", strings.Join(listenURLs(m.PeerURLs), ","))
	report.Start = shellLine("etcd", flags)
	return report
}

// shellLine is a command line to paste into a shell.
func shellLine(program string, args []string) string {
	for _, arg := range args {
		program += " " + shellWord(arg)
	}
	return program
}

// shellWord quotes a word that a shell would take apart.
func shellWord(word string) string {
	if !strings.ContainsAny(word, " \t\n'\"\\$`&;|<>()*?[]{}#~!") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// occupied tells whether a dir holds anything but what a fresh file system does.
func occupied(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != "lost+found" })
}

// listenURLs are advertised ones that etcd can listen on: it takes no host
// names.
func listenURLs(advertised []string) []string {
	var listen []string
	for _, text := range advertised {
		u, err := url.Parse(text)
		if err == nil && u.Hostname() != "localhost" && net.ParseIP(u.Hostname()) == nil && u.Port() != "" {
			text = u.Scheme + "://" + net.JoinHostPort("0.0.0.0", u.Port())
		}
		listen = append(listen, text)
	}
	return listen
}

func (r *restoreReport) done(result restore.Result) {
	r.Written = true
	k := result.Keys
	r.Keys = &restoredHashKV{k.Hash, k.HashRevision, k.CompactRevision}
}

func printRestore(e *env, format outputFlag, r *restoreReport) error {
	if format == outputJSON {
		return printJSON(e.Stdout, r)
	}
	_, err := io.WriteString(e.Stdout, r.text())
	return err
}

func (r *restoreReport) text() string {
	var b strings.Builder
	verb := "Restored"
	if !r.Written {
		verb = "Would restore"
	}
	fmt.Fprintf(&b, "%s %s (%s)\n", verb, r.Source, r.Kind)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("cluster id", "%s", r.ClusterID)
	for _, m := range r.Members {
		line("member", "%s (%s) in %s", m.Name, m.ID, m.DataDir)
		if m.Replaces != "" {
			line("", "what was there is kept in %s", m.Replaces)
		}
	}
	if r.Kind == restore.KindDataDir {
		line("log", "%d entries after index %d, %d about the old members made no-ops", r.LogEntries, r.Index, r.LogBlanked)
	}
	if r.Bump > 0 {
		line("revision", "raised by %d and marked as compacted", r.Bump)
	}
	if r.Keys != nil {
		line("keys", "hash %d at revision %d, in every copy", r.Keys.Hash, r.Keys.Revision)
	}
	line("boots in", "etcd %s", strings.Join(r.Boots, ", "))
	for _, no := range r.Refused {
		line("not in", "etcd %s: %s", no.Etcd, no.Cause)
	}
	b.WriteString("Start it with these flags, and the client URLs and certificates as before:\n")
	for _, m := range r.Members {
		fmt.Fprintf(&b, "  %s\n", m.Start)
	}
	return b.String()
}

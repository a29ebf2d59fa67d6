package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/restore"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newDBCommand(e *env) *cobra.Command {
	cmd := group("db", "Look into v3 backends: member/snap/db and snapshots of it",
		newDBCheckCommand(e),
		newDBKeysCommand(e),
		newDBStatusCommand(e),
	)
	cmd.Long = `Look into v3 backends: member/snap/db, copies of it, and the files that
'snapshot save' makes. PATH is such a file, or a data dir, whose backend is
taken. It is only read, neither locked nor mapped; while an etcd writes to it,
what is read may mix states.`
	return cmd
}

// openBackend opens a file, or the backend of a data dir.
func openBackend(path string) (*restore.Source, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "member", "snap", "db")
	}
	return restore.OpenFile(path)
}

func newDBStatusCommand(e *env) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "status PATH",
		Short: "Sum up a backend: revisions, place in the raft log, members, buckets",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return restoreExit(dbStatus(e, args[0], output))
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// dbReport is what db status prints; its JSON is described in docs/commands.
type dbReport struct {
	File             string         `json:"file"`
	SHA256           bool           `json:"sha256"` // one is at its end
	PageSize         int64          `json:"page_size"`
	Size             int64          `json:"size"`
	Hash             string         `json:"hash"`
	Revision         int64          `json:"revision"`
	CompactRevision  int64          `json:"compact_revision"`
	ScheduledCompact int64          `json:"scheduled_compact_revision"`
	Keys             int64          `json:"keys"`
	Index            uint64         `json:"consistent_index"`
	Term             uint64         `json:"term"`
	StorageVersion   string         `json:"storage_version"`
	ClusterVersion   string         `json:"cluster_version"`
	Members          []dbMember     `json:"members"`
	Leases           int            `json:"leases"`
	AuthEnabled      bool           `json:"auth_enabled"`
	Users            int            `json:"users"`
	Roles            int            `json:"roles"`
	Alarms           []string       `json:"alarms"`
	Buckets          map[string]int `json:"buckets"` // entries
}

type dbMember struct {
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peer_urls"`
}

func dbStatus(e *env, path string, output outputFlag) error {
	src, err := openBackend(path)
	if err != nil {
		return err
	}
	defer src.Close()
	report, err := newDBReport(src)
	if err != nil {
		return err
	}
	if output == outputJSON {
		return printJSON(e.Stdout, report)
	}
	_, err = io.WriteString(e.Stdout, report.text())
	return err
}

func newDBReport(src *restore.Source) (*dbReport, error) {
	status, err := src.DB.Status()
	if err != nil {
		return nil, err
	}
	r := &dbReport{
		File: src.Path, SHA256: src.Kind == restore.KindSnapshot, PageSize: src.DB.PageSize(), Size: status.TotalSize,
		Hash: fmt.Sprintf("%x", status.Hash), Revision: status.Revision, Keys: status.TotalKey,
		CompactRevision: src.Meta.FinishedCompact, ScheduledCompact: src.Meta.ScheduledCompact,
		Index: src.Meta.ConsistentIndex, Term: src.Meta.Term, StorageVersion: src.Meta.StorageVersion,
		Members: []dbMember{}, Alarms: []string{}, Buckets: map[string]int{},
	}
	return r, errors.Join(r.addCluster(src.DB), r.addAuth(src.DB), r.addBuckets(src.DB))
}

func (r *dbReport) addCluster(db *snapcodec.DB) error {
	members, err := db.Membership()
	if err != nil {
		return err
	}
	r.ClusterVersion = members.ClusterVersion
	for _, m := range members.Members {
		r.Members = append(r.Members, dbMember{snapcodec.FormatID(m.ID), m.Name, m.PeerURLs})
	}
	alarms, err := db.Alarms()
	for _, a := range alarms {
		r.Alarms = append(r.Alarms, fmt.Sprintf("%s of member %x", a.Type, a.MemberID))
	}
	return err
}

func (r *dbReport) addAuth(db *snapcodec.DB) error {
	auth, err := db.Auth()
	if err != nil {
		return err
	}
	r.AuthEnabled, r.Users, r.Roles = auth.Enabled, len(auth.Users), len(auth.Roles)
	return db.Leases(func(snapcodec.Lease) error {
		r.Leases++
		return nil
	})
}

func (r *dbReport) addBuckets(db *snapcodec.DB) error {
	buckets, err := db.Buckets()
	if err != nil {
		return err
	}
	for _, bucket := range buckets {
		n := 0
		err := bucket.ForEach(nil, func(_, _ []byte) error {
			n++
			return nil
		})
		if err != nil {
			return err
		}
		r.Buckets[bucket.Name] = n
	}
	return nil
}

func (r *dbReport) text() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-17s %s\n", name, fmt.Sprintf(format, args...))
	}
	orNone := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	line("file", "%s", r.File)
	line("size", "%s in pages of %d bytes", formatBytes(r.Size), r.PageSize)
	line("hash", "%s", r.Hash)
	line("revision", "%d, %s", r.Revision, compacted(r.CompactRevision))
	line("keys", "%d", r.Keys)
	line("consistent index", "%d of term %d", r.Index, r.Term)
	line("storage version", "%s", orNone(r.StorageVersion))
	line("cluster version", "%s", orNone(r.ClusterVersion))
	for _, m := range r.Members {
		line("member", "%s %s %s", m.ID, m.Name, strings.Join(m.PeerURLs, ","))
	}
	line("leases", "%d", r.Leases)
	line("auth", "enabled %t, %d users, %d roles", r.AuthEnabled, r.Users, r.Roles)
	for _, alarm := range r.Alarms {
		line("alarm", "%s", alarm)
	}
	return b.String()
}

type dbKeysOptions struct {
	prefix string
	from   int64
	values bool
	output outputFlag
}

func newDBKeysCommand(e *env) *cobra.Command {
	var o dbKeysOptions
	cmd := &cobra.Command{
		Use:   "keys PATH",
		Short: "List every change of a key that the backend holds, by revision",
		Long: `List every change of a key that the backend holds, in the order of revisions:
all since the last compaction, and of each key the one in force then. Of a
deletion only the key is kept.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return restoreExit(o.run(e, args[0]))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.prefix, "prefix", "", "only keys that begin so")
	f.Int64Var(&o.from, "from-rev", 0, "start at this revision")
	f.BoolVar(&o.values, "values", false, "print the values too")
	addOutputFlag(cmd, &o.output)
	return cmd
}

// keyLine is one change, as a line of JSON has it.
type keyLine struct {
	Revision       int64  `json:"revision"`
	Sub            int64  `json:"sub"`
	Op             string `json:"op"` // put or delete
	Key            []byte `json:"key"`
	CreateRevision int64  `json:"create_revision,omitempty"`
	Version        int64  `json:"version,omitempty"`
	Lease          string `json:"lease,omitempty"`
	Size           int    `json:"size"` // of the value, bytes
	Value          []byte `json:"value,omitempty"`
}

func (o *dbKeysOptions) run(e *env, path string) error {
	src, err := openBackend(path)
	if err != nil {
		return err
	}
	defer src.Close()
	out := bufio.NewWriter(e.Stdout)
	enc := json.NewEncoder(out)
	err = src.DB.Keys(snapcodec.Revision{Main: o.from}, func(r *snapcodec.KeyRecord) error {
		kv, err := r.KeyValue()
		if err != nil || !bytes.HasPrefix(kv.Key, []byte(o.prefix)) {
			return err
		}
		line := o.line(r, kv)
		if o.output == outputJSON {
			return enc.Encode(line)
		}
		_, err = io.WriteString(out, line.text(o.values))
		return err
	})
	return errors.Join(err, out.Flush())
}

func (o *dbKeysOptions) line(r *snapcodec.KeyRecord, kv snapcodec.KeyValue) keyLine {
	line := keyLine{
		Revision: r.Revision.Main, Sub: r.Revision.Sub, Op: "put", Key: kv.Key,
		CreateRevision: kv.CreateRevision, Version: kv.Version, Size: len(kv.Value),
	}
	if r.Tombstone {
		line.Op = "delete"
	}
	if kv.Lease != 0 {
		line.Lease = fmt.Sprintf("%x", kv.Lease)
	}
	if o.values {
		line.Value = kv.Value
	}
	return line
}

func (l keyLine) text(values bool) string {
	text := fmt.Sprintf("%d.%d %s %q", l.Revision, l.Sub, l.Op, l.Key)
	if l.Op == "put" {
		text += fmt.Sprintf(" create=%d version=%d size=%d", l.CreateRevision, l.Version, l.Size)
	}
	if l.Lease != "" {
		text += " lease=" + l.Lease
	}
	if values && l.Op == "put" {
		text += fmt.Sprintf(" %q", l.Value)
	}
	return text + "\n"
}

func newDBCheckCommand(e *env) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "check PATH",
		Short: "Check every page and entry of a backend, and its SHA-256",
		Long: `Check every page and entry of a backend, and the SHA-256 at its end where there
is one. Values carry no checksum: without the SHA-256 a changed byte in a value
is not found.

Exit codes: 0 sound, 3 damaged.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return restoreExit(dbCheck(e, args[0], output))
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// checkReport is what db check prints.
type checkReport struct {
	File      string   `json:"file"`
	Pages     int64    `json:"pages"`
	Reachable int64    `json:"reachable"`
	Entries   int64    `json:"entries"`
	SHA256    string   `json:"sha256"` // matches, differs or none
	Problems  []string `json:"problems"`
	Total     int64    `json:"total"` // problems, listed or not
}

func dbCheck(e *env, path string, output outputFlag) error {
	src, err := openBackend(path)
	if err != nil {
		return err
	}
	defer src.Close()
	report, err := newCheckReport(src)
	if err != nil {
		return err
	}
	if output == outputJSON {
		err = printJSON(e.Stdout, report)
	} else {
		_, err = fmt.Fprintf(e.Stdout, "%s: %d pages, %d of them in use, %d entries, SHA-256 %s\n",
			report.File, report.Pages, report.Reachable, report.Entries, report.SHA256)
	}
	for _, problem := range report.Problems {
		fmt.Fprintln(e.Stderr, problem)
	}
	if err == nil && report.Total > 0 {
		err = withExit(exitDamage, fmt.Errorf("%s is damaged: %d problems", path, report.Total))
	}
	return err
}

func newCheckReport(src *restore.Source) (*checkReport, error) {
	found, err := src.DB.Check()
	if err != nil {
		return nil, err
	}
	r := &checkReport{
		File: src.Path, Pages: found.Pages, Reachable: found.Reachable, Entries: found.Entries,
		SHA256: "none", Problems: []string{}, Total: found.Total,
	}
	for _, problem := range found.Problems {
		r.Problems = append(r.Problems, problem.Error())
	}
	if src.Kind != restore.KindSnapshot {
		return r, nil
	}
	r.SHA256 = "matches"
	err = src.VerifyHash()
	if errors.Is(err, snapcodec.ErrChecksum) {
		r.SHA256, r.Total = "differs", r.Total+1
		r.Problems = append(r.Problems, err.Error())
		return r, nil
	}
	return r, err
}

package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// backupReport is what `backup -o json` prints; docs/commands/backup.md
// describes it.
type backupReport struct {
	Source    string          `json:"source"`
	Etcd      string          `json:"etcd"`
	Live      string          `json:"live"`
	Written   bool            `json:"written"`
	BackupDir string          `json:"backup_dir,omitempty"`
	WALDir    string          `json:"backup_wal_dir,omitempty"`
	NodeID    changedID       `json:"node_id"`
	ClusterID changedID       `json:"cluster_id"`
	Snapshot  *snapshotReport `json:"snapshot,omitempty"`
	Log       logReport       `json:"log"`
	Backend   backendReport   `json:"backend"`
	Steps     []datadir.Step  `json:"steps"`
	Boots     []string        `json:"boots"`
	Refused   []refusal       `json:"refused"`
	Warnings  []string        `json:"warnings"`

	unpacked bool // from a repository
}

type changedID struct {
	Old string `json:"old"`
	New string `json:"new"`
}

type snapshotReport struct {
	File  string `json:"file"`
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

type logReport struct {
	FirstIndex   uint64 `json:"first_index"`
	LastIndex    uint64 `json:"last_index"`
	Commit       uint64 `json:"commit"`
	SourceCommit uint64 `json:"source_commit"`
	Entries      int64  `json:"entries"`
	Changed      int64  `json:"changed"`
	Bytes        int64  `json:"bytes,omitempty"`
	Segments     int    `json:"segments,omitempty"`
}

type backendReport struct {
	Action          backup.BackendAction `json:"action"`
	ConsistentIndex uint64               `json:"consistent_index,omitempty"`
	// Revision is that of a backend which was copied while etcd ran.
	Revision int64 `json:"revision,omitempty"`
}

type refusal struct {
	Etcd    string `json:"etcd"`
	Cause   string `json:"cause"`
	Fixable bool   `json:"fixable"` // --for makes it boot
}

// newBackupReport draws a plan together, and the result once there is one.
func newBackupReport(p *backup.Plan, result *backup.Result) backupReport {
	src := p.Source
	r := backupReport{
		Source: src.Root, Etcd: src.Facts.Origin.String(), Live: src.Live.String(),
		BackupDir: p.Options.Dir, WALDir: p.Options.WALDir,
		NodeID:    changedID{snapcodec.FormatID(src.IDs.NodeID), snapcodec.FormatID(p.IDs.NodeID)},
		ClusterID: changedID{snapcodec.FormatID(src.IDs.ClusterID), snapcodec.FormatID(p.IDs.ClusterID)},
		Log: logReport{
			FirstIndex: src.Log.First, LastIndex: src.Log.Last, Entries: int64(src.Log.Entries),
			Commit: p.HardState().Commit, SourceCommit: src.Log.State.Commit,
		},
		Backend:  backendReport{Action: p.Backend, ConsistentIndex: p.Index, Revision: p.Revision},
		Steps:    append([]datadir.Step{}, p.Steps...),
		Boots:    []string{},
		Refused:  []refusal{},
		Warnings: append([]string{}, p.Warnings...),
	}
	if src.Base != nil && p.Options.Dir != "" {
		r.Snapshot = &snapshotReport{filepath.Base(src.Base.Path), src.Base.Term, src.Base.Index}
	}
	if p.Index == 0 && p.Backend == backup.BackendCopy {
		r.Backend.ConsistentIndex = src.Backend.ConsistentIndex
	}
	if p.Options.Dir != "" {
		r.addVerdicts(p.Facts)
	}
	if result != nil {
		r.Written = true
		r.Log.Entries, r.Log.Changed = result.Entries, result.Blanked
		r.Log.Bytes, r.Log.Segments = result.WALBytes, result.Segments
	}
	return r
}

func (r *backupReport) addVerdicts(f datadir.Facts) {
	for _, release := range datadir.Tested() {
		if err := f.Boots(release); err != nil {
			_, forErr := f.For(release)
			r.Refused = append(r.Refused, refusal{release.String(), err.Error(), forErr == nil})
		} else {
			r.Boots = append(r.Boots, release.String())
		}
	}
}

func printBackup(e *env, format outputFlag, r backupReport) error {
	if format == outputJSON {
		return printJSON(e.Stdout, r)
	}
	_, err := io.WriteString(e.Stdout, r.text())
	return err
}

func (r backupReport) text() string {
	var b strings.Builder
	verb := map[bool]string{true: "Backed up", false: "Would back up"}
	if r.unpacked {
		verb = map[bool]string{true: "Restored", false: "Would restore"}
	}
	fmt.Fprintf(&b, "%s %s (etcd %s, %s)\n", verb[r.Written], r.Source, r.Etcd, r.Live)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	if r.BackupDir != "" {
		line("to", "%s", r.BackupDir)
	}
	if r.WALDir != "" {
		line("log to", "%s", r.WALDir)
	}
	line("node id", "%s -> %s", r.NodeID.Old, r.NodeID.New)
	line("cluster id", "%s -> %s", r.ClusterID.Old, r.ClusterID.New)
	if r.Snapshot != nil {
		line("snapshot", "%s (term %d, index %d)", r.Snapshot.File, r.Snapshot.Term, r.Snapshot.Index)
	}
	line("log", "%s", r.Log)
	if r.Backend.Action != backup.BackendNone {
		line("v3 backend", "%s, consistent index %d%s", r.Backend.Action, r.Backend.ConsistentIndex, r.commit())
	}
	for _, step := range r.Steps {
		line("changed", "%s", step)
	}
	r.writeBoots(line)
	return b.String()
}

// commit is what the backend of a member that runs was copied as of.
func (r backupReport) commit() string {
	switch {
	case r.Backend.Revision == 0:
		return ""
	case r.Live == datadir.Running.String():
		return fmt.Sprintf(", revision %d: as of one commit, while etcd was running", r.Backend.Revision)
	default:
		return fmt.Sprintf(", revision %d: as of one commit, since etcd may be running", r.Backend.Revision)
	}
}

func (l logReport) String() string {
	text := fmt.Sprintf("%d entries", l.Entries)
	if l.Entries > 0 {
		text += fmt.Sprintf(", index %d to %d", l.FirstIndex, l.LastIndex)
	}
	text += fmt.Sprintf(", committed to %d", l.Commit)
	if l.Commit != l.SourceCommit {
		text += fmt.Sprintf(" (the source's hard state said %d)", l.SourceCommit)
	}
	return text
}

func (r backupReport) writeBoots(line func(string, string, ...any)) {
	if r.BackupDir == "" {
		return
	}
	line("boots in", "etcd %s", strings.Join(r.Boots, ", "))
	for _, no := range r.Refused {
		hint := ""
		if no.Fixable {
			hint = fmt.Sprintf(" (add --for %s)", no.Etcd)
		}
		line("not in", "etcd %s: %s%s", no.Etcd, no.Cause, hint)
	}
}

// startHint is how to boot the copy; empty for the log alone.
func (r backupReport) startHint() string {
	if r.BackupDir == "" {
		return ""
	}
	wal := ""
	if r.WALDir != "" {
		wal = " --wal-dir " + r.WALDir
	}
	return fmt.Sprintf("Start the copy as a new one-member cluster with:\n  etcd --data-dir %s%s --force-new-cluster\n", r.BackupDir, wal)
}

package main

import (
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// listReport is the JSON of list and show; docs/commands/list.md describes it.
type listReport struct {
	Backups    []backupEntry     `json:"backups"`
	Unfinished []unfinishedEntry `json:"unfinished"`
	Damaged    []string          `json:"damaged"`
	Unknown    []string          `json:"unknown"`
}

// backupEntry is a backup: its manifest as it is stored, and what is beside it.
type backupEntry struct {
	Manifest   repository.Manifest   `json:"manifest"`
	StoredSize int64                 `json:"stored_size"`
	Verified   *repository.Proof     `json:"verified"` // the newest proof at the highest level that passed
	Proofs     []repository.Proof    `json:"proofs"`
	Hold       *repository.Hold      `json:"hold"`
	Pruned     *repository.PruneMark `json:"pruned"`
	Damaged    []string              `json:"damaged"`
}

type unfinishedEntry struct {
	Cluster  string    `json:"cluster"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Pruned   bool      `json:"pruned"`
}

func newListReport(l *repository.Listing, shown []*repository.Backup) listReport {
	r := listReport{Backups: []backupEntry{}, Unfinished: []unfinishedEntry{}, Damaged: []string{}, Unknown: append([]string{}, l.Unknown...)}
	for _, b := range shown {
		r.Backups = append(r.Backups, newBackupEntry(b))
	}
	for _, u := range l.Unfinished {
		r.Unfinished = append(r.Unfinished, unfinishedEntry{u.Cluster, u.ID, u.Size, u.Modified, u.Pruned})
	}
	for _, d := range l.Damaged {
		r.Damaged = append(r.Damaged, d.Err.Error())
	}
	return r
}

func newBackupEntry(b *repository.Backup) backupEntry {
	_, stored := b.Size()
	entry := backupEntry{
		Manifest: b.Manifest, StoredSize: stored, Proofs: append([]repository.Proof{}, b.Proofs...),
		Hold: b.Hold, Pruned: b.Pruned, Damaged: []string{},
	}
	for _, level := range []repository.Level{repository.Boot, repository.Structure, repository.Digest} {
		if entry.Verified = b.Proven(level); entry.Verified != nil {
			break
		}
	}
	for _, err := range b.Damaged {
		entry.Damaged = append(entry.Damaged, err.Error())
	}
	return entry
}

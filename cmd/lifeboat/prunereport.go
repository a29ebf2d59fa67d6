package main

import (
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// pruneReport is the JSON of prune; docs/commands/prune.md describes it.
type pruneReport struct {
	Policy    string          `json:"policy"`
	DryRun    bool            `json:"dry_run"`
	Backups   []pruneEntry    `json:"backups"`
	Leftovers []leftoverEntry `json:"leftovers"`
	Damaged   []string        `json:"damaged"`
	Unknown   []string        `json:"unknown"`
	Freed     int64           `json:"freed"` // bytes
	Swept     int             `json:"swept_uploads"`
	Extended  int             `json:"extended_locks"`
}

// pruneEntry is a backup and what becomes of it: keep, remove or locked in a
// plan, keep, removed, held, locked, failed, … after it.
type pruneEntry struct {
	ID      string   `json:"id"`
	Cluster string   `json:"cluster"`
	Outcome string   `json:"outcome"`
	Reasons []string `json:"reasons"`
	Error   string   `json:"error,omitempty"`
}

type leftoverEntry struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Size    int64  `json:"size"` // bytes
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
}

func newPruneReport(p *repository.PrunePlan) *pruneReport {
	r := &pruneReport{
		Policy: p.Policy.String(), Backups: []pruneEntry{}, Leftovers: []leftoverEntry{},
		Damaged: []string{}, Unknown: append([]string{}, p.Unknown...),
	}
	for _, d := range p.Decisions {
		outcome := "remove"
		if d.Keep {
			outcome = "keep"
		}
		r.Backups = append(r.Backups, pruneEntry{ID: d.Backup.ID(), Cluster: d.Backup.Cluster(), Outcome: outcome, Reasons: d.Reasons})
	}
	r.remove(p.Locked)
	for _, u := range p.Leftovers {
		r.Leftovers = append(r.Leftovers, leftoverEntry{ID: u.ID, Cluster: u.Cluster, Size: u.Size, Outcome: "remove"})
	}
	for _, d := range p.Damaged {
		r.Damaged = append(r.Damaged, d.Err.Error())
	}
	return r
}

// apply puts in what came of the plan.
func (r *pruneReport) apply(result *repository.PruneResult) {
	r.remove(result.Removals)
	for i, cleaning := range result.Leftovers {
		r.Leftovers[i].Outcome, r.Leftovers[i].Error = string(cleaning.Outcome), errorText(cleaning.Err)
	}
	r.Freed, r.Swept, r.Extended = result.Freed, result.Swept, result.Extended
}

// remove puts in what becomes of backups that the plan removes.
func (r *pruneReport) remove(all []repository.Removal) {
	removals := map[string]repository.Removal{}
	for _, removal := range all {
		removals[removal.Backup.Cluster()+"/"+removal.Backup.ID()] = removal
	}
	for i := range r.Backups {
		entry := &r.Backups[i]
		removal, ok := removals[entry.Cluster+"/"+entry.ID]
		if !ok {
			continue
		}
		entry.Outcome, entry.Error = string(removal.Outcome), errorText(removal.Err)
		if removal.Outcome == repository.Locked && !removal.Until.IsZero() {
			entry.Outcome += " until " + removal.Until.Format("2006-01-02 15:04")
		}
		if len(removal.Reasons) > 0 {
			entry.Reasons = removal.Reasons
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// summary counts what was, or would be, done.
func (r *pruneReport) summary() string {
	gone, kept := 0, 0
	for _, b := range r.Backups {
		if b.Outcome == "remove" || b.Outcome == string(repository.Removed) || b.Outcome == string(repository.Gone) {
			gone++
		} else {
			kept++
		}
	}
	if r.DryRun {
		return fmt.Sprintf("Would keep %d and remove %d (%s)\n", kept, gone, r.Policy)
	}
	text := fmt.Sprintf("Kept %d, removed %d (%s); %s freed\n", kept, gone, r.Policy, formatBytes(r.Freed))
	if r.Extended > 0 {
		text += fmt.Sprintf("Extended the locks of %d objects\n", r.Extended)
	}
	return text
}

package repository

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how far a verification went; each includes those before it.
type Level string

// The levels.
const (
	Digest    Level = "digest"    // stored and plain bytes are those that were saved
	Structure Level = "structure" // every record decodes; log, snapshot and backend agree
	Boot      Level = "boot"      // a restored copy booted and held what the manifest says
)

var levels = []Level{Digest, Structure, Boot}

// ParseLevel reads the name of a level.
func ParseLevel(name string) (Level, error) {
	if l := Level(name); slices.Contains(levels, l) {
		return l, nil
	}
	return "", fmt.Errorf("level %q: want digest, structure or boot", name)
}

// Includes tells whether l goes at least as far as other.
func (l Level) Includes(other Level) bool {
	return slices.Index(levels, l) >= slices.Index(levels, other)
}

// Result is how a verification, or one of its checks, ended.
type Result string

// The results.
const (
	ResultPassed   Result = "passed"
	ResultDamaged  Result = "damaged"  // it found what must not be
	ResultUnproven Result = "unproven" // it could not run, or not to its end
)

var results = []Result{ResultPassed, ResultDamaged, ResultUnproven}

// Proof is what one verification of a backup found.
type Proof struct {
	Format   int    `json:"format"`
	Cluster  string `json:"cluster"`
	ID       string `json:"id"`       // of the backup
	Manifest string `json:"manifest"` // [Backup.Digest] of what was verified

	Time    time.Time `json:"time"` // when it began
	Seconds float64   `json:"seconds"`
	Level   Level     `json:"level"`
	Result  Result    `json:"result"`
	Checks  []Check   `json:"checks,omitempty"`

	Tool string `json:"tool"`
	Etcd string `json:"etcd,omitempty"` // that booted the copy
	Host string `json:"host,omitempty"`

	Revision int64   `json:"revision,omitempty"` // found
	HashKV   *uint32 `json:"hash_kv,omitempty"`  // found
	Keys     *int64  `json:"keys,omitempty"`     // found
}

// Check is one thing that a verification looked at.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// Proven returns the newest proof that passed at level or above. It is nil if
// there is none, or if a proof since then found damage at any level or can't be
// read.
func (b *Backup) Proven(level Level) *Proof {
	for i := len(b.Proofs) - 1; i >= 0; i-- {
		p := &b.Proofs[i]
		switch {
		case p.Result == ResultDamaged, b.unreadSince(p.Time):
			return nil
		case p.Result == ResultPassed && p.Level.Includes(level):
			return p
		}
	}
	return nil
}

// unreadSince tells whether there is a proof that can't be read and was not
// begun before t, by the second that its name tells.
func (b *Backup) unreadSince(t time.Time) bool {
	return slices.ContainsFunc(b.Unread, func(d Damaged) bool {
		name := strings.TrimSuffix(strings.TrimPrefix(d.Key, b.key(proofDir)), ".json")
		began, err := idBegan(name)
		return err != nil || !began.Before(t.Truncate(time.Second))
	})
}

// AddProof writes a proof beside the backup and adds it to b.Proofs. Format,
// Cluster, ID and Manifest are filled in. Proofs are never replaced: two
// verifications that end at once leave two.
func (r *Repository) AddProof(ctx context.Context, b *Backup, p Proof) error {
	p.Format, p.Cluster, p.ID, p.Manifest = Format, b.Manifest.Cluster, b.Manifest.ID, b.digest
	p.Time = stamp(p.Time)
	key := b.key(proofDir + newID(p.Time) + ".json")
	if err := putRecord(ctx, r.store, key, kindProof, p); err != nil {
		return fmt.Errorf("add a proof: %w", err)
	}
	b.Proofs = append(b.Proofs, p)
	sortProofs(b.Proofs)
	return nil
}

package restore

import (
	"errors"
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// HashCheck says what to do about a snapshot's SHA-256.
type HashCheck int

const (
	// HashRequired wants one, and that it matches.
	HashRequired HashCheck = iota
	// HashSkipped looks at the structure of the pages instead.
	HashSkipped
)

// Options of a restore; the zero value is a plain one.
type Options struct {
	Hash HashCheck
	// Bump raises the latest revision by so much and marks everything up to
	// there as compacted, so that no client sees a revision go back.
	Bump   uint64
	System atomicfile.System
}

// Target is where one member's files go.
type Target struct {
	Name   string // of the member
	Dir    string // the data dir to make
	WALDir string // where its segments go; empty: into Dir
}

// Plan is what a restore will write.
type Plan struct {
	Source   *Source
	Cluster  Cluster
	Targets  []Target
	Options  Options
	Index    uint64 // raft index at which the members start
	Term     uint64 // of that index
	State    walcodec.HardState
	Warnings []string
}

// NewPlan decides what to write; it writes nothing. The source stays open
// until the caller closes it, after Apply.
func NewPlan(src *Source, c Cluster, targets []Target, o Options) (*Plan, error) {
	p := &Plan{Source: src, Cluster: c, Targets: targets, Options: o}
	if len(targets) == 0 {
		return nil, errors.New("there is no member to restore")
	}
	for _, t := range targets {
		if _, err := c.Member(t.Name); err != nil {
			return nil, err
		}
	}
	if src.Kind == KindBackend && o.Hash == HashRequired {
		return nil, fmt.Errorf("%s: %w", src.Path, ErrNoHash)
	}
	p.startAnew()
	return p, nil
}

// ErrNoHash says that a file has no SHA-256 at its end.
var ErrNoHash = errors.New("no SHA-256 at its end, which 'snapshot save' writes: it is a copied backend, or cut short")

// startAnew begins the log with the members: one entry for each, at term 1, all
// committed. The vote is the lowest id's, as etcdutl 3.7 has it.
func (p *Plan) startAnew() {
	members := p.Cluster.Members
	p.Index, p.Term = uint64(len(members)), 1
	p.State = walcodec.HardState{Term: p.Term, Vote: members[0].ID, Commit: p.Index}
}

// Size is how many bytes Apply will copy.
func (p *Plan) Size() int64 { return p.Source.info.Size() * int64(len(p.Targets)) }

// confState has all members as voters.
func (p *Plan) confState() []uint64 { return p.Cluster.voters() }

// membership is what the .snap says of the members. Names are left out, as
// etcdutl does: a member with a name is one that has started.
func (p *Plan) membership() snapcodec.Membership {
	var m snapcodec.Membership
	for _, member := range p.Cluster.Members {
		m.Members = append(m.Members, snapcodec.Member{ID: member.ID, PeerURLs: member.PeerURLs})
	}
	return m
}

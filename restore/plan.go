package restore

import (
	"errors"
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
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
	Bump uint64
	// For is the release that is to boot the result; zero: any.
	For datadir.Release
	// Among lets a target hold other files, as long as it has no member folder.
	Among bool
	// Replace lets the targets hold something, which is kept beside them under
	// this suffix.
	Replace string
	// CompareKeys hashes the keys of every copy and compares them with each
	// other and with the source's.
	CompareKeys bool
	// UseUp lets the last member have the source's own backend file, which spares
	// a copy. The source is nothing to restore from any more then, whether the
	// restore succeeds or not.
	UseUp bool
	// Owner is whom the data dirs will belong to; nil: whom the target belongs
	// to that is there, else the source data dir, as far as we may.
	Owner  *atomicfile.Owner
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
	Facts    datadir.Facts // of the result
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
		if err := src.checkOutside(t); err != nil {
			return nil, err
		}
	}
	if src.Kind == KindBackend && o.Hash == HashRequired {
		return nil, fmt.Errorf("%s: %w", src.Path, ErrNoHash)
	}
	if err := p.placeInLog(); err != nil {
		return nil, err
	}
	return p, p.judge()
}

// placeInLog decides where in the raft log the members start.
func (p *Plan) placeInLog() error {
	if p.Source.log == nil {
		p.startAnew()
		return nil
	}
	if v3 := p.Source.log.after.v3; v3 > 0 && p.Options.Bump > 0 {
		return fmt.Errorf("%s: its log holds %d requests that the backend has not applied, and their revisions can't be raised beforehand\n"+
			"Restore it without --bump-revision, start it once, take a snapshot and restore that", p.Source.Path, v3)
	}
	p.goOn()
	return nil
}

// judge finds out which releases boot the result.
func (p *Plan) judge() error {
	facts, err := p.Source.facts()
	if err != nil {
		return err
	}
	p.Facts = facts
	if p.Options.For == (datadir.Release{}) {
		return nil
	}
	if err := facts.Boots(p.Options.For); err != nil {
		return fmt.Errorf("%s: etcd %s would not boot it: %w", p.Source.Path, p.Options.For, err)
	}
	return nil
}

// facts are those of any data dir made of the source: its log and .snap are
// new, and say who votes; the versions in the backend stay.
func (s *Source) facts() (datadir.Facts, error) {
	f := datadir.Facts{Origin: datadir.R34, Snapshot: true, Backend: true, Padded: true, Mark: true, Fresh: s.log == nil}
	if s.Meta.Term != 0 {
		f.Origin = datadir.R35
	}
	cluster, err := s.DB.Cluster()
	if err != nil {
		return f, err
	}
	if cluster.Version != "" {
		if f.ClusterVersion, err = datadir.ParseRelease(cluster.Version); err != nil {
			return f, fmt.Errorf("%s: cluster version: %w", s.Path, err)
		}
	}
	if s.Meta.StorageVersion != "" {
		if f.StorageVersion, err = datadir.ParseRelease(s.Meta.StorageVersion); err != nil {
			return f, fmt.Errorf("%s: storage version: %w", s.Path, err)
		}
		f.Origin = f.StorageVersion
	}
	return f, nil
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

// LogEntries is how many entries of a data dir's log follow the backend, and how
// many of these become no-ops.
func (p *Plan) LogEntries() (entries, blanked int) {
	if p.Source.log == nil {
		return 0, 0
	}
	return p.Source.log.after.entries, p.Source.log.after.blanked
}

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

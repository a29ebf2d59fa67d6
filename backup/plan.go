package backup

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// BackendMode says what to do about the v3 backend.
type BackendMode int

const (
	// BackendAuto copies it, if there is one.
	BackendAuto BackendMode = iota
	// BackendRequire copies it or refuses.
	BackendRequire
	// BackendSkip does the v2 part alone.
	BackendSkip
)

// Options of a backup. One of Dir and WALDir is required, the rest may be zero.
type Options struct {
	Dir    string // the data dir to make; empty: the log alone
	WALDir string // where its segments go, if not into Dir

	KeepClusterID bool
	NodeID        uint64          // 0: a fresh random one
	For           datadir.Release // zero: no changes beyond the ids

	Backend BackendMode
	// AssumeStopped takes the caller's word that no etcd runs on the source
	// where the system can't tell: the backend is copied as a file.
	AssumeStopped bool

	System atomicfile.System
}

// ErrLive and ErrMaybeLive say that an etcd stands in the way of a seed that is
// running, or may be where the system can't tell.
var (
	ErrLive      = errors.New("etcd is running on it")
	ErrMaybeLive = errors.New("this system can't tell whether etcd is running on it")
)

// BackendAction is what becomes of the v3 backend.
type BackendAction string

// The actions.
const (
	BackendNone BackendAction = "none"
	BackendCopy BackendAction = "copied"
	BackendMake BackendAction = "made empty"
)

// Plan is what a backup will write.
type Plan struct {
	Source   *datadir.Dir
	Options  Options
	IDs      walcodec.Metadata // of the copy
	Backend  BackendAction
	Index    uint64 // consistent index to write into the backend; 0: as it is
	Steps    []datadir.Step
	Facts    datadir.Facts // of the copy
	Warnings []string
	// Revision is that of the backend copied from a running member; else 0.
	Revision int64

	staged *staged // that copy; nil without one
}

// NewPlan decides what to write; it writes nothing. The source stays open
// until the caller closes it, after Apply. What it says of a running member
// that has a backend is how things are at the moment: only a plan that
// [Prepare] made can be applied.
func NewPlan(src *datadir.Dir, o Options) (*Plan, error) {
	p, err := newPlan(src, o)
	if err != nil {
		return nil, err
	}
	if err := p.chooseBackend(); err != nil {
		return nil, err
	}
	if err := p.chooseSteps(); err != nil {
		return nil, err
	}
	p.warn()
	return p, nil
}

// newPlan decides what does not depend on the backend.
func newPlan(src *datadir.Dir, o Options) (*Plan, error) {
	p := &Plan{Source: src, Options: o, Facts: src.Facts, Backend: BackendNone}
	if o.Dir == "" && o.WALDir == "" {
		return nil, errors.New("a folder to back up into is needed")
	}
	if err := p.checkPlaces(); err != nil {
		return nil, err
	}
	p.chooseIDs()
	return p, p.checkIdentity()
}

// checkPlaces refuses a target inside the source: the source is only read.
func (p *Plan) checkPlaces() error {
	for _, target := range []string{p.Options.Dir, p.Options.WALDir} {
		for _, source := range []string{p.Source.Root, p.Source.WAL} {
			if target != "" && isInside(target, source) {
				return fmt.Errorf("%s: is inside the source %s, which is not written to: choose a folder elsewhere", target, source)
			}
		}
	}
	return nil
}

// isInside tells whether path is dir or below it, links followed.
func isInside(path, dir string) bool {
	rel, err := filepath.Rel(resolve(dir), resolve(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resolve follows the links of the part of path that exists.
func resolve(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil || abs == filepath.Dir(abs) {
		return real
	}
	return filepath.Join(resolve(filepath.Dir(abs)), filepath.Base(abs))
}

// logAlone tells whether only segments are written.
func (p *Plan) logAlone() bool { return p.Options.Dir == "" }

func (p *Plan) chooseIDs() {
	p.IDs = walcodec.Metadata{NodeID: p.Options.NodeID, ClusterID: p.Source.IDs.ClusterID}
	if p.IDs.NodeID == 0 {
		p.IDs.NodeID = randomID()
	}
	if !p.Options.KeepClusterID {
		p.IDs.ClusterID = randomID()
	}
}

// randomID is a fresh id; 0 is raft's "none".
func randomID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:])
		if id := binary.BigEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

// checkIdentity refuses to make a second member of the same cluster with an id
// that has voted: with an older log it could take back what it promised.
func (p *Plan) checkIdentity() error {
	if !p.Options.KeepClusterID {
		return nil
	}
	id := p.IDs.NodeID
	if p.Source.Removed[id] {
		return fmt.Errorf("node id %x was removed from cluster %x and may never come back: add a member and use its new id", id, p.IDs.ClusterID)
	}
	name, started := p.Source.Started[id]
	if !started && id != p.Source.IDs.NodeID {
		return nil
	}
	return &IdentityError{Node: id, Cluster: p.IDs.ClusterID, Name: name}
}

// IdentityError refuses to give an older log to an id that has voted.
type IdentityError struct {
	Node, Cluster uint64
	Name          string // of the member; empty if it is not known
}

func (e *IdentityError) Error() string {
	name := e.Name
	if name == "" {
		name = "the source itself"
	}
	return fmt.Sprintf("node id %x belongs to %s, which has run in cluster %x: with an older log it could take back votes and writes that it has acknowledged", e.Node, name, e.Cluster)
}

// chooseBackend decides about the v3 backend.
func (p *Plan) chooseBackend() error {
	src := p.Source.Backend
	switch {
	case p.logAlone():
		p.Facts.Backend, p.Facts.Snapshot = false, false
		return nil
	case src == nil && p.Options.Backend == BackendRequire:
		return fmt.Errorf("%s: there is no v3 backend (member/snap/db) to copy", p.Source.Root)
	case src == nil:
		return nil
	case p.Options.Backend == BackendSkip:
		return p.skipBackend()
	case src.Unread != nil:
		return p.Source.Live.MayChange(fmt.Errorf("etcd is writing it, and it can't be read as a file: %w", src.Unread))
	}
	p.Backend = BackendCopy
	return nil
}

// stopped tells that the backend can be copied as a file.
func (p *Plan) stopped() bool {
	return p.Source.Live == datadir.Stopped || p.Source.Live == datadir.LiveUnknown && p.Options.AssumeStopped
}

// skipBackend leaves the v3 data out. The log still holds v3 requests: an
// empty backend that counts them as applied keeps them from being replayed
// onto nothing.
func (p *Plan) skipBackend() error {
	p.Backend, p.Index = BackendMake, p.HardState().Commit
	return nil
}

// chooseSteps finds what the wanted release needs.
func (p *Plan) chooseSteps() error {
	if err := p.findSteps(); err != nil {
		return fmt.Errorf("%s: %w", p.Source.Root, err)
	}
	for _, step := range p.Steps {
		p.Facts = p.Facts.After(step)
		switch step {
		case datadir.StepBackend:
			p.Backend, p.Index = BackendMake, p.Source.Base.Index
		case datadir.StepRaiseIndex:
			p.Index = p.Source.Log.Raised.Index
		}
	}
	return nil
}

// findSteps asks for what the wanted release needs, or, without one, what
// every release does. A copy that joins its cluster keeps the members' URLs.
func (p *Plan) findSteps() (err error) {
	switch {
	case p.Options.For != datadir.Release{}:
		p.Steps, err = p.Facts.For(p.Options.For)
	case !p.Options.KeepClusterID:
		p.Steps = p.Facts.ForOwn()
	}
	return err
}

// takes tells whether step is one of the plan's.
func (p *Plan) takes(step datadir.Step) bool {
	return slices.Contains(p.Steps, step)
}

func (p *Plan) warn() {
	for _, snap := range p.Source.Snapshots {
		if snap.Problem != "" {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s is passed over: %s", snap.Path, snap.Problem))
		}
	}
	if torn := p.Source.Torn; torn != nil {
		p.Warnings = append(p.Warnings, fmt.Sprintf("the log's last write was cut short and is left out: %v", torn))
	}
	if log := p.Source.Log; !p.Options.KeepClusterID && log.Last > log.Commit {
		p.Warnings = append(p.Warnings, fmt.Sprintf("this member can't tell whether the cluster committed its last entries, index %d to %d: the copy keeps them", log.Commit+1, log.Last))
	}
}

// HardState is the last one of the copy: the source's, with the commit index
// raised. etcd does not write a new commit index for its own sake, so that
// --force-new-cluster, which drops what is above it, would lose acknowledged
// writes. A copy that becomes a cluster of its own takes the member's whole log
// for the truth; one that joins its cluster again only what is known to be.
func (p *Plan) HardState() walcodec.HardState {
	log := p.Source.Log
	state := log.State
	state.Commit = max(state.Commit, log.Commit)
	if !p.Options.KeepClusterID {
		state.Commit = max(state.Commit, log.Last)
	}
	if state.Term < log.LastTerm {
		state.Term, state.Vote = log.LastTerm, 0
	}
	return state
}

// record is the snapshot record to append, nil for none.
func (p *Plan) record() *walcodec.Snapshot {
	switch {
	case !p.takes(datadir.StepRecord):
		return nil
	case p.takes(datadir.StepRaiseIndex):
		return p.Source.Log.Raised
	default:
		return p.Source.Log.Mark
	}
}

package forensic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// ErrNoSnaps says that a path has no folder of snapshots.
var ErrNoSnaps = errors.New("holds no snapshots")

// SnapState is what reading a file in member/snap showed.
type SnapState string

// The states of a file in member/snap.
const (
	SnapOK         SnapState = "ok"          // read whole, checksum right
	SnapDamaged    SnapState = "damaged"     // can't be read, or is not what its name says
	SnapSetAside   SnapState = "set aside"   // renamed to .broken by etcd
	SnapLeftover   SnapState = "leftover"    // a write that did not finish
	SnapNotChecked SnapState = "not checked" // see Problem
)

// SnapReport is one file of member/snap. Its form as JSON is a contract:
// docs/commands/snap.md.
type SnapReport struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"` // snap, db, snap.db, broken, temp or other
	Term    uint64    `json:"term"` // 0 where the file has none
	Index   uint64    `json:"index"`
	Size    int64     `json:"size"`
	State   SnapState `json:"state"`
	Problem string    `json:"problem,omitempty"`

	Tree    *TreeReport    `json:"tree"`    // of a readable snapshot
	Backend *BackendReport `json:"backend"` // of a v3 backend

	// InLog tells whether the log has a record of a snapshot and reaches back
	// to it, so that etcd can start from it; null where there is no log.
	InLog        *bool  `json:"in_log"`
	InLogProblem string `json:"in_log_problem,omitempty"`
}

// TreeReport is what a snapshot's v2 key tree holds.
type TreeReport struct {
	V2Index        uint64         `json:"v2_index"`
	Nodes          int64          `json:"nodes"`
	UserKeys       int64          `json:"user_keys"`
	UserDirs       int64          `json:"user_dirs"`
	ClusterVersion string         `json:"cluster_version"`
	Voters         []ID           `json:"voters"`
	Learners       []ID           `json:"learners,omitempty"`
	Members        []MemberReport `json:"members"`
	Removed        []ID           `json:"removed"`
}

// BackendReport is how far a v3 backend is. Index and Term of its file are
// those of the last entry applied; etcd writes the term since 3.5.
type BackendReport struct {
	StorageVersion string `json:"storage_version"` // empty before 3.6
	PageSize       int64  `json:"page_size"`
}

// MemberReport is one member.
type MemberReport struct {
	ID         ID       `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls"`
	Learner    bool     `json:"learner,omitempty"`
}

// SnapList is a folder of snapshots.
type SnapList struct {
	Path   string       `json:"path"`
	Dir    string       `json:"snap_dir"`
	Member string       `json:"member"` // running, stopped or unknown
	Files  []SnapReport `json:"files"`  // snapshots first, the newest at the top
}

// Damaged counts the files that are damaged.
func (l *SnapList) Damaged() int {
	n := 0
	for _, f := range l.Files {
		if f.State == SnapDamaged {
			n++
		}
	}
	return n
}

// ListSnaps reads every file in the snap folder of path: a data dir, a backup,
// a snap folder, or one file. With a walDir, or segments where path says, it
// looks whether the log covers the snapshots.
func ListSnaps(ctx context.Context, path, walDir string) (*SnapList, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return listSnapFile(ctx, path, walDir)
	}
	files, err := datadir.Find(path, walDir)
	if err != nil {
		return nil, err
	}
	if files.Snap == "" {
		return nil, fmt.Errorf("%s: %w: it is a %s without a snap folder", path, ErrNoSnaps, files.Layout)
	}
	live, err := files.Live()
	if err != nil {
		return nil, err
	}
	l := &SnapList{Path: path, Dir: files.Snap, Member: live.String(), Files: []SnapReport{}}
	if err := l.readAll(ctx); err != nil {
		return nil, err
	}
	if live == datadir.Running {
		l.excuse()
	}
	if files.WAL == "" {
		return l, nil
	}
	return l, l.compare(ctx, path, walDir)
}

// excuse takes back what reading the backend of a running member seemed to
// show: it is written meanwhile.
func (l *SnapList) excuse() {
	for i := range l.Files {
		f := &l.Files[i]
		if f.Kind == snapcodec.FileDB.String() && f.State == SnapDamaged {
			f.State, f.Problem = SnapNotChecked, "a running etcd is writing it: "+f.Problem
		}
	}
}

func listSnapFile(ctx context.Context, path, walDir string) (*SnapList, error) {
	l := &SnapList{Path: path, Dir: filepath.Dir(path), Member: datadir.LiveUnknown.String()}
	report, err := readSnapFile(path)
	if err != nil {
		return nil, err
	}
	l.Files = []SnapReport{report}
	if walDir == "" {
		return l, nil
	}
	return l, l.compare(ctx, "", walDir)
}

func (l *SnapList) readAll(ctx context.Context) error {
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if entry.IsDir() {
			continue
		}
		report, err := readSnapFile(filepath.Join(l.Dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // purged, or renamed when it was complete
		}
		if err != nil {
			return err
		}
		l.Files = append(l.Files, report)
	}
	slices.SortFunc(l.Files, func(a, b SnapReport) int {
		return cmp.Or(cmp.Compare(kindOrder(a.Kind), kindOrder(b.Kind)), strings.Compare(b.Name, a.Name))
	})
	return nil
}

// kindOrder puts snapshots first.
func kindOrder(kind string) int {
	if kind == snapcodec.FileSnap.String() {
		return 0
	}
	return 1
}

// readSnapFile reads one file whole. Damage is in the report.
func readSnapFile(path string) (SnapReport, error) {
	f, err := os.Open(path)
	if err != nil {
		return SnapReport{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return SnapReport{}, err
	}
	name := filepath.Base(path)
	kind := snapcodec.Classify(name)
	r := SnapReport{Name: name, Kind: kind.String(), Size: info.Size(), State: SnapNotChecked}
	switch kind {
	case snapcodec.FileSnap:
		err = r.readSnap(f)
	case snapcodec.FileBroken:
		err = r.readBroken(f)
	case snapcodec.FileTemp:
		r.State = SnapLeftover
	case snapcodec.FileDB, snapcodec.FileSnapDB:
		err = r.readBackend(f)
	default:
		r.Problem = "is not named as one of etcd's files"
	}
	return r, err
}

func (r *SnapReport) readSnap(f *os.File) error {
	r.Term, r.Index, _ = snapcodec.ParseSnapName(r.Name)
	header, err := r.readTree(f)
	if err != nil {
		return err
	}
	if r.State == SnapOK && (header.Term != r.Term || header.Index != r.Index) {
		r.State = SnapDamaged
		r.Problem = fmt.Sprintf("its name says term %d index %d, its content term %d index %d", r.Term, r.Index, header.Term, header.Index)
	}
	return nil
}

// readBroken reads what etcd set aside: it may be readable all the same.
func (r *SnapReport) readBroken(f *os.File) error {
	base := strings.TrimSuffix(r.Name, ".broken")
	r.Term, r.Index, _ = snapcodec.ParseSnapName(base)
	if _, err := r.readTree(f); err != nil {
		return err
	}
	if r.State == SnapOK {
		r.Problem = "etcd set it aside, but it reads well"
	}
	r.State = SnapSetAside
	return nil
}

// readBackend reads how far a backend is. It is not checked: that takes reading
// all of it, from a copy where an etcd has it open.
func (r *SnapReport) readBackend(f *os.File) error {
	db, err := snapcodec.OpenDB(f, r.Size, snapcodec.DBOptions{Name: r.Name})
	if err != nil {
		return r.damaged(err)
	}
	meta, err := db.Meta()
	if err != nil {
		return r.damaged(err)
	}
	r.Term, r.Index = meta.Term, meta.ConsistentIndex
	r.Backend = &BackendReport{StorageVersion: meta.StorageVersion, PageSize: db.PageSize()}
	return nil
}

// readTree reads a raft snapshot to its end.
func (r *SnapReport) readTree(f *os.File) (snapcodec.Header, error) {
	snap, err := snapcodec.OpenSnap(f, r.Size, snapcodec.SnapOptions{Name: r.Name})
	if err != nil {
		return snapcodec.Header{}, r.damaged(err)
	}
	contents, err := snap.Inspect()
	if err != nil {
		return snap.Header, r.damaged(err)
	}
	r.State = SnapOK
	r.Tree = treeReport(snap.ConfState, contents)
	return snap.Header, nil
}

// damaged keeps damage in the report and passes other errors on.
func (r *SnapReport) damaged(err error) error {
	var corrupt *snapcodec.CorruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	r.State = SnapDamaged
	r.Problem = fmt.Sprintf("offset %d: %v", corrupt.Offset, corrupt.Cause)
	return nil
}

func treeReport(c snapcodec.ConfState, contents snapcodec.Contents) *TreeReport {
	t := &TreeReport{
		V2Index:        contents.CurrentIndex,
		Nodes:          contents.Nodes,
		UserKeys:       contents.UserData.Keys,
		UserDirs:       contents.UserData.Dirs,
		ClusterVersion: contents.Membership.ClusterVersion,
		Voters:         typedIDs(c.Voters),
		Learners:       typedIDs(c.Learners),
		Members:        []MemberReport{},
		Removed:        typedIDs(contents.Membership.Removed),
	}
	for _, m := range contents.Membership.Members {
		t.Members = append(t.Members, memberReport(m))
	}
	return t
}

func memberReport(m snapcodec.Member) MemberReport {
	return MemberReport{
		ID:         ID(m.ID),
		Name:       m.Name,
		PeerURLs:   append([]string{}, m.PeerURLs...),
		ClientURLs: append([]string{}, m.ClientURLs...),
		Learner:    m.IsLearner,
	}
}

// compare looks for the snapshots in the log.
func (l *SnapList) compare(ctx context.Context, path, walDir string) error {
	log, err := OpenLog(path, walDir)
	if err != nil {
		return err
	}
	s, err := log.Survey(ctx)
	if err = errors.Join(err, log.Close()); err != nil {
		return err
	}
	for i := range l.Files {
		if l.Files[i].Kind == snapcodec.FileSnap.String() {
			l.Files[i].compare(s)
		}
	}
	return nil
}

func (r *SnapReport) compare(s *Survey) {
	r.InLogProblem = s.covers(r.Term, r.Index)
	covered := r.InLogProblem == ""
	r.InLog = &covered
}

// covers says why etcd would not start from a snapshot with this log, or
// nothing: the log must have a record of it, at or below the commit index
// (wal.ValidSnapshotEntries, etcd 3.4.8), and reach back to it.
func (s *Survey) covers(term, index uint64) string {
	matches := func(r walcodec.SnapshotRecord) bool { return r.Index == index && r.Term == term }
	switch {
	case !slices.ContainsFunc(s.Snapshots, matches):
		return "the log has no record of it"
	case s.HardState != nil && index > s.HardState.Commit:
		return fmt.Sprintf("it is past the last commit index %d", s.HardState.Commit)
	case s.Segments[0].Index > index:
		return fmt.Sprintf("the log starts at index %d, after it", s.Segments[0].Index)
	}
	return ""
}

// KeepSnapshots leaves only the raft snapshots in the list, and returns the
// names of the others.
func (l *SnapList) KeepSnapshots() (others []string) {
	l.Files = slices.DeleteFunc(l.Files, func(f SnapReport) bool {
		if f.Kind == snapcodec.FileSnap.String() {
			return false
		}
		others = append(others, f.Name)
		return true
	})
	return others
}

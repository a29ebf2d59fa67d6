package snapcodec

import (
	"fmt"
	"strconv"
	"strings"
)

// FileKind is what a file in member/snap is, told by its name.
type FileKind int

// The files of member/snap. Source: etcdserver/api/snap/snapshotter.go,
// etcdserver/api/snap/db.go and storage/backend/backend.go, etcd 2.3 to 3.7.
const (
	FileOther  FileKind = iota // nothing that etcd writes
	FileSnap                   // TERM-INDEX.snap, a raft snapshot
	FileDB                     // db, the v3 backend
	FileSnapDB                 // INDEX.snap.db, a backend received from a leader
	FileBroken                 // *.broken, set aside by etcd as unreadable
	FileTemp                   // tmp*, db.tmp*: a write that did not finish
)

func (k FileKind) String() string {
	switch k {
	case FileSnap:
		return "snap"
	case FileDB:
		return "db"
	case FileSnapDB:
		return "snap.db"
	case FileBroken:
		return "broken"
	case FileTemp:
		return "temp"
	default:
		return "other"
	}
}

// Classify tells what a file in member/snap is by its name.
func Classify(name string) FileKind {
	if _, _, ok := ParseSnapName(name); ok {
		return FileSnap
	}
	if _, ok := ParseSnapDBName(name); ok {
		return FileSnapDB
	}
	switch {
	case name == "db":
		return FileDB
	case strings.HasSuffix(name, ".broken"):
		return FileBroken
	case strings.HasPrefix(name, "tmp"), strings.HasPrefix(name, "db.tmp"):
		return FileTemp
	}
	return FileOther
}

// SnapName is the name of the raft snapshot taken at term and index. The names
// of one log sort as the snapshots were taken.
func SnapName(term, index uint64) string {
	return fmt.Sprintf("%016x-%016x.snap", term, index)
}

// ParseSnapName splits TERM-INDEX.snap, two numbers of 16 hex digits.
func ParseSnapName(name string) (term, index uint64, ok bool) {
	base, found := strings.CutSuffix(name, ".snap")
	if !found {
		return 0, 0, false
	}
	t, i, found := strings.Cut(base, "-")
	if !found {
		return 0, 0, false
	}
	term, okTerm := parseHex16(t)
	index, okIndex := parseHex16(i)
	if !okTerm || !okIndex {
		return 0, 0, false
	}
	return term, index, true
}

// ParseSnapDBName reads the index from INDEX.snap.db, 16 hex digits.
func ParseSnapDBName(name string) (index uint64, ok bool) {
	base, found := strings.CutSuffix(name, ".snap.db")
	if !found {
		return 0, false
	}
	return parseHex16(base)
}

// parseHex16 reads what %016x wrote: 16 digits, lower case.
func parseHex16(s string) (uint64, bool) {
	if len(s) != 16 || strings.ContainsAny(s, "ABCDEF+-_") {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil
}

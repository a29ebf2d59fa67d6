package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Layout says how a folder holds etcd's files.
type Layout int

// The layouts that [Find] tells apart.
const (
	LayoutMember  Layout = iota + 1 // member/wal and member/snap
	LayoutFlat                      // wal and snap at the top: 2.0.0, 2.0.1, or a member folder itself
	LayoutWAL                       // a folder of segments
	LayoutSnap                      // a folder of snapshots
	LayoutSegment                   // one segment file
)

func (l Layout) String() string {
	switch l {
	case LayoutMember:
		return "data dir"
	case LayoutFlat:
		return "member dir"
	case LayoutWAL:
		return "WAL dir"
	case LayoutSnap:
		return "snap dir"
	case LayoutSegment:
		return "segment file"
	default:
		return "unknown"
	}
}

// Files says where a member's files are. WAL and Snap are empty where there
// are none; Segment is set for [LayoutSegment] only, WAL being its folder.
type Files struct {
	Root    string
	Layout  Layout
	WAL     string
	Snap    string
	Segment string
}

// ErrNotEtcd says that a path holds none of etcd's files.
var ErrNotEtcd = errors.New("holds no etcd data")

// Find tells what path is. A walDir that is not empty is where the segments
// are instead (etcd's --wal-dir).
func Find(path, walDir string) (Files, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Files{}, err
	}
	var files Files
	if info.IsDir() {
		files, err = findDir(path)
	} else {
		files, err = findFile(path)
	}
	if errors.Is(err, ErrNotEtcd) && walDir != "" {
		err = nil
	}
	if err != nil || walDir == "" {
		return files, err
	}
	return files.withWAL(walDir)
}

func findFile(path string) (Files, error) {
	if !strings.HasSuffix(path, ".wal") {
		return Files{}, fmt.Errorf("%s: is a file, and not named as a WAL segment (SEQ-INDEX.wal)", path)
	}
	return Files{Root: path, Layout: LayoutSegment, WAL: filepath.Dir(path), Segment: filepath.Base(path)}, nil
}

func findDir(path string) (Files, error) {
	switch {
	case isDir(path, "member"):
		return memberFiles(path, LayoutMember, filepath.Join(path, "member")), nil
	case isDir(path, "wal") || isDir(path, "snap"):
		return memberFiles(path, LayoutFlat, path), nil
	case has(path, ".wal"):
		return Files{Root: path, Layout: LayoutWAL, WAL: path}, nil
	case has(path, ".snap") || has(path, "db"):
		return Files{Root: path, Layout: LayoutSnap, Snap: path}, nil
	case isDir(path, "proxy"):
		return Files{Root: path}, fmt.Errorf("%s: %w: it is the folder of a v2 proxy", path, ErrNotEtcd)
	}
	return Files{Root: path}, notEtcd(path)
}

func memberFiles(root string, layout Layout, member string) Files {
	files := Files{Root: root, Layout: layout}
	if isDir(member, "wal") {
		files.WAL = filepath.Join(member, "wal")
	}
	if isDir(member, "snap") {
		files.Snap = filepath.Join(member, "snap")
	}
	return files
}

// withWAL puts the segments at walDir.
func (f Files) withWAL(walDir string) (Files, error) {
	info, err := os.Stat(walDir)
	if err != nil {
		return f, err
	}
	if !info.IsDir() {
		return f, fmt.Errorf("%s: is not a folder", walDir)
	}
	f.WAL = walDir
	if f.Layout == 0 {
		f.Layout = LayoutWAL
	}
	return f, nil
}

// notEtcd says what is there instead, so that a wrong path is seen at once.
func notEtcd(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: %w: the folder is empty", path, ErrNotEtcd)
	}
	var names []string
	for _, entry := range entries[:min(len(entries), 4)] {
		names = append(names, entry.Name())
	}
	return fmt.Errorf("%s: %w: found no member, wal or snap folder and no segments, but %s",
		path, ErrNotEtcd, strings.Join(names, ", "))
}

func isDir(parent, name string) bool {
	info, err := os.Stat(filepath.Join(parent, name))
	return err == nil && info.IsDir()
}

// has tells whether a file in dir ends in suffix.
func has(dir, suffix string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, entry := range entries {
		if entry.Type()&fs.ModeDir == 0 && strings.HasSuffix(entry.Name(), suffix) {
			return true
		}
	}
	return false
}

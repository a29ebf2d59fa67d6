package walcodec

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// A Segment is one file of a log.
type Segment struct {
	Name  string
	Seq   uint64 // position in the log, from 0
	Index uint64 // of the first entry expected in it
	Size  int64  // bytes, when it was listed
}

// SegmentName returns the file name of a segment: two times 16 hex digits.
func SegmentName(seq, index uint64) string {
	return fmt.Sprintf("%016x-%016x.wal", seq, index)
}

// ParseSegmentName is the inverse of SegmentName. It takes what SegmentName
// makes and nothing else.
func ParseSegmentName(name string) (seq, index uint64, ok bool) {
	stem, wal := strings.CutSuffix(name, ".wal")
	if !wal || len(stem) != 33 || stem[16] != '-' {
		return 0, 0, false
	}
	seq, err1 := strconv.ParseUint(stem[:16], 16, 64)
	index, err2 := strconv.ParseUint(stem[17:], 16, 64)
	if err1 != nil || err2 != nil || name != SegmentName(seq, index) {
		return 0, 0, false
	}
	return seq, index, true
}

// A GapError tells that segments are missing, or there twice, between two.
type GapError struct{ Before, After Segment }

// Error names both.
func (e *GapError) Error() string {
	if e.Before.Seq == e.After.Seq {
		return fmt.Sprintf("segments %s and %s have the same sequence number", e.Before.Name, e.After.Name)
	}
	return fmt.Sprintf("segment %s is followed by %s: %d missing between them",
		e.Before.Name, e.After.Name, e.After.Seq-e.Before.Seq-1)
}

// Segments lists the log in the root of fsys in order. Other files are passed
// over: the segments that etcd prepares (0.tmp, SEQ-IDX.wal.tmp), broken
// copies. With a *GapError it returns the whole list too.
func Segments(fsys fs.FS) ([]Segment, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var segments []Segment
	for _, entry := range entries {
		s, ok, err := segmentOf(entry)
		if err != nil {
			return nil, err
		}
		if ok {
			segments = append(segments, s)
		}
	}
	slices.SortFunc(segments, func(a, b Segment) int { return strings.Compare(a.Name, b.Name) })
	return segments, checkSequence(segments)
}

// segmentOf passes over a segment that etcd purged meanwhile; if that leaves a
// gap, checkSequence finds it.
func segmentOf(entry fs.DirEntry) (Segment, bool, error) {
	seq, index, ok := ParseSegmentName(entry.Name())
	if !ok || entry.IsDir() {
		return Segment{}, false, nil
	}
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return Segment{}, false, nil
	}
	if err != nil {
		return Segment{}, false, fmt.Errorf("list segments: %w", err)
	}
	return Segment{Name: entry.Name(), Seq: seq, Index: index, Size: info.Size()}, true, nil
}

func checkSequence(segments []Segment) error {
	for i := 1; i < len(segments); i++ {
		if segments[i].Seq != segments[i-1].Seq+1 {
			return &GapError{segments[i-1], segments[i]}
		}
	}
	return nil
}

// ErrNoSegment is matched by the error for a log without segments.
var ErrNoSegment = errors.New("no segments")

// ErrPurged is matched by the error for an index from before the first segment.
var ErrPurged = errors.New("purged from the log")

// startAt returns the segments from the last one whose Index is not above
// index, as etcd picks it (searchIndex in wal/util.go); index 0 takes all.
func startAt(segments []Segment, index uint64) ([]Segment, error) {
	if len(segments) == 0 {
		return nil, ErrNoSegment
	}
	if index == 0 {
		return segments, nil
	}
	for i := len(segments) - 1; i >= 0; i-- {
		if segments[i].Index <= index {
			return segments[i:], nil
		}
	}
	return nil, fmt.Errorf("index %d: %w, which starts at index %d with segment %s",
		index, ErrPurged, segments[0].Index, segments[0].Name)
}

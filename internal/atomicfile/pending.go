package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pending is the mark of a directory that is published for a principal.
type pending struct {
	principal string // its final path
	inode     uint64 // of its staged directory
	replaces  bool   // something stands at that path until then
	suffix    string // of what the marked directory itself replaced; empty for nothing
}

func newPending(principal *Dir, suffix string) (pending, error) {
	inode, err := inodeOf(principal.staged())
	if err != nil {
		return pending{}, err
	}
	return pending{principal.final(), inode, principal.opts.Replace != "", suffix}, nil
}

// String is the content of the mark's file.
func (p pending) String() string {
	return strings.Join([]string{p.principal, strconv.FormatUint(p.inode, 10), strconv.FormatBool(p.replaces), p.suffix}, "\n")
}

func parsePending(text string) (pending, error) {
	parts := strings.Split(text, "\n")
	if len(parts) != 4 {
		return pending{}, errors.New("the mark of an unfinished run is damaged")
	}
	inode, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return pending{}, fmt.Errorf("the mark of an unfinished run: %w", err)
	}
	return pending{parts[0], inode, parts[2] == "true", parts[3]}, nil
}

// published tells whether the principal stands under its name. Where something
// was to be replaced, what stands there may still be that.
func (p pending) published() bool {
	inode, err := inodeOf(p.principal)
	return err == nil && (!p.replaces || inode == p.inode)
}

func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

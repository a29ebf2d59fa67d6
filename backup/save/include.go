package save

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// include is a file that is saved along.
type include struct {
	path string
	part string // name of the part
	info fs.FileInfo
}

// findIncludes lists the files at the paths, and below them where they are
// folders. Links are followed, as certificates that Kubernetes mounts are
// links: what a link leads to is saved under the link's name.
func findIncludes(paths []string) ([]include, error) {
	var f finder
	for _, path := range paths {
		before := len(f.found)
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if err := f.add(abs, nil); err != nil {
			return nil, fmt.Errorf("include: %w", err)
		}
		if len(f.found) == before {
			return nil, fmt.Errorf("include: %s: holds no files", path)
		}
	}
	slices.SortFunc(f.found, func(a, b include) int { return strings.Compare(a.part, b.part) })
	return slices.CompactFunc(f.found, func(a, b include) bool { return a.part == b.part }), nil
}

type finder struct{ found []include }

// add takes a file, or all of a folder. above are the folders on the way there.
func (f *finder) add(path string, above []fs.FileInfo) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.Mode().IsRegular():
		f.found = append(f.found, include{path, includePart(path), info})
		return nil
	case !info.IsDir():
		return fmt.Errorf("%s: is neither a file nor a folder: %v", path, info.Mode().Type())
	}
	for _, folder := range above {
		if os.SameFile(folder, info) {
			return fmt.Errorf("%s: is a link to a folder that it lies in", path)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := f.add(filepath.Join(path, entry.Name()), append(slices.Clip(above), info)); err != nil {
			return err
		}
	}
	return nil
}

// includePart is the name of a file's part: its absolute path below include/.
func includePart(path string) string {
	return "include/" + strings.TrimLeft(filepath.ToSlash(path), "/")
}

// sizeOf is how many bytes the files have.
func sizeOf(files []include) int64 {
	var n int64
	for _, file := range files {
		n += file.info.Size()
	}
	return n
}

// copyTo writes the file's content to w. A file that changes meanwhile is an
// error: half of it would be of another time.
func (i include) copyTo(ctx context.Context, w io.Writer) error {
	f, err := os.Open(i.path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, &limited{ctx, f})
	after, statErr := f.Stat()
	if err := errors.Join(err, statErr, f.Close()); err != nil {
		return err
	}
	if changed(i.info, after) {
		return fmt.Errorf("%s: %w while it was read", i.path, datadir.ErrChanged)
	}
	return nil
}

// changed tells whether a file is another one, or was written, between two
// looks at it.
func changed(before, after fs.FileInfo) bool {
	return !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime())
}

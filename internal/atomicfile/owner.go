package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Owner is who files belong to, as the kernel numbers users and groups.
type Owner struct{ UID, GID int }

// OwnerOf returns whom the file at path belongs to.
func OwnerOf(path string) (Owner, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Owner{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return Owner{int(st.Uid), int(st.Gid)}, nil
}

// chown gives everything staged to the wanted owner.
func (d *Dir) chown() error {
	owner := d.opts.Owner
	if owner == nil {
		return nil
	}
	return filepath.WalkDir(d.stage, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, owner.UID, owner.GID)
	})
}

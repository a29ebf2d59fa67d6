package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	stageSuffix = ".lifeboat.tmp"
	lockSuffix  = ".lifeboat.lock"
	// pendingName marks a published directory whose principal is not yet
	// published; the file holds the principal's path.
	pendingName = ".lifeboat-pending"
)

// ErrExists says that a target already holds something.
var ErrExists = errors.New("it already exists and is not empty")

// ErrBusy says that another process is making the same target.
var ErrBusy = errors.New("another run is writing it now")

// Options of a [Dir]; the zero value is the operating system's.
type Options struct {
	System System
	// Entry names the one entry that the target will get at its top. With it
	// the target may be a mount point, since one rename still commits it.
	Entry string
	// Among lets the target hold other entries, beside which Entry is put.
	Among bool
	// Replace lets the target hold something. What Commit puts in its place
	// stays beside it, under its name and this suffix. Empty: such a target is
	// refused.
	Replace string
	// Owner is whom everything will belong to; nil: whoever runs this.
	Owner *Owner
}

// Dir is a directory in the making. It is not safe for concurrent Commit and
// Abort; its files may be written concurrently.
type Dir struct {
	target string
	stage  string
	lock   *os.File
	opts   Options
	inside bool // staged inside the target: a mount point, or one that stays
}

// CreateDir stages the directory that will be target, which must be absent or
// empty (a mount point may hold lost+found). Missing parents are made. It
// first removes what earlier runs for this target left behind. The error
// wraps [ErrExists] or [ErrBusy] where those apply.
func CreateDir(target string, o Options) (*Dir, error) {
	d, err := newDir(target, o)
	if err == nil {
		err = d.open()
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", target, err)
	}
	return d, nil
}

// CheckDir tells beforehand whether [CreateDir] would refuse target for what it
// holds, and changes nothing.
func CheckDir(target string, o Options) error {
	d, err := newDir(target, o)
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", target, err)
	}
	return nil
}

func newDir(target string, o Options) (*Dir, error) {
	abs, err := filepath.Abs(target)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	return &Dir{target: abs, opts: o}, nil
}

func (d *Dir) check() error {
	if _, err := d.locate(); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(d.final(), pendingName)); err == nil {
		return nil // removeOrphan will look into it
	}
	return d.checkEmpty()
}

func (d *Dir) open() error {
	if err := os.MkdirAll(filepath.Dir(d.target), 0o700); err != nil {
		return err
	}
	hidden, err := d.locate()
	if err != nil {
		return err
	}
	d.stage = hidden + stageSuffix
	if d.lock, err = acquire(hidden + lockSuffix); err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		d.release()
		return err
	}
	return nil
}

// locate decides where target is staged: the path without a suffix.
func (d *Dir) locate() (hidden string, err error) {
	mounted, err := isMountPoint(d.target)
	if err != nil {
		return "", err
	}
	if mounted && d.opts.Entry == "" {
		return "", errors.New("it is a mount point: name a folder inside it")
	}
	if mounted || d.opts.Among && d.opts.Replace == "" && occupied(d.target) {
		d.inside = true
		return d.target + "/", nil
	}
	return filepath.Join(filepath.Dir(d.target), "."+filepath.Base(d.target)), nil
}

// prepare checks the target and makes an empty staging directory; the lock is held.
func (d *Dir) prepare() error {
	if err := d.removeOrphan(); err != nil {
		return err
	}
	if err := d.checkEmpty(); err != nil {
		return err
	}
	if err := os.RemoveAll(d.stage); err != nil {
		return fmt.Errorf("remove what an earlier run left: %w", err)
	}
	return d.opts.System.mkdir(d.stage, 0o700)
}

// removeOrphan removes a target that was published for a principal that never
// came, and puts back what it replaced.
func (d *Dir) removeOrphan() error {
	text, err := os.ReadFile(filepath.Join(d.final(), pendingName))
	if err != nil {
		return nil
	}
	mark, err := parsePending(string(text))
	if err != nil || mark.published() {
		return err
	}
	return d.unpublish(mark.suffix)
}

func (d *Dir) checkEmpty() error {
	entries, err := os.ReadDir(d.target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if d.inside && d.mayStay(entry.Name()) {
			continue
		}
		if d.opts.Replace != "" {
			return d.checkKept()
		}
		return ErrExists
	}
	return nil
}

// mayStay tells what a target that is not replaced may hold.
func (d *Dir) mayStay(name string) bool {
	ours := strings.HasSuffix(name, stageSuffix) || strings.HasSuffix(name, lockSuffix)
	return ours || name == "lost+found" || d.opts.Among && name != d.opts.Entry
}

// checkKept makes sure that the place for what is replaced is free.
func (d *Dir) checkKept() error {
	kept := d.final() + d.opts.Replace
	if _, err := os.Lstat(kept); err == nil {
		return fmt.Errorf("%s is there already, where the replaced files were to go", kept)
	}
	return nil
}

// final is what one rename publishes: the target, or on a mount point the entry
// in it.
func (d *Dir) final() string {
	if d.inside {
		return filepath.Join(d.target, d.opts.Entry)
	}
	return d.target
}

// staged is what becomes final.
func (d *Dir) staged() string {
	if d.inside {
		return filepath.Join(d.stage, d.opts.Entry)
	}
	return d.stage
}

// Path is the staging directory: write into it until Commit.
func (d *Dir) Path() string { return d.stage }

// Target is the final name, absolute.
func (d *Dir) Target() string { return d.target }

// Mkdir makes a directory, and its parents, below the staging directory.
func (d *Dir) Mkdir(name string) error {
	path := d.stage
	for part := range strings.SplitSeq(filepath.ToSlash(name), "/") {
		path = filepath.Join(path, part)
		if err := d.opts.System.mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// Create makes a new file below the staging directory, mode 0600.
func (d *Dir) Create(name string) (*File, error) {
	path := filepath.Join(d.stage, name)
	if err := d.opts.System.before(OpCreate, path); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{File: f, sys: d.opts.System}, nil
}

// TakeOver moves the file that src is open on below the staging directory, as a
// new file, mode 0600. Where it can't be moved, to another file system, it is
// copied. Progress is called with its bytes.
func (d *Dir) TakeOver(name string, src *os.File, progress func(int64)) (*File, error) {
	path := filepath.Join(d.stage, name)
	err := d.opts.System.rename(src.Name(), path)
	if errors.Is(err, unix.EXDEV) {
		return d.Copy(name, src, progress)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		progress(info.Size())
		err = f.Chmod(0o600)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{File: f, sys: d.opts.System}, nil
}

// Copy makes a new file with the whole of src below the staging directory, as
// [Dir.Create] and [File.CopyFrom] do.
func (d *Dir) Copy(name string, src *os.File, progress func(int64)) (*File, error) {
	f, err := d.Create(name)
	if err != nil {
		return nil, err
	}
	if err := f.CopyFrom(src, progress); err != nil {
		return nil, errors.Join(err, f.File.Close())
	}
	return f, nil
}

// Commit makes the directory durable and gives it its name. The others are
// published before it and count only with it: should the process die in
// between, the next [CreateDir] for one of them removes it. After an error
// what stood under the names before stands there again.
func (d *Dir) Commit(others ...*Dir) error {
	for _, other := range others {
		if err := other.markPending(d); err != nil {
			return fmt.Errorf("commit %s: %w", other.target, err)
		}
	}
	for i, dir := range append(others, d) {
		if err := dir.publish(); err != nil {
			return errors.Join(fmt.Errorf("commit %s: %w", dir.target, err), retract(others[:i]))
		}
	}
	for _, other := range others {
		other.unmarkPending()
		other.release()
	}
	d.release()
	return nil
}

// retract takes back directories that were published for a principal that
// could not be.
func retract(dirs []*Dir) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, dir.unpublish(dir.opts.Replace))
	}
	return errors.Join(errs...)
}

// unpublish removes what was published, and puts back what it replaced.
func (d *Dir) unpublish(suffix string) error {
	if err := os.RemoveAll(d.final()); err != nil || suffix == "" {
		return err
	}
	err := os.Rename(d.final()+suffix, d.final())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Abort removes the staging directory; after a Commit that succeeded it does
// nothing, so it can be deferred.
func (d *Dir) Abort() error {
	if d.lock == nil {
		return nil
	}
	defer d.release()
	return os.RemoveAll(d.stage)
}

func (d *Dir) markPending(principal *Dir) error {
	mark, err := newPending(principal, d.opts.Replace)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(d.stage, filepath.Join(d.staged(), pendingName))
	if err != nil {
		return err
	}
	f, err := d.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(mark.String()))
	return errors.Join(err, f.Close())
}

// unmarkPending removes the mark once the principal stands. A mark that stays
// does no harm, since its principal exists.
func (d *Dir) unmarkPending() {
	os.Remove(filepath.Join(d.final(), pendingName))
}

func (d *Dir) publish() error {
	sys := d.opts.System
	if err := d.chown(); err != nil {
		return err
	}
	if err := sys.syncTree(d.stage); err != nil {
		return err
	}
	if err := d.moveIn(sys); err != nil {
		return err
	}
	if err := sys.syncDir(filepath.Dir(d.final())); err != nil {
		return errors.Join(err, d.unpublish(d.opts.Replace))
	}
	if d.inside {
		os.Remove(d.stage)
	}
	return nil
}

// moveIn gives the staged directory its name. What stands there and is to be
// replaced changes places with it.
func (d *Dir) moveIn(sys System) error {
	if d.opts.Replace == "" || !occupied(d.final()) {
		return sys.rename(d.staged(), d.final())
	}
	kept := d.final() + d.opts.Replace
	if err := sys.rename(d.staged(), kept); err != nil {
		return err
	}
	if err := sys.exchange(kept, d.final()); err != nil {
		return errors.Join(err, os.RemoveAll(kept))
	}
	return nil
}

// occupied tells whether path holds anything.
func occupied(path string) bool {
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) > 0
}

// release gives the lock back and removes its file.
func (d *Dir) release() {
	if d.lock == nil {
		return
	}
	os.Remove(d.lock.Name())
	d.lock.Close()
	d.lock = nil
}

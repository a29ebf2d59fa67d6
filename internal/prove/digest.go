package prove

import (
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

func (s *subject) checkDigests(ctx context.Context, r *Report) {
	r.check(Digest, "log checksums", func(f *finding) error { return s.logChecksums(ctx, f) })
	if s.files.Snap != "" {
		r.check(Digest, "snapshot checksums", s.snapChecksums)
	}
}

// logChecksums follows the rolling checksum through all segments.
func (s *subject) logChecksums(ctx context.Context, f *finding) error {
	report, err := walcodec.Verify(ctx, os.DirFS(s.files.WAL), walcodec.VerifyOptions{})
	if err != nil {
		return err
	}
	f.detail = fmt.Sprintf("%s, %s, %d bytes", count(len(report.Segments), "segment"), count(int(report.Counts.Total()), "record"), report.Used)
	s.last = report.LastIndex
	for _, rec := range report.Snapshots {
		s.recorded = append(s.recorded, snapcodec.SnapName(rec.Term, rec.Index))
	}
	for _, seg := range report.Segments {
		for _, d := range seg.Damage {
			if s.tornIsFine(d.Cause) {
				f.detail += "; torn tail: " + d.Cause.Error()
				continue
			}
			f.problem(d.Cause)
		}
	}
	return nil
}

// tornIsFine tells a cut-off last write that is to be expected: while etcd
// writes, or where the caller said so.
func (s *subject) tornIsFine(err error) bool {
	return errors.Is(err, walcodec.ErrTorn) && (s.opts.AllowTorn || s.live == datadir.Running)
}

// snapChecksums reads every snapshot, those too that a start would not use.
func (s *subject) snapChecksums(f *finding) error {
	bytes := int64(0)
	found, err := s.eachSnap(f, func(snap *snapcodec.Snap, info fs.FileInfo) error {
		bytes += info.Size()
		return snap.Verify()
	})
	f.detail = fmt.Sprintf("%s, %d bytes", found, bytes)
	return err
}

// snapFiles are the names of the .snap files that were looked at.
type snapFiles struct{ sound, leftover []string }

func (s snapFiles) String() string {
	text := count(len(s.sound), "snapshot")
	if len(s.leftover) > 0 {
		text += fmt.Sprintf(" (but for %s: unreadable, unknown to the log, and so the rest of a crash)", strings.Join(s.leftover, ", "))
	}
	return text
}

// eachSnap calls fn for every .snap file; damage becomes a problem of the
// finding.
func (s *subject) eachSnap(f *finding, fn func(*snapcodec.Snap, fs.FileInfo) error) (snapFiles, error) {
	var found snapFiles
	entries, err := os.ReadDir(s.files.Snap)
	if err != nil {
		return found, err
	}
	for _, entry := range entries {
		if snapcodec.Classify(entry.Name()) != snapcodec.FileSnap {
			continue
		}
		err := withSnap(filepath.Join(s.files.Snap, entry.Name()), fn)
		switch {
		case isDamage(err) && s.isLeftover(entry.Name()):
			found.leftover = append(found.leftover, entry.Name())
		case isDamage(err):
			f.problem(err)
		case err != nil && !(s.live == datadir.Running && errors.Is(err, fs.ErrNotExist)): // purged meanwhile
			return found, err
		default:
			found.sound = append(found.sound, entry.Name())
		}
	}
	return found, nil
}

// isLeftover tells an unreadable snapshot that no start needs: etcd writes the
// file in place and then its record in the log (snap/snapshotter.go and
// etcdserver/storage.go, 3.4.8 and later), so a crash leaves a piece without one.
func (s *subject) isLeftover(name string) bool {
	_, index, ok := snapcodec.ParseSnapName(name)
	return ok && index <= s.last && len(s.recorded) > 0 && !slices.Contains(s.recorded, name)
}

func withSnap(path string, fn func(*snapcodec.Snap, fs.FileInfo) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	snap, err := snapcodec.OpenSnap(file, info.Size(), snapcodec.SnapOptions{Name: path})
	if err != nil {
		return err
	}
	return fn(snap, info)
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

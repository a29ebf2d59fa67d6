package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// OpenOptions of Open; the zero value is fine.
type OpenOptions struct {
	WALDir string // of a data dir: where its segments are, if not in it
	// AssumeStopped takes the caller's word that no etcd runs on the source
	// where the system can't tell.
	AssumeStopped bool
}

// Open opens what is to be restored: a snapshot, a copied backend, a data dir
// or a backup of one. A data dir's log is read and verified.
func Open(ctx context.Context, path string, o OpenOptions) (*Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if o.WALDir != "" {
			return nil, fmt.Errorf("%s: is a file: a WAL dir belongs to a data dir", path)
		}
		return OpenFile(path)
	}
	dir, err := datadir.Inspect(ctx, path, datadir.Options{WALDir: o.WALDir})
	if err != nil {
		return nil, err
	}
	s := &Source{Path: path, Kind: KindDataDir, log: &logSource{dir: dir}}
	if err := s.openDataDir(o); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), s.Close())
	}
	return s, nil
}

func (s *Source) openDataDir(o OpenOptions) error {
	dir := s.log.dir
	if err := restorable(dir, o); err != nil {
		return err
	}
	var err error
	if s.file, err = os.Open(dir.Backend.Path); err != nil {
		return err
	}
	if s.info, err = s.file.Stat(); err != nil {
		return err
	}
	s.Size = s.info.Size()
	if err := s.openDB(); err != nil {
		return err
	}
	return s.log.tally(s.Meta.ConsistentIndex)
}

// restorable says why a data dir can't be made into a new cluster's.
func restorable(dir *datadir.Dir, o OpenOptions) error {
	switch {
	case dir.Live == datadir.Running:
		return fmt.Errorf("%w, and a backend in use can't be copied as a file: take a snapshot (lifeboat snapshot save)", ErrLive)
	case dir.Live == datadir.LiveUnknown && !o.AssumeStopped:
		return errors.New("this system can't tell whether etcd is running on it, and a backend in use can't be copied as a file (--assume-stopped, if you are sure)")
	case dir.Backend == nil:
		return errors.New("it has no v3 backend (member/snap/db): for v2 data there is 'lifeboat backup', and etcd's --force-new-cluster")
	case dir.Backend.Unread != nil:
		return dir.Backend.Unread
	case dir.Facts.V2Data != "":
		return fmt.Errorf("it holds v2 data (%s), which restore would lose: 'lifeboat backup' keeps it, and etcd's --force-new-cluster", dir.Facts.V2Data)
	case dir.Log.Mark == nil:
		return fmt.Errorf("its backend has applied up to index %d, and that entry is not in the log: start it once, or restore from a snapshot", dir.Backend.ConsistentIndex)
	}
	return nil
}

// checkOutside refuses a target that is the source data dir or inside it.
func (s *Source) checkOutside(t Target) error {
	if s.log == nil {
		return nil
	}
	for _, source := range []string{s.Path, s.log.dir.WAL} {
		for _, target := range []string{t.Dir, t.WALDir} {
			if target == "" {
				continue
			}
			inside, err := below(resolved(source), resolved(target))
			if err != nil {
				return err
			}
			if inside != "" {
				return fmt.Errorf("%s is inside of the source %s, which is only read", target, source)
			}
		}
	}
	return nil
}

// resolved follows symbolic links, as far as the path is there.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// logSource is the log of a data dir.
type logSource struct {
	dir   *datadir.Dir
	after tally
}

func (l *logSource) close() error { return l.dir.Close() }

// tally counts the entries after the backend's consistent index.
type tally struct {
	entries int
	v3      int // requests
	blanked int // that restore makes no-ops
	last    uint64
	term    uint64 // of the last
}

func (l *logSource) tally(index uint64) error {
	l.after.last, l.after.term = index, l.dir.Log.Mark.Term
	return l.dir.Entries(index, func(_ walcodec.Record, e walcodec.Entry) error { return l.after.add(e) })
}

func (t *tally) add(e walcodec.Entry) error {
	t.entries++
	t.last, t.term = e.Index, e.Term
	if walcodec.ClassifyEntry(e) == walcodec.V3Request {
		t.v3++
	}
	blank, err := aboutMembers(e)
	if blank {
		t.blanked++
	}
	return err
}

// aboutMembers tells an entry that speaks of the old members, or is for the v2
// store, which holds nothing but them.
func aboutMembers(e walcodec.Entry) (bool, error) {
	switch walcodec.ClassifyEntry(e) {
	case walcodec.ConfChangePayload, walcodec.ConfChangeV2Payload, walcodec.V2Request:
		return true, nil
	case walcodec.V3Request:
		r, err := walcodec.ParseInternalRequest(e.Data)
		if err != nil {
			return false, err
		}
		return r.MemberAttr != nil, nil
	}
	return false, nil
}

// replant writes the log after the backend under the new ids. What speaks of
// the old members becomes a no-op at its place: the new ones are in the snapshot.
func (w *memberWriter) replant(log *walcodec.LogWriter) error {
	if err := log.WriteSnapshot(w.plan.record()); err != nil {
		return err
	}
	err := w.plan.Source.log.dir.Entries(w.plan.Index, func(rec walcodec.Record, e walcodec.Entry) error {
		blank, err := aboutMembers(e)
		switch {
		case err != nil:
			return err
		case blank:
			return log.WriteEntry(walcodec.NoOp(e))
		default:
			return log.Write(walcodec.KindEntry, rec.Data)
		}
	})
	if err != nil {
		return err
	}
	return log.WriteHardState(w.plan.State)
}

// goOn starts the members where the source's backend is, with the log after it.
func (p *Plan) goOn() {
	log := p.Source.log
	mark := log.dir.Log.Mark
	p.Index, p.Term = mark.Index, mark.Term
	p.State = walcodec.HardState{Term: max(log.dir.Log.State.Term, log.after.term), Commit: log.after.last}
	if id := p.Cluster.ID; id == log.dir.IDs.ClusterID {
		p.warn("the new cluster gets the id of the old one, %x, since URLs and token are the same: if any of its members still runs, give another token, or they will take the new members for their own", id)
	}
	if torn := log.dir.Torn; torn != nil {
		p.warn("the log's last write was cut short and is left out: %v", torn)
	}
	if lost := log.after.last - min(log.after.last, log.dir.Log.Commit); lost > 0 {
		p.warn("the last %d entries are not known to be committed; they are kept, since clients may have been told that they are", lost)
	}
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

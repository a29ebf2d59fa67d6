package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// survey is what a first pass over the log finds.
type survey struct {
	meta      walcodec.Metadata
	state     walcodec.HardState // the last one
	snapshots []walcodec.Snapshot
	first     uint64              // index that the first segment is named for
	torn      *walcodec.TornError // the last write, if it was cut short
}

// surveyLog reads the whole log.
func surveyLog(fsys fs.FS) (survey, error) {
	segments, err := walcodec.Segments(fsys)
	if err != nil {
		return survey{}, err
	}
	if len(segments) == 0 {
		return survey{}, errors.New("the log has no segments")
	}
	s := survey{first: segments[0].Index}
	s.torn, err = eachRecord(fsys, segments[0].Index, s.note)
	if err == nil && s.meta == (walcodec.Metadata{}) {
		err = fmt.Errorf("segment %s: no metadata record", segments[0].Name)
	}
	return s, err
}

func (s *survey) note(r walcodec.Record) (err error) {
	switch r.Kind {
	case walcodec.KindMetadata:
		s.meta, err = walcodec.ParseMetadata(r.Data)
	case walcodec.KindState:
		s.state, err = walcodec.ParseHardState(r.Data)
	case walcodec.KindSnapshot:
		var snapshot walcodec.Snapshot
		snapshot, err = walcodec.ParseSnapshot(r.Data)
		s.snapshots = append(s.snapshots, snapshot)
	}
	return err
}

// eachRecord calls fn for every record from the segment that holds the index
// on. A torn last write ends the log and is told.
func eachRecord(fsys fs.FS, from uint64, fn func(walcodec.Record) error) (*walcodec.TornError, error) {
	log, err := walcodec.OpenLog(fsys, walcodec.LogOptions{FromIndex: from})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for {
		r, err := log.Next()
		var torn *walcodec.TornError
		switch {
		case err == io.EOF:
			return nil, nil
		case errors.As(err, &torn):
			return torn, nil
		case err != nil:
			return nil, err
		}
		if err := fn(r); err != nil {
			return nil, fmt.Errorf("segment %s: offset %d: %w", log.Segment().Name, r.Offset, err)
		}
	}
}

// loadSnapshot fills the machine from the newest snapshot that the log knows,
// and returns its index; 0 when there is none. Snapshot files that the log
// does not mention, or that lie beyond what was committed, are left alone, as
// etcd does since 3.3.21 and 3.4.8.
func loadSnapshot(dir string, s survey, m *machine, log *slog.Logger) (uint64, error) {
	for i := len(s.snapshots) - 1; i >= 0; i-- {
		record := s.snapshots[i]
		if record.Index == 0 || record.Index > s.state.Commit {
			continue
		}
		name := filepath.Join(dir, snapcodec.SnapName(record.Term, record.Index))
		err := m.restore(name)
		switch {
		case err == nil:
			return record.Index, nil
		case errors.Is(err, fs.ErrNotExist):
			continue
		}
		log.Warn("snapshot not readable, taking an older one", "file", name, "error", err)
	}
	if s.first != 0 {
		return 0, fmt.Errorf("the log starts at index %d, and %s holds no usable snapshot at or after it", s.first, dir)
	}
	return 0, nil
}

// restore fills the machine from a snapshot file.
func (m *machine) restore(name string) error {
	if _, err := os.Stat(name); err != nil {
		return err
	}
	snapshot, err := snap.Read(zap.NewNop(), name)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", filepath.Base(name), err)
	}
	fresh := newMachine(uint64(m.cluster.local), uint64(m.cluster.id))
	if err := recoverStore(fresh.store, snapshot.GetData()); err != nil {
		return fmt.Errorf("snapshot %s: v2 store: %w", filepath.Base(name), err)
	}
	if err := fresh.cluster.recover(); err != nil {
		return fmt.Errorf("snapshot %s: %w", filepath.Base(name), err)
	}
	meta := snapshot.GetMetadata()
	fresh.applied, fresh.term = meta.GetIndex(), meta.GetTerm()
	fresh.conf = walcodec.ConfState{
		Voters:   meta.GetConfState().GetVoters(),
		Learners: meta.GetConfState().GetLearners(),
	}
	*m = *fresh
	return nil
}

// recoverStore fills an empty store. etcd's own code takes the shape of the
// JSON for granted: where it panics now, or would later, this is an error.
func recoverStore(store v2store.Store, data []byte) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("key tree: %v", cause)
		}
	}()
	if err := store.Recovery(data); err != nil {
		return err
	}
	if _, err := store.Get("/", true, false); err != nil {
		return err
	}
	return checkHistory(store)
}

// replay applies the committed entries after the machine's snapshot and keeps
// the ones after them, which may or may not have been.
type replay struct {
	machine   *machine
	raised    uint64 // commit known from elsewhere: the v3 backend
	keepAll   bool   // take the rest of the log for committed too
	committed uint64
	pending   []walcodec.Entry // those after the applied ones
}

func (p *replay) note(r walcodec.Record) error {
	switch r.Kind {
	case walcodec.KindEntry:
		e, err := walcodec.ParseEntry(r.Data)
		if err != nil {
			return err
		}
		return p.add(e)
	case walcodec.KindState:
		state, err := walcodec.ParseHardState(r.Data)
		if err != nil {
			return err
		}
		p.committed = max(p.committed, state.Commit)
		return p.applyCommitted()
	}
	return nil
}

// add keeps an entry until it is known to be committed; it replaces those at
// and after its index.
func (p *replay) add(e walcodec.Entry) error {
	base := p.machine.applied
	if e.Index <= base {
		return nil
	}
	at := e.Index - base - 1
	if at > uint64(len(p.pending)) {
		return fmt.Errorf("entry %d follows entry %d", e.Index, base+uint64(len(p.pending)))
	}
	e.Data = append([]byte(nil), e.Data...)
	p.pending = append(p.pending[:at], e)
	return nil
}

func (p *replay) applyCommitted() error {
	done := 0
	for _, e := range p.pending {
		if e.Index > p.committed {
			break
		}
		if _, err := p.machine.apply(e); err != nil {
			return err
		}
		done++
	}
	p.pending = append(p.pending[:0], p.pending[done:]...)
	return nil
}

// finish applies what is committed for other reasons than a hard state: the v3
// backend saw it applied, or the member is alone, and then what it wrote is
// committed. It checks that the log holds all that was.
func (p *replay) finish(self uint64) error {
	last := p.machine.applied + uint64(len(p.pending))
	p.committed = max(p.committed, min(p.raised, last))
	if err := p.applyCommitted(); err != nil {
		return err
	}
	if p.machine.applied < p.committed {
		return fmt.Errorf("the log ends at entry %d, and entry %d was committed", p.machine.applied, p.committed)
	}
	if !p.keepAll && !p.machine.alone(self) {
		return nil
	}
	p.committed = last
	return p.applyCommitted()
}

// booted is a data dir read into memory.
type booted struct {
	dirs    dirs
	meta    walcodec.Metadata
	state   walcodec.HardState // commit: what was applied
	machine *machine
	torn    *walcodec.TornError
	found   Boot
}

// read boots the dir into memory and changes nothing. consistent is the index
// up to which the v3 backend saw the log, 0 if that is not known.
func read(d dirs, consistent uint64, opts Options) (*booted, error) {
	fsys := os.DirFS(d.wal)
	s, err := surveyLog(fsys)
	if err != nil {
		return nil, err
	}
	m := newMachine(s.meta.NodeID, s.meta.ClusterID)
	if err := m.cluster.recover(); err != nil {
		return nil, err
	}
	base, err := loadSnapshot(d.snap, s, m, opts.Logger)
	if err != nil {
		return nil, err
	}
	p := replay{machine: m, raised: consistent, keepAll: opts.KeepUncommitted}
	if _, err := eachRecord(fsys, base, p.note); err != nil {
		return nil, err
	}
	if err := p.finish(s.meta.NodeID); err != nil {
		return nil, err
	}
	return newBooted(d, s, &p, base, consistent), nil
}

func newBooted(d dirs, s survey, p *replay, base, consistent uint64) *booted {
	m := p.machine
	b := &booted{dirs: d, meta: s.meta, state: s.state, machine: m, torn: s.torn}
	b.state.Commit = m.applied
	b.state.Term = max(b.state.Term, m.term)
	b.found = Boot{
		Snapshot:   base,
		Applied:    m.applied,
		StoreIndex: m.store.Index(),
		Dropped:    uint64(len(p.pending)),
		PendingV3:  m.lastV3 > consistent,
	}
	if s.torn != nil {
		b.found.Torn = s.torn.Error()
	}
	return b
}

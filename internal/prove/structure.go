package prove

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func (s *subject) checkStructure(ctx context.Context, r *Report) {
	r.check(Structure, "log entries", func(f *finding) error { return s.logEntries(ctx, f) })
	if s.files.Snap != "" {
		r.check(Structure, "snapshot trees", s.snapTrees)
		for _, db := range s.backends() {
			r.check(Structure, "v3 backend", func(f *finding) error { return s.backend(db, f) })
		}
	}
	r.check(Structure, "agreement", func(f *finding) error { return s.agreement(ctx, f) })
}

// entryCounts are how many of each kind of entry a log holds.
type entryCounts struct {
	mu    sync.Mutex
	kinds map[walcodec.PayloadKind]int
}

// logEntries decodes what every entry carries.
func (s *subject) logEntries(ctx context.Context, f *finding) error {
	log, err := walcodec.OpenLog(os.DirFS(s.files.WAL), walcodec.LogOptions{})
	if err != nil {
		return err
	}
	defer log.Close()
	segments := log.Segments()
	counts := entryCounts{kinds: map[walcodec.PayloadKind]int{}}
	visit := func(at walcodec.Position, e walcodec.Entry) error {
		kind := walcodec.ClassifyEntry(e)
		err := decode(kind, e.Data)
		counts.mu.Lock()
		defer counts.mu.Unlock()
		counts.kinds[kind]++
		if err != nil {
			name := segments[at.Seq-segments[0].Seq].Name
			f.problem(&walcodec.CorruptError{Segment: name, Offset: at.Offset, Cause: fmt.Errorf("entry %d: %w", e.Index, err)})
		}
		return nil
	}
	if _, err := log.Verify(ctx, walcodec.VerifyOptions{Visit: visit}); err != nil {
		return err
	}
	k := counts.kinds
	f.detail = fmt.Sprintf("%d v2 requests, %d v3 requests, %d membership changes, %d empty",
		k[walcodec.V2Request], k[walcodec.V3Request], k[walcodec.ConfChangePayload]+k[walcodec.ConfChangeV2Payload], k[walcodec.Empty])
	return nil
}

func decode(kind walcodec.PayloadKind, data []byte) error {
	var err error
	switch kind {
	case walcodec.Empty:
	case walcodec.V2Request:
		_, err = walcodec.ParseRequest(data)
	case walcodec.V3Request:
		_, err = walcodec.ParseInternalRequest(data)
	case walcodec.ConfChangePayload:
		_, err = walcodec.ParseConfChange(data)
	case walcodec.ConfChangeV2Payload:
		_, err = walcodec.ParseConfChangeV2(data)
	default:
		err = fmt.Errorf("payload of kind %s", kind)
	}
	return err
}

// snapTrees decodes every node of every snapshot's key tree.
func (s *subject) snapTrees(f *finding) error {
	nodes := int64(0)
	found, err := s.eachSnap(f, func(snap *snapcodec.Snap, info fs.FileInfo) error {
		contents, err := snap.Inspect()
		nodes += contents.Nodes
		if err != nil {
			return err
		}
		if name := snapcodec.SnapName(snap.Term, snap.Index); name != info.Name() {
			f.problem(fmt.Errorf("%s: its content says term %d, index %d: it should be named %s", info.Name(), snap.Term, snap.Index, name))
		}
		return nil
	})
	f.detail = fmt.Sprintf("%s, %d nodes", found, nodes)
	return err
}

// backends are the v3 backends that lie there: the one in use, and those
// received from a leader.
func (s *subject) backends() []string {
	entries, err := os.ReadDir(s.files.Snap)
	if err != nil {
		return nil // told by the check of the snapshots
	}
	var found []string
	for _, entry := range entries {
		if kind := snapcodec.Classify(entry.Name()); kind == snapcodec.FileDB || kind == snapcodec.FileSnapDB {
			found = append(found, filepath.Join(s.files.Snap, entry.Name()))
		}
	}
	return found
}

// backend reads every page and record. A backend stores no checksum of its
// content: a changed byte inside a value goes unseen.
func (s *subject) backend(path string, f *finding) error {
	if s.live == datadir.Running {
		return fmt.Errorf("%s: an etcd is writing it: verify a backup, or a snapshot that 'etcdctl snapshot save' took", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	db, err := snapcodec.OpenDB(file, info.Size(), snapcodec.DBOptions{Name: path})
	if err != nil {
		return err
	}
	report, err := db.Check()
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		f.problem(p)
	}
	f.total = max(f.total, int(report.Total))
	f.detail = fmt.Sprintf("%s: %d of %d pages in use, %d entries; it has no checksum over its values", filepath.Base(path), report.Reachable, report.Pages, report.Entries)
	return nil
}

// agreement asks whether the newest usable snapshot, the log after it and the
// backend make one state.
func (s *subject) agreement(ctx context.Context, f *finding) error {
	dir, err := datadir.Inspect(ctx, s.files.Root, datadir.Options{WALDir: s.opts.WALDir})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return asDamage(err)
	}
	s.dir = dir
	if dir.Torn != nil && !s.tornIsFine(dir.Torn) {
		f.problem(dir.Torn)
	}
	for _, snap := range dir.Snapshots {
		if snap.Index > dir.Log.Last {
			f.problem(fmt.Errorf("%s: it is of index %d, and the log ends at index %d: the log's end is missing", filepath.Base(snap.Path), snap.Index, dir.Log.Last))
		}
	}
	f.detail = describe(dir)
	return nil
}

func describe(d *datadir.Dir) string {
	text := "from the start of the log"
	if d.Base != nil {
		text = "from " + filepath.Base(d.Base.Path)
	}
	text += fmt.Sprintf(": entries %d to %d, committed to %d", d.Log.First, d.Log.Last, d.Log.Commit)
	if d.Backend != nil {
		text += fmt.Sprintf(", v3 backend at %d", d.Backend.ConsistentIndex)
	}
	for _, snap := range d.Snapshots {
		if snap.Problem != "" {
			text += fmt.Sprintf("; %s is not used: %s", filepath.Base(snap.Path), snap.Problem)
		}
	}
	return text
}

package datadir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func inspect(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Inspect(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestInspectFixtures(t *testing.T) {
	for name, want := range map[string]struct {
		base, first, last, commit uint64
		index                     uint64 // consistent index of the backend
		facts                     Facts
	}{
		"2.3.7": {602, 603, 751, 751, 0, Facts{
			Origin: R23, ClusterVersion: R23, Snapshot: true, SnapVersion: "2.3.0", BareRecord: true,
			V2Data: "/a in the snapshot", V2Entries: true, V2Others: true}},
		// Its hard state commits 577; the last entry is not known to be committed.
		"2.3.7-cluster": {402, 403, 578, 577, 0, Facts{
			Origin: R23, ClusterVersion: R23, Snapshot: true, SnapVersion: "2.3.0", BareRecord: true,
			V2Data: "/svc in the snapshot", V2Entries: true, V2Others: true}},
		"3.4.23-mixed": {301, 302, 534, 534, 534, Facts{
			Origin: R34, ClusterVersion: R34, Snapshot: true, SnapVersion: "3.4.0", BareRecord: true, Backend: true, Padded: true,
			V2Data: "/a in the snapshot", V2Entries: true, V2Others: true, Mark: true}},
		"3.5.33": {0, 1, 109, 109, 109, Facts{
			Origin: R35, ClusterVersion: R35, Backend: true, Padded: true, V2Entries: true, Mark: true}},
	} {
		t.Run(name, func(t *testing.T) {
			d := inspect(t, fixture.DataDir(t, name))
			if d.baseIndex() != want.base || d.Log.First != want.first || d.Log.Last != want.last || d.Log.Commit != want.commit {
				t.Errorf("base %d, entries %d to %d, committed to %d; want %d, %d to %d, %d",
					d.baseIndex(), d.Log.First, d.Log.Last, d.Log.Commit, want.base, want.first, want.last, want.commit)
			}
			if d.Facts != want.facts {
				t.Errorf("facts\n%+v, want\n%+v", d.Facts, want.facts)
			}
			if (d.Backend != nil) != want.facts.Backend || d.Backend != nil && d.Backend.ConsistentIndex != want.index {
				t.Errorf("backend %+v, want consistent index %d", d.Backend, want.index)
			}
		})
	}
}

func TestRosterFollowsTheLog(t *testing.T) {
	d := inspect(t, fixture.DataDir(t, "2.3.7-cluster"))
	var names []string
	for _, name := range d.Started {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "m1 m2 m4" {
		t.Errorf("started members %q, want m1 m2 m4: m3 was removed and m4 added after the snapshot", got)
	}
	if len(d.Removed) != 1 {
		t.Errorf("removed %v, want m3 alone", d.Removed)
	}
}

// snapshotOf lists every file below root with its bytes and times.
func snapshotOf(t *testing.T, root string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		b.WriteString(path + info.ModTime().String() + info.Mode().String())
		if info.Mode().IsRegular() && info.Size() < 1<<20 {
			data, err := os.ReadFile(path)
			b.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestInspectLeavesNoTrace(t *testing.T) {
	dir := fixture.DataDir(t, "3.4.23-mixed")
	before := snapshotOf(t, dir)
	inspect(t, dir)
	if snapshotOf(t, dir) != before {
		t.Error("the source changed")
	}
}

func TestAnUnusableSnapshotIsPassedOver(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	newest := filepath.Join(dir, "member/snap/0000000000000002-000000000000025a.snap")
	flip(t, newest, 5000)
	d := inspect(t, dir)
	if d.baseIndex() != 301 {
		t.Errorf("base %d, want the older snapshot at 301", d.baseIndex())
	}
	if len(d.Snapshots) != 2 || !strings.Contains(d.Snapshots[0].Problem, newest) {
		t.Errorf("snapshots %+v: want the newest with its problem", d.Snapshots)
	}
}

func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

func TestInspectRefuses(t *testing.T) {
	const segment = "member/wal/0000000000000000-0000000000000000.wal"
	for name, c := range map[string]struct {
		fixture string
		wreck   func(t *testing.T, dir string)
		want    string
	}{
		"a damaged record": {"2.3.7", func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, segment), 60000)
		}, "offset"},
		"an empty dir": {"2.3.7", func(t *testing.T, dir string) {
			os.RemoveAll(filepath.Join(dir, "member"))
		}, "the folder is empty"},
		"no WAL": {"2.3.7", func(t *testing.T, dir string) {
			os.RemoveAll(filepath.Join(dir, "member/wal"))
		}, "has no WAL folder"},
		"no segments": {"2.3.7", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, segment))
		}, "no segments"},
		"a purged log without snapshots": {"2.3.7", func(t *testing.T, dir string) {
			purge(t, filepath.Join(dir, "member/wal"), 300)
			os.RemoveAll(filepath.Join(dir, "member/snap"))
			os.Mkdir(filepath.Join(dir, "member/snap"), 0o700)
		}, "no usable snapshot leads up to it"},
		"a backend ahead of the log": {"3.5.33", func(t *testing.T, dir string) {
			cutAfter(t, filepath.Join(dir, segment), 50)
		}, "the log's end is missing"},
		"a torn commit": {"2.3.7", func(t *testing.T, dir string) {
			dropEntries(t, filepath.Join(dir, "member/wal"), 740)
		}, "its end is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fixture.DataDir(t, c.fixture)
			c.wreck(t, dir)
			d, err := Inspect(context.Background(), dir, Options{})
			if err == nil {
				d.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

// rewriteLog replaces the log in dir by a copy that o changes.
func rewriteLog(t *testing.T, dir string, lo walcodec.LogWriterOptions, o walcodec.RewriteOptions) {
	t.Helper()
	log, err := walcodec.OpenLog(os.DirFS(dir), walcodec.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	tmp := t.TempDir()
	w, err := walcodec.NewLogWriter(creator(tmp), walcodec.Metadata{NodeID: 1, ClusterID: 2}, lo)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := walcodec.Rewrite(w, log, o); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.RemoveAll(dir), os.Rename(tmp, dir)); err != nil {
		t.Fatal(err)
	}
}

type creator string

func (c creator) CreateSegment(name string) (io.WriteCloser, error) {
	return os.Create(filepath.Join(string(c), name))
}

func purge(t *testing.T, dir string, index uint64) {
	rewriteLog(t, dir, walcodec.LogWriterOptions{Seq: 3, Index: index}, walcodec.RewriteOptions{AfterIndex: index})
}

// dropEntries leaves the hard states as they are.
func dropEntries(t *testing.T, dir string, after uint64) {
	rewriteLog(t, dir, walcodec.LogWriterOptions{}, walcodec.RewriteOptions{
		LastIndex: after,
		HardState: func(s walcodec.HardState) walcodec.HardState { s.Commit = 751; return s },
	})
}

// cutAfter truncates a segment behind the entry at index.
func cutAfter(t *testing.T, path string, index uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := walcodec.NewReader(f, walcodec.ReaderOptions{Last: true})
	for {
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind != walcodec.KindEntry {
			continue
		}
		if e, _ := walcodec.ParseEntry(rec.Data); e.Index == index {
			if err := os.Truncate(path, rec.End()); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestLiveIsSeenWithoutALock(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux lists the locks")
	}
	dir := fixture.DataDir(t, "2.3.7")
	files, err := Find(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if live, err := files.Live(); err != nil || live != Stopped {
		t.Errorf("live %v (%v), want stopped", live, err)
	}
	f, err := os.Open(filepath.Join(dir, "member/wal/0000000000000000-0000000000000000.wal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if live, err := files.Live(); err != nil || live != Running {
		t.Errorf("live %v (%v), want running", live, err)
	}
}

func TestFind(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	wal := filepath.Join(dir, "member/wal")
	segment := filepath.Join(wal, "0000000000000000-0000000000000000.wal")
	for name, c := range map[string]struct {
		path string
		want Layout
	}{
		"data dir":   {dir, LayoutMember},
		"member dir": {filepath.Join(dir, "member"), LayoutFlat},
		"WAL dir":    {wal, LayoutWAL},
		"snap dir":   {filepath.Join(dir, "member/snap"), LayoutSnap},
		"segment":    {segment, LayoutSegment},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := Find(c.path, "")
			if err != nil || files.Layout != c.want {
				t.Errorf("%s (%v), want %s", files.Layout, err, c.want)
			}
		})
	}
	if _, err := Find(filepath.Dir(dir), ""); !errors.Is(err, ErrNotEtcd) {
		t.Errorf("the folder above: %v, want ErrNotEtcd", err)
	}
}

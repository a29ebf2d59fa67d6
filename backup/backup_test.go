package backup

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func inspect(t *testing.T, dir string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Inspect(context.Background(), dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func silent(int64) {}

// run backs dir up and returns the plan that was carried out.
func run(t *testing.T, dir string, o Options) *Plan {
	t.Helper()
	p, err := NewPlan(inspect(t, dir), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(context.Background(), silent); err != nil {
		t.Fatal(err)
	}
	return p
}

// entries reads the entries of a log after an index, one string each.
func entries(t *testing.T, dir string, after uint64) []string {
	t.Helper()
	log, err := walcodec.OpenLog(os.DirFS(dir), walcodec.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var all []string
	for {
		rec, err := log.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Kind != walcodec.KindEntry {
			continue
		}
		if e, _ := walcodec.ParseEntry(rec.Data); e.Index > after {
			all = append(all, string(rec.Data))
		}
	}
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("entry %d differs: %q, want %q", i, got[i], want[i])
		}
	}
}

func TestACopyHoldsTheSameEntriesUnderNewIDs(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			src, target := fixture.DataDir(t, name), filepath.Join(t.TempDir(), "b")
			p := run(t, src, Options{Dir: target})
			after := uint64(0)
			if p.Source.Base != nil {
				after = p.Source.Base.Index
			}
			want := entries(t, filepath.Join(src, "member/wal"), after)
			equal(t, entries(t, filepath.Join(target, "member/wal"), 0), want)
			got := inspect(t, target)
			if got.IDs != p.IDs || got.IDs.NodeID == p.Source.IDs.NodeID || got.IDs.ClusterID == p.Source.IDs.ClusterID {
				t.Errorf("ids %x of %x: want fresh ones, as planned: %x", got.IDs, p.Source.IDs, p.IDs)
			}
			if got.Facts != p.Source.Facts || got.Log.State != p.HardState() {
				t.Errorf("facts and state of the copy\n%+v %+v, want\n%+v %+v", got.Facts, got.Log.State, p.Source.Facts, p.HardState())
			}
		})
	}
}

// The last entry of 2.3.7-cluster was acknowledged, but no hard state says so.
func TestCommitIndex(t *testing.T) {
	src := inspect(t, fixture.DataDir(t, "2.3.7-cluster"))
	for name, c := range map[string]struct {
		keep bool
		want uint64
	}{
		"a cluster of its own takes the whole log": {false, 578},
		"a member takes what is known":             {true, 577},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := NewPlan(src, Options{Dir: filepath.Join(t.TempDir(), "b"), KeepClusterID: c.keep})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.HardState().Commit; got != c.want {
				t.Errorf("commit index %d, want %d", got, c.want)
			}
		})
	}
}

func TestKeptIDs(t *testing.T) {
	target := filepath.Join(t.TempDir(), "b")
	p := run(t, fixture.DataDir(t, "2.3.7-cluster"), Options{Dir: target, KeepClusterID: true, NodeID: 0xabc})
	want := walcodec.Metadata{NodeID: 0xabc, ClusterID: p.Source.IDs.ClusterID}
	if got := inspect(t, target).IDs; got != want {
		t.Errorf("ids %x, want %x", got, want)
	}
}

func TestIdentityOfTheLivingIsRefused(t *testing.T) {
	src := inspect(t, fixture.DataDir(t, "2.3.7-cluster"))
	removed := uint64(0)
	for id := range src.Removed {
		removed = id
	}
	other := uint64(0)
	for id := range src.Started {
		if id != src.IDs.NodeID {
			other = id
		}
	}
	for name, c := range map[string]struct {
		id   uint64
		want string
	}{
		"the source's own": {src.IDs.NodeID, "has run in cluster"},
		"another member's": {other, "has run in cluster"},
		"a removed one's":  {removed, "may never come back"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewPlan(src, Options{Dir: "b", KeepClusterID: true, NodeID: c.id})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
			if _, err := NewPlan(src, Options{Dir: "b", NodeID: c.id}); err != nil {
				t.Errorf("in a cluster of its own: %v", err)
			}
		})
	}
}

func TestLogAlone(t *testing.T) {
	src := filepath.Join(fixture.DataDir(t, "2.3.7"), "member/wal")
	target := filepath.Join(t.TempDir(), "wal")
	run(t, src, Options{WALDir: target})
	equal(t, entries(t, target, 0), entries(t, src, 0))
	if names := list(t, target); strings.Join(names, " ") != "0000000000000000-0000000000000000.wal" {
		t.Errorf("target holds %q", names)
	}
}

func TestLogInAPlaceOfItsOwn(t *testing.T) {
	root := t.TempDir()
	data, wal := filepath.Join(root, "data"), filepath.Join(root, "wal")
	src := fixture.DataDir(t, "3.4.23-mixed")
	run(t, src, Options{Dir: data, WALDir: wal})
	d, err := datadir.Inspect(context.Background(), data, datadir.Options{WALDir: wal})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Log.Last != 534 || d.Base == nil {
		t.Errorf("log ends at %d with base %v, want 534 and one", d.Log.Last, d.Base)
	}
	want := "data data/member data/member/snap data/member/snap/0000000000000002-000000000000012d.snap data/member/snap/db wal wal/0000000000000000-0000000000000000.wal"
	if got := strings.Join(list(t, root), " "); got != want {
		t.Errorf("made %q, want %q", got, want)
	}
}

// list names everything below root.
func list(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && p != root {
			rel, _ := filepath.Rel(root, p)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestSteps(t *testing.T) {
	for name, c := range map[string]struct {
		fixture string
		release datadir.Release
		check   func(t *testing.T, d *datadir.Dir)
	}{
		"2.3 for 3.5 has a backend and version 3.0": {"2.3.7", datadir.R35, func(t *testing.T, d *datadir.Dir) {
			if d.Backend == nil || d.Backend.ConsistentIndex != 602 || d.Facts.SnapVersion != "3.0.0" {
				t.Errorf("backend %+v, version %s", d.Backend, d.Facts.SnapVersion)
			}
		}},
		"3.5 for 3.7 has no v2 requests": {"3.5.33", datadir.R37, func(t *testing.T, d *datadir.Dir) {
			if d.Log.V2.Membership+d.Log.V2.Other > 0 || d.Log.Entries != 109 {
				t.Errorf("log %+v", d.Log)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "b")
			run(t, fixture.DataDir(t, c.fixture), Options{Dir: target, For: c.release})
			d := inspect(t, target)
			if err := d.Facts.Boots(c.release); err != nil {
				t.Errorf("the copy: %v", err)
			}
			c.check(t, d)
		})
	}
}

func TestSkippedBackend(t *testing.T) {
	target := filepath.Join(t.TempDir(), "b")
	p := run(t, fixture.DataDir(t, "3.4.23-mixed"), Options{Dir: target, Backend: BackendSkip})
	d := inspect(t, target)
	if d.Backend == nil || d.Backend.HasKeys || d.Backend.ConsistentIndex != p.Source.Log.Commit {
		t.Errorf("backend %+v: want an empty one at index %d, so that no v3 request is replayed onto nothing", d.Backend, p.Source.Log.Commit)
	}
}

var errInjected = errors.New("injected")

func TestEveryFaultLeavesNothing(t *testing.T) {
	src := inspect(t, fixture.DataDir(t, "3.4.23-mixed"))
	for n := int64(1); ; n++ {
		root := t.TempDir()
		sys := atomicfile.FailAt(n, errInjected)
		p, err := NewPlan(src, Options{Dir: filepath.Join(root, "data"), WALDir: filepath.Join(root, "wal"), System: sys})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = p.Apply(context.Background(), silent); err == nil {
			if n < 20 {
				t.Fatalf("only %d operations could fail", n-1)
			}
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		if names := list(t, root); len(names) > 0 {
			t.Fatalf("fault %d left %q", n, names)
		}
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	root := t.TempDir()
	p, err := NewPlan(inspect(t, fixture.DataDir(t, "2.3.7")), Options{Dir: filepath.Join(root, "b")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Apply(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	if names := list(t, root); len(names) > 0 {
		t.Errorf("left %q", names)
	}
}

func TestATargetInsideTheSourceIsRefused(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	src := inspect(t, dir)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Dir: dir}, {Dir: filepath.Join(dir, "b")}, {Dir: filepath.Join(link, "x", "b")}, {WALDir: filepath.Join(dir, "member", "wal", "b")}} {
		if _, err := NewPlan(src, o); err == nil || !strings.Contains(err.Error(), "is inside the source") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, err := NewPlan(src, Options{Dir: dir + "-backup"}); err != nil {
		t.Errorf("a neighbour whose name starts alike: %v", err)
	}
}

// A URL that only starts alike stays.
func TestTheForcedPeerURLIsMoved(t *testing.T) {
	moved := &Plan{Source: &datadir.Dir{PeerURLs: map[uint64][]string{1: {datadir.ForcedPeerURL}}}}
	entry := walcodec.Entry{Type: walcodec.EntryConfChange, Term: 1, Index: 1, Data: walcodec.AppendConfChange(nil,
		walcodec.ConfChange{NodeID: 1, Context: []byte(`{"id":1,"peerURLs":["` + datadir.ForcedPeerURL + `","http://localhost:23801"]}`)})}
	got, err := moved.movePeerURL(entry)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := walcodec.ParseConfChange(got.Data)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":1,"peerURLs":["http://127.0.0.1:2380","http://localhost:23801"]}`; string(cc.Context) != want || cc.NodeID != 1 {
		t.Errorf("context %s, want %s", cc.Context, want)
	}
}

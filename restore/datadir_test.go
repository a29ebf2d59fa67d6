package restore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func openDir(t *testing.T, path string) *Source {
	t.Helper()
	src, err := Open(context.Background(), path, OpenOptions{AssumeStopped: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// behind is a data dir whose backend has applied only up to index, as after a
// crash; its keys are what they are, since the log alone is of interest.
func behind(t *testing.T, index uint64) string {
	t.Helper()
	dir := fixture.DataDir(t, "3.5.33")
	db, err := bolt.Open(filepath.Join(dir, backendName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(metaBucket).Put(consistentIndexKey, []byte{0, 0, 0, 0, 0, 0, 0, byte(index)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheLogAfterTheBackendIsKept(t *testing.T) {
	for name, index := range map[string]uint64{"nothing follows": 109, "some follows": 60, "the members' attributes follow": 2} {
		t.Run(name, func(t *testing.T) {
			src := openDir(t, behind(t, index))
			c := newCluster(t, threeMembers, "x")
			dir := filepath.Join(t.TempDir(), "d")
			p, err := NewPlan(src, c, []Target{{Name: "m2", Dir: dir}}, Options{CompareKeys: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Apply(context.Background(), silent); err != nil {
				t.Fatal(err)
			}
			if entries, _ := p.LogEntries(); entries != int(109-index) {
				t.Errorf("%d entries follow, want %d", entries, 109-index)
			}
			checkReplanted(t, dir, p)
		})
	}
}

// checkReplanted compares the log entry by entry with its source's.
func checkReplanted(t *testing.T, dir string, p *Plan) {
	t.Helper()
	got, err := datadir.Inspect(context.Background(), dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if got.Base == nil || got.Base.Index != p.Index || got.Base.Term != p.Term || !got.Log.BaseConf {
		t.Errorf("base %+v, want the members at index %d of term %d", got.Base, p.Index, p.Term)
	}
	if want := (walcodec.HardState{Term: 2, Commit: 109}); got.Log.State != want {
		t.Errorf("hard state %+v, want %+v", got.Log.State, want)
	}
	if len(got.Members.Members) != 3 || got.Log.V2.Membership+got.Log.V2.Other > 0 {
		t.Errorf("members %+v, v2 requests %+v", got.Members, got.Log.V2)
	}
	want := entriesAfter(t, p.Source.log, p.Index)
	made := &logSource{dir: got}
	if have := entriesAfter(t, made, p.Index); strings.Join(have, "\n") != strings.Join(want, "\n") {
		t.Errorf("entries\n%q\nwant\n%q", have, want)
	}
	for _, r := range []datadir.Release{datadir.R35, datadir.R36, datadir.R37} {
		if err := got.Facts.Boots(r); err != nil {
			t.Errorf("would not boot in %s: %v", r, err)
		}
	}
}

// entriesAfter lists entries; those about members as what they are to become.
func entriesAfter(t *testing.T, l *logSource, index uint64) []string {
	t.Helper()
	var all []string
	err := l.dir.Entries(index, func(_ walcodec.Record, e walcodec.Entry) error {
		if blank, err := aboutMembers(e); err != nil {
			return err
		} else if blank {
			e = walcodec.NoOp(e)
		}
		all = append(all, string(walcodec.AppendEntry(nil, e)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAllMembersHaveTheSameKeys(t *testing.T) {
	root := t.TempDir()
	src := openDir(t, fixture.DataDir(t, "3.5.33"))
	var targets []Target
	for _, name := range []string{"m1", "m2", "m3"} {
		targets = append(targets, Target{Name: name, Dir: filepath.Join(root, name)})
	}
	p, err := NewPlan(src, newCluster(t, threeMembers, "x"), targets, Options{CompareKeys: true})
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.Apply(context.Background(), silent)
	if err != nil {
		t.Fatal(err)
	}
	if want := (snapcodec.HashKV{Hash: 1173996138, HashRevision: 99, CompactRevision: 20, CurrentRevision: 99}); result.Keys != want {
		t.Errorf("keys %+v, want %+v, which etcd said", result.Keys, want)
	}
	wantNames(t, root, "m1", "m2", "m3")
}

func TestWhatCantBeRestored(t *testing.T) {
	for name, c := range map[string]struct {
		path func(t *testing.T) string
		o    OpenOptions
		want string
	}{
		"v2 data":    {func(t *testing.T) string { return fixture.DataDir(t, "3.4.23-mixed") }, OpenOptions{}, "v2 data (/a in the snapshot)"},
		"no backend": {func(t *testing.T) string { return fixture.DataDir(t, "2.3.7") }, OpenOptions{}, "no v3 backend"},
		"no entry at the index": {func(t *testing.T) string { return behind(t, 0) }, OpenOptions{},
			"applied up to index 0"},
		"an empty folder":        {func(t *testing.T) string { return t.TempDir() }, OpenOptions{}, "holds no etcd data"},
		"a WAL dir for a file":   {func(t *testing.T) string { return snapshotFile(t, "3.5.33") }, OpenOptions{WALDir: "x"}, "belongs to a data dir"},
		"what is not there":      {func(t *testing.T) string { return filepath.Join(t.TempDir(), "x") }, OpenOptions{}, "no such file"},
		"a backend that is open": {lockedDir, OpenOptions{}, "etcd is running on it"},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.AssumeStopped = true
			src, err := Open(context.Background(), c.path(t), c.o)
			if err == nil {
				src.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// lockedDir is a data dir whose backend somebody has open.
func lockedDir(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/proc/locks"); err != nil {
		t.Skip("no way to tell on this system")
	}
	dir := fixture.DataDir(t, "3.5.33")
	db, err := bolt.Open(filepath.Join(dir, backendName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return dir
}

func TestBumpNeedsAnAppliedLog(t *testing.T) {
	c := newCluster(t, threeMembers, "x")
	targets := []Target{{Name: "m1", Dir: filepath.Join(t.TempDir(), "d")}}
	_, err := NewPlan(openDir(t, behind(t, 60)), c, targets, Options{Bump: 10})
	if err == nil || !strings.Contains(err.Error(), "not applied") {
		t.Errorf("error %v, want a refusal", err)
	}
	if _, err := NewPlan(openDir(t, behind(t, 109)), c, targets, Options{Bump: 10}); err != nil {
		t.Errorf("with all applied: %v", err)
	}
}

func TestForARelease(t *testing.T) {
	c := newCluster(t, threeMembers, "x")
	targets := []Target{{Name: "m1", Dir: filepath.Join(t.TempDir(), "d")}}
	src := openFile(t, snapshotFile(t, "3.5.33"))
	for r, boots := range map[datadir.Release]bool{datadir.R23: false, datadir.R34: true, datadir.R35: true, datadir.R37: true} {
		if _, err := NewPlan(src, c, targets, Options{For: r}); (err == nil) != boots {
			t.Errorf("for %s: %v", r, err)
		}
	}
}

func TestKubernetesIsSeen(t *testing.T) {
	src := openFile(t, snapshotFile(t, "3.5.33"))
	if found, err := src.Kubernetes(); err != nil || !found {
		t.Errorf("found %v (%v), though there are keys below /registry/", found, err)
	}
}

func TestTargetInsideTheSource(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33")
	src := openDir(t, dir)
	c := newCluster(t, threeMembers, "x")
	for name, target := range map[string]Target{
		"itself": {Name: "m1", Dir: dir},
		"inside": {Name: "m1", Dir: filepath.Join(dir, "new")},
		"log":    {Name: "m1", Dir: filepath.Join(t.TempDir(), "d"), WALDir: filepath.Join(dir, "member/wal/x")},
	} {
		if _, err := NewPlan(src, c, []Target{target}, Options{Replace: ".old"}); err == nil || !strings.Contains(err.Error(), "inside of the source") {
			t.Errorf("%s: error %v, want a refusal", name, err)
		}
	}
}

// The fixture's cluster was made with these flags.
func TestTheSameClusterIDIsWarnedOf(t *testing.T) {
	src := openDir(t, fixture.DataDir(t, "3.5.33"))
	for token, want := range map[string]bool{"etcd-cluster": true, "another": false} {
		c := newCluster(t, "m1=http://127.0.0.1:33201", token)
		p, err := NewPlan(src, c, []Target{{Name: "m1", Dir: filepath.Join(t.TempDir(), "d")}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(p.Warnings, "\n"), "gets the id of the old one"); got != want {
			t.Errorf("token %s, cluster %x of %x: warned %v, want %v", token, c.ID, src.log.dir.IDs.ClusterID, got, want)
		}
	}
}

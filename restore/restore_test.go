package restore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

const threeMembers = "m1=http://127.0.0.1:1001,m2=http://127.0.0.1:1002,m3=http://127.0.0.1:1003"

func silent(int64) {}

// snapshotFile is the snapshot that etcdctl took of a fixture.
func snapshotFile(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(fixture.Unpack(t, name), "snapshot.db")
}

func openFile(t *testing.T, path string) *Source {
	t.Helper()
	src, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

func newCluster(t *testing.T, initial, token string) Cluster {
	t.Helper()
	c, err := NewCluster(initial, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run restores path to the target's dir.
func run(t *testing.T, path string, targets []Target, o Options) *Plan {
	t.Helper()
	p, err := NewPlan(openFile(t, path), newCluster(t, threeMembers, "etcd-cluster"), targets, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(context.Background(), silent); err != nil {
		t.Fatal(err)
	}
	return p
}

// The ids are those that etcdutl 3.7.3 gave for the same flags.
func TestIDsAreThoseOfEtcdutl(t *testing.T) {
	for name, c := range map[string]struct {
		initial, token string
		cluster        uint64
		members        map[string]uint64
	}{
		"three": {threeMembers, "etcd-cluster", 0xca97115dce025109, map[string]uint64{
			"m1": 0xd7cd320dba482fdb, "m2": 0x1ae846329d709b71, "m3": 0x78d3e013db408e51,
		}},
		"the defaults": {"default=http://localhost:2380", "etcd-cluster", 0xcdf818194e3a8c32, map[string]uint64{
			"default": 0x8e9e05c52164694d,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := newCluster(t, c.initial, c.token)
			if got.ID != c.cluster || len(got.Members) != len(c.members) {
				t.Errorf("cluster %x of %d members, want %x of %d", got.ID, len(got.Members), c.cluster, len(c.members))
			}
			for member, want := range c.members {
				if m, err := got.Member(member); err != nil || m.ID != want {
					t.Errorf("%s is %x (%v), want %x", member, m.ID, err, want)
				}
			}
		})
	}
}

func TestURLsOfAMemberMayComeInAnyOrder(t *testing.T) {
	a := newCluster(t, "m=http://h:2,m=http://h:1", "x")
	b := newCluster(t, "m=http://h:1,m=http://h:2", "x")
	if a.ID != b.ID || !slices.Equal(a.Members[0].PeerURLs, []string{"http://h:1", "http://h:2"}) {
		t.Errorf("clusters %x and %x, URLs %q", a.ID, b.ID, a.Members[0].PeerURLs)
	}
}

func TestBadClusters(t *testing.T) {
	for name, c := range map[string]struct{ initial, want string }{
		"empty":         {"", "empty"},
		"no URL":        {"m1", "URL scheme"},
		"no port":       {"m1=http://h", "host:port"},
		"a path":        {"m1=http://h:1/a", "path"},
		"one URL twice": {"m1=http://h:1,m2=http://h:1", "given twice"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewCluster(c.initial, "x"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestAdvertisedURLs(t *testing.T) {
	m := snapcodec.Member{Name: "m", PeerURLs: []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}}
	if err := CheckAdvertised(context.Background(), m, []string{"http://127.0.0.1:2", "http://127.0.0.1:1"}); err != nil {
		t.Error(err)
	}
	err := CheckAdvertised(context.Background(), m, []string{"http://127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:2") {
		t.Errorf("error %v, want one that names both", err)
	}
}

func TestRestoredSnapshot(t *testing.T) {
	for _, name := range []string{"3.4.23-mixed", "3.5.33"} {
		t.Run(name, func(t *testing.T) {
			path, dir := snapshotFile(t, name), filepath.Join(t.TempDir(), "d")
			p := run(t, path, []Target{{Name: "m2", Dir: dir}}, Options{})
			checkLog(t, filepath.Join(dir, "member/wal"), p)
			checkSnap(t, filepath.Join(dir, "member/snap"), p)
			checkBackend(t, filepath.Join(dir, backendName), p)
		})
	}
}

func checkLog(t *testing.T, dir string, p *Plan) {
	t.Helper()
	report, err := walcodec.Verify(context.Background(), os.DirFS(dir), walcodec.VerifyOptions{})
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	me, _ := p.Cluster.Member(p.Targets[0].Name)
	if want := (walcodec.Metadata{NodeID: me.ID, ClusterID: p.Cluster.ID}); *report.Metadata != want {
		t.Errorf("metadata %x, want %x", *report.Metadata, want)
	}
	if want := (walcodec.HardState{Term: 1, Vote: p.Cluster.Members[0].ID, Commit: 3}); *report.HardState != want {
		t.Errorf("hard state %v, want %v", *report.HardState, want)
	}
	last := report.Snapshots[len(report.Snapshots)-1]
	if report.LastIndex != 3 || last.Index != 3 || last.Term != 1 || !slices.Equal(last.ConfState.Voters, p.confState()) {
		t.Errorf("log ends at %d with snapshot %+v", report.LastIndex, last)
	}
}

func checkSnap(t *testing.T, dir string, p *Plan) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "0000000000000001-0000000000000003.snap"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	snap, err := snapcodec.OpenSnap(f, info.Size(), snapcodec.SnapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	contents, err := snap.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(contents.Membership), fmt.Sprint(p.membership()); got != want {
		t.Errorf("members %s, want %s", got, want)
	}
}

// checkBackend looks for the new members and place, and that every other bucket
// is the source's.
func checkBackend(t *testing.T, path string, p *Plan) {
	t.Helper()
	src := openFile(t, path)
	report, err := src.DB.Check()
	if err != nil || report.Total > 0 {
		t.Fatalf("check: %v %v", err, report.Problems)
	}
	members, err := src.DB.Membership()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(members.Members, members.Removed), fmt.Sprint(p.Cluster.Members, []uint64(nil)); got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	if src.Meta.ConsistentIndex != 3 || src.Meta.Term != 1 {
		t.Errorf("meta %+v, want index 3, term 1", src.Meta)
	}
	for _, name := range []string{"key", "lease", "auth", "authUsers", "authRoles", "alarm"} {
		if got, want := dumpBucket(t, src.DB, name), dumpBucket(t, p.Source.DB, name); !slices.Equal(got, want) {
			t.Errorf("bucket %s has %d entries other than the source's %d", name, len(got), len(want))
		}
	}
}

func dumpBucket(t *testing.T, db *snapcodec.DB, name string) []string {
	t.Helper()
	bucket, err := db.Bucket(name)
	if err != nil {
		t.Fatal(err)
	}
	if bucket == nil {
		return nil
	}
	var all []string
	err = bucket.ForEach(nil, func(k, v []byte) error {
		all = append(all, string(k)+"="+string(v))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// No fixture has raised an alarm, so one is put in.
func TestAlarmsSurvive(t *testing.T) {
	raw := filepath.Join(fixture.DataDir(t, "3.5.33"), "member/snap/db")
	db, err := bolt.Open(raw, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("alarm")).Put([]byte{0x08, 0x2a, 0x10, 0x01}, nil) // member 42, NOSPACE
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "m1")
	run(t, raw, []Target{{Name: "m1", Dir: dir}}, Options{Hash: HashSkipped})
	alarms, err := openFile(t, filepath.Join(dir, backendName)).DB.Alarms()
	if err != nil || len(alarms) != 1 || alarms[0].MemberID != 42 {
		t.Errorf("alarms %+v (%v), want member 42's", alarms, err)
	}
}

// The copy must open as any bbolt file does, its free pages found again.
func TestFreePagesAreFoundAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	run(t, snapshotFile(t, "3.5.33"), []Target{{Name: "m1", Dir: dir}}, Options{})
	db, err := bolt.Open(filepath.Join(dir, backendName), 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.Stats().FreePageN == 0 {
		t.Error("no free pages, though the edit left some")
	}
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBump(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	p := run(t, snapshotFile(t, "3.5.33"), []Target{{Name: "m1", Dir: dir}}, Options{Bump: 1000})
	before, err := p.Source.DB.CurrentRevision()
	if err != nil {
		t.Fatal(err)
	}
	src := openFile(t, filepath.Join(dir, backendName))
	if got := src.Meta.ScheduledCompact; got != before+1000 {
		t.Errorf("compaction is scheduled up to %d, want %d", got, before+1000)
	}
	keys := dumpBucket(t, src.DB, "key")
	want := binary.BigEndian.AppendUint64(nil, uint64(before+1000))
	if last := keys[len(keys)-1]; last != string(want)+"_\x00\x00\x00\x00\x00\x00\x00\x00=" {
		t.Errorf("last record %q", last)
	}
}

func TestBumpOverTheTop(t *testing.T) {
	p, err := NewPlan(openFile(t, snapshotFile(t, "3.5.33")), newCluster(t, threeMembers, ""),
		[]Target{{Name: "m1", Dir: filepath.Join(t.TempDir(), "d")}}, Options{Bump: 1<<63 - 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Apply(context.Background(), silent); err == nil || !strings.Contains(err.Error(), "can't be raised") {
		t.Errorf("error %v", err)
	}
}

func TestLogInAPlaceOfItsOwn(t *testing.T) {
	for name, wal := range map[string]string{"outside": "w", "inside": "d/logs", "inside, deep": "d/a/b/logs"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			p := run(t, snapshotFile(t, "3.5.33"), []Target{{
				Name: "m3", Dir: filepath.Join(root, "d"), WALDir: filepath.Join(root, wal),
			}}, Options{})
			checkLog(t, filepath.Join(root, wal), p)
			if _, err := os.Stat(filepath.Join(root, "d", walName)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("member/wal: %v, want none", err)
			}
		})
	}
}

func TestSourceIsProved(t *testing.T) {
	path := snapshotFile(t, "3.5.33")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body := len(whole) - snapcodec.TrailerSize
	flipped := slices.Clone(whole)
	flipped[body-100] ^= 1
	page := slices.Clone(whole)
	copy(page[3*4096:], "not a page of a backend")
	for name, c := range map[string]struct {
		data []byte
		hash HashCheck
		want string // of the error; empty for none
	}{
		"whole":                      {whole, HashRequired, ""},
		"a bit flipped":              {flipped, HashRequired, "checksum mismatch"},
		"a page gone":                {page, HashSkipped, "problems in its pages"},
		"no SHA-256":                 {whole[:body], HashRequired, "no SHA-256"},
		"no SHA-256, and none asked": {whole[:body], HashSkipped, ""},
		"a wrong one, and not asked": {append(slices.Clone(whole[:body]), make([]byte, 32)...), HashSkipped, ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, "snapshot")
			if err := os.WriteFile(file, c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			err := restoreTo(file, filepath.Join(root, "d"), Options{Hash: c.hash})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if c.want != "" {
				wantNames(t, root, "snapshot")
			}
		})
	}
}

func restoreTo(path, dir string, o Options) error {
	src, err := OpenFile(path)
	if err != nil {
		return err
	}
	defer src.Close()
	c, err := NewCluster(threeMembers, "etcd-cluster")
	if err != nil {
		return err
	}
	p, err := NewPlan(src, c, []Target{{Name: "m1", Dir: dir}}, o)
	if err != nil {
		return err
	}
	_, err = p.Apply(context.Background(), silent)
	return err
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

var errInjected = errors.New("injected")

func TestEveryFaultLeavesNothing(t *testing.T) {
	path := snapshotFile(t, "3.5.33")
	for n := 1; ; n++ {
		root := t.TempDir()
		count := 0
		sys := atomicfile.System{Before: func(atomicfile.Op, string) error {
			if count++; count == n {
				return errInjected
			}
			return nil
		}}
		src := openFile(t, path)
		p, err := NewPlan(src, newCluster(t, threeMembers, ""), []Target{
			{Name: "m1", Dir: filepath.Join(root, "a"), WALDir: filepath.Join(root, "wal")},
			{Name: "m2", Dir: filepath.Join(root, "b")},
		}, Options{System: sys})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Apply(context.Background(), silent)
		if err == nil {
			if n < 30 {
				t.Fatalf("only %d operations could fail", n-1)
			}
			wantNames(t, root, "a", "b", "wal")
			return
		}
		if !errors.Is(err, errInjected) {
			t.Fatalf("fault %d: %v", n, err)
		}
		wantNames(t, root)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	root := t.TempDir()
	p, err := NewPlan(openFile(t, snapshotFile(t, "3.5.33")), newCluster(t, threeMembers, ""),
		[]Target{{Name: "m1", Dir: filepath.Join(root, "d")}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Apply(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
	wantNames(t, root)
}

func TestForeignFiles(t *testing.T) {
	for name, c := range map[string]struct{ file, head, want string }{
		"empty":    {"a", "", "empty"},
		"gzip":     {"a", "\x1f\x8b\x08\x00", "gzip"},
		"zstd":     {"a", "\x28\xb5\x2f\xfd\x00", "zstd"},
		"a log":    {"a", "\x04\x00\x00\x00\x00\x00\x00\x84\x08\x04", "write-ahead log"},
		"old log":  {"0000000000000000-0000000000000000.wal", "\x04\x00", "write-ahead log"},
		"raft":     {"0000000000000002-000000000000012d.snap", "\x08\x01", "raft snapshot"},
		"text":     {"a", "hello\n", "text"},
		"zeros":    {"a", "\x00\x00", "zeros"},
		"anything": {"a", "\x01\x02\x03", "not a bbolt"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := foreignKind(c.file, []byte(c.head)); !strings.Contains(got, c.want) {
				t.Errorf("told as %q, want %q", got, c.want)
			}
		})
	}
}

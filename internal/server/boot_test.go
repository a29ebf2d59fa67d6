package server_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// create makes a dir with some keys and returns it, closed.
func create(t *testing.T, keys ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := server.Create(dir); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, server.Options{})
	for _, key := range keys {
		mustPut(t, s, key)
	}
	closeServer(t, s)
	return dir
}

func mustPut(t *testing.T, s *server.Server, key string) {
	t.Helper()
	if got := ask(s.Handler(), "PUT", "/v2/keys"+key, "value="+key); got.code/100 != 2 {
		t.Fatalf("PUT %s: %d %s", key, got.code, got.body)
	}
}

func wantKeys(t *testing.T, s *server.Server, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if got := ask(s.Handler(), "GET", "/v2/keys"+key, ""); got.code != http.StatusOK {
			t.Errorf("GET %s: %d %s", key, got.code, got.body)
		}
	}
}

func lastSegment(t *testing.T, dir string) string {
	t.Helper()
	wal := filepath.Join(dir, "member", "wal")
	segments, err := walcodec.Segments(os.DirFS(wal))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v: %v", segments, err)
	}
	return filepath.Join(wal, segments[len(segments)-1].Name)
}

// records are the offsets at which the records of a segment start, and where
// the last one ends.
func records(t *testing.T, name string) []int64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := walcodec.NewReader(f, walcodec.ReaderOptions{Segment: filepath.Base(name), Last: true})
	var offsets []int64
	for {
		rec, err := r.Next()
		if err != nil {
			return append(offsets, r.Offset())
		}
		offsets = append(offsets, rec.Offset)
	}
}

func TestTornLastWriteIsCutOffAndKept(t *testing.T) {
	dir := create(t, "/a", "/b", "/c")
	segment := lastSegment(t, dir)
	offsets := records(t, segment)
	if err := os.Truncate(segment, offsets[len(offsets)-1]-3); err != nil {
		t.Fatal(err)
	}
	torn := readFile(t, segment)
	reader := open(t, dir, server.Options{ReadOnly: true})
	if reader.Status().Boot.Torn == "" {
		t.Error("a read-only server does not tell of the torn write")
	}
	s := open(t, dir, server.Options{})
	wantKeys(t, s, "/a", "/b", "/c") // what was cut is the last commit only
	mustPut(t, s, "/d")
	closeServer(t, s)
	if readFile(t, segment+".broken") != torn {
		t.Error("the copy kept is not the segment as it was")
	}
	again := open(t, dir, server.Options{})
	wantKeys(t, again, "/c", "/d")
	if torn := again.Status().Boot.Torn; torn != "" {
		t.Errorf("torn again: %s", torn)
	}
}

func TestDamagedLogIsRefusedByFileAndOffset(t *testing.T) {
	dir := create(t, "/a", "/b", "/c", "/d")
	segment := lastSegment(t, dir)
	offsets := records(t, segment)
	f, err := os.OpenFile(segment, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, offsets[5]+20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	_, err = server.Open(context.Background(), dir, server.Options{})
	var damage *walcodec.CorruptError
	if !errors.As(err, &damage) || damage.Offset != offsets[5] || damage.Segment != filepath.Base(segment) {
		t.Errorf("got %v, want damage at offset %d of %s", err, offsets[5], filepath.Base(segment))
	}
	if after := tree(t, dir); after != before {
		t.Errorf("the damaged dir was changed:\n%s\n%s", before, after)
	}
}

func TestDirIsServedOnce(t *testing.T) {
	dir := create(t, "/a")
	s := open(t, dir, server.Options{})
	_, err := server.Open(context.Background(), dir, server.Options{})
	if err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("second server on one dir: %v", err)
	}
	mustPut(t, s, "/b")
	clone := open(t, dir, server.Options{Clone: true})
	wantKeys(t, clone, "/a", "/b")
	mustPut(t, clone, "/only-in-the-clone")
	if got := ask(s.Handler(), "GET", "/v2/keys/only-in-the-clone", ""); got.code != http.StatusNotFound {
		t.Errorf("a write to the clone shows: %s", got.body)
	}
}

func TestCloneIsRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := open(t, create(t, "/a"), server.Options{Clone: true})
	closeServer(t, s)
	left, err := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "*clone*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

func TestLayouts(t *testing.T) {
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	dir := fixture.DataDir(t, "2.3.7")
	const key = "/a/b/car"

	t.Run("flat, as in 2.0.0", func(t *testing.T) {
		flat := filepath.Join(t.TempDir(), "flat")
		copyTree(t, filepath.Join(dir, "member"), flat)
		reader := open(t, flat, server.Options{ReadOnly: true})
		wantKeys(t, reader, key)
		s := open(t, flat, server.Options{})
		wantKeys(t, s, key)
		closeServer(t, s)
		wantKeys(t, open(t, flat, server.Options{}), key)
		if _, err := os.Stat(filepath.Join(flat, "member", "wal")); err != nil {
			t.Error(err)
		}
	})
	t.Run("member folder", func(t *testing.T) {
		member := filepath.Join(t.TempDir(), "member")
		copyTree(t, filepath.Join(dir, "member"), member)
		wantKeys(t, open(t, member, server.Options{}), key)
	})
	t.Run("segments elsewhere", func(t *testing.T) {
		split := filepath.Join(t.TempDir(), "split")
		copyTree(t, dir, split)
		wal := filepath.Join(t.TempDir(), "wal")
		move(t, filepath.Join(split, "member", "wal"), wal)
		wantKeys(t, open(t, split, server.Options{WALDir: wal, Clone: true}), key)
		wantKeys(t, open(t, split, server.Options{WALDir: wal}), key)
	})
	t.Run("segments only", func(t *testing.T) {
		wal := filepath.Join(t.TempDir(), "log")
		copyTree(t, filepath.Join(dir, "member", "wal"), wal)
		s := open(t, wal, server.Options{SnapshotCount: 5})
		for range 20 {
			mustPut(t, s, "/new")
		}
		wantKeys(t, s, key)
		closeServer(t, s)
		again := open(t, wal, server.Options{})
		wantKeys(t, again, key, "/new")
		if again.Status().Boot.Snapshot == 0 {
			t.Error("the snapshot beside the segments was not used")
		}
	})
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotsAreTakenAndBootedFrom(t *testing.T) {
	dir := create(t)
	s := open(t, dir, server.Options{SnapshotCount: 10})
	for range 100 {
		mustPut(t, s, "/counter")
	}
	mustPut(t, s, "/last")
	want := ask(s.Handler(), "GET", "/v2/keys/?recursive=true&sorted=true", "").body
	closeServer(t, s)
	again := open(t, dir, server.Options{})
	boot := again.Status().Boot
	if boot.Snapshot == 0 || boot.Applied-boot.Snapshot > 20 {
		t.Errorf("booted from snapshot %d and the log up to %d", boot.Snapshot, boot.Applied)
	}
	if got := ask(again.Handler(), "GET", "/v2/keys/?recursive=true&sorted=true", "").body; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestUnreadableSnapshotIsPassedOver(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	newest := filepath.Join(dir, "member", "snap", "0000000000000002-000000000000025a.snap")
	if err := os.WriteFile(newest, []byte("no snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, server.Options{})
	if got := s.Status().Boot.Snapshot; got != 0x12d {
		t.Errorf("booted from snapshot %#x, want the one before", got)
	}
	wantKeys(t, s, "/a/b/car")
}

func TestLogThatStartsLateNeedsItsSnapshot(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	wal := filepath.Join(dir, "member", "wal")
	if err := os.Rename(filepath.Join(wal, walcodec.SegmentName(0, 0)), filepath.Join(wal, walcodec.SegmentName(1, 1))); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "member", "snap")); err != nil {
		t.Fatal(err)
	}
	_, err := server.Open(context.Background(), dir, server.Options{ReadOnly: true})
	if err == nil || !strings.Contains(err.Error(), "no usable snapshot") {
		t.Errorf("got %v", err)
	}
}

func TestNoSnapshotBeyondV3WritesThatTheBackendLacks(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33") // nothing but v3, never snapshotted
	if err := os.Remove(filepath.Join(dir, "member", "snap", "db")); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, server.Options{SnapshotCount: 5})
	if !s.Status().Boot.PendingV3 {
		t.Error("v3 writes without a backend are not told")
	}
	for range 30 {
		mustPut(t, s, "/a")
	}
	closeServer(t, s)
	snaps, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*"))
	if err != nil || len(snaps) > 0 {
		t.Errorf("left %v (%v)", snaps, err)
	}
}

func TestCreateRefusesAMember(t *testing.T) {
	if err := server.Create(create(t)); err == nil {
		t.Error("a member's dir was taken for a new one")
	}
}

func TestNotEtcd(t *testing.T) {
	if _, err := server.Open(context.Background(), t.TempDir(), server.Options{}); err == nil {
		t.Error("an empty dir was booted")
	}
}

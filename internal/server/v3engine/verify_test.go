package v3engine

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/restore"
)

// outcome is how the checks of a verification ended, by name.
type outcome map[string]string

func (o outcome) checks(t *testing.T) Checks {
	return func(name string, check func(*Finding) error) {
		var f Finding
		err := check(&f)
		text := f.Detail
		for _, p := range f.Problems {
			text += "\nPROBLEM " + p.Error()
		}
		if err != nil {
			text += "\nERROR " + err.Error()
		}
		t.Logf("%s: %s", name, text)
		o[name] = text
	}
}

// failed are the names of the checks that did not pass, in order.
func (o outcome) failed() []string {
	var names []string
	for name, text := range o {
		if strings.Contains(text, "\nPROBLEM") || strings.Contains(text, "\nERROR") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func verifyDir(t *testing.T, path string) outcome {
	t.Helper()
	got := outcome{}
	v := OfDir(inspect(t, path), VerifyOptions{})
	defer v.Close()
	v.CheckDigest(got.checks(t))
	v.CheckSource(got.checks(t))
	v.CheckBoot(t.Context(), got.checks(t))
	return got
}

func (o outcome) wantPassed(t *testing.T) {
	t.Helper()
	if failed := o.failed(); len(failed) > 0 || !strings.Contains(o["v3 write"], "read through raft") {
		t.Errorf("failed: %q", failed)
	}
}

func TestVerifyFixtures(t *testing.T) {
	for _, name := range []string{"3.4.23-mixed", "3.5.33"} {
		t.Run(name, func(t *testing.T) {
			verifyDir(t, fixture.DataDir(t, name)).wantPassed(t)
		})
	}
}

// TestServesWhatTheLiveServerDid compares a booted clone with what the
// fixture's own etcd had answered.
func TestServesWhatTheLiveServerDid(t *testing.T) {
	for _, name := range []string{"3.4.23-mixed", "3.5.33"} {
		t.Run(name, func(t *testing.T) {
			answers := fixture.Unpack(t, name)
			clone, err := Clone(t.Context(), inspect(t, dataDirIn(t, answers)), datadir.R37, CloneOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer clone.Remove()
			client := startAndDial(t, clone.Dir)
			compareKeys(t, client, filepath.Join(answers, "expected-v3.json"))
			compareHash(t, client, filepath.Join(answers, "hashkv.json"))
		})
	}
}

func dataDirIn(t *testing.T, dir string) string {
	t.Helper()
	members, err := filepath.Glob(filepath.Join(dir, "*", "member"))
	if err != nil || len(members) != 1 {
		t.Fatalf("member folders %v (%v), want one", members, err)
	}
	return filepath.Dir(members[0])
}

func start(t *testing.T, dir string) *Server {
	t.Helper()
	s, err := Start(t.Context(), dir, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func startAndDial(t *testing.T, dir string) *clientv3.Client {
	t.Helper()
	return dial(t, start(t, dir))
}

func dial(t *testing.T, s *Server) *clientv3.Client {
	t.Helper()
	client, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func compareKeys(t *testing.T, client *clientv3.Client, file string) {
	t.Helper()
	var want struct {
		KVs []struct {
			Key, Value     string
			ModRevision    int64 `json:"mod_revision"`
			CreateRevision int64 `json:"create_revision"`
			Version        int64
		}
	}
	readJSON(t, file, &want)
	got, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != len(want.KVs) || len(want.KVs) == 0 {
		t.Fatalf("%d keys, want %d", len(got.Kvs), len(want.KVs))
	}
	for i, kv := range got.Kvs {
		w := want.KVs[i]
		if base64.StdEncoding.EncodeToString(kv.Key) != w.Key || base64.StdEncoding.EncodeToString(kv.Value) != w.Value ||
			kv.ModRevision != w.ModRevision || kv.CreateRevision != w.CreateRevision || kv.Version != w.Version {
			t.Errorf("key %d: %v, want %v", i, kv, w)
		}
	}
}

func compareHash(t *testing.T, client *clientv3.Client, file string) {
	t.Helper()
	var want []struct{ HashKV struct{ Hash uint32 } }
	readJSON(t, file, &want)
	got, err := pb.NewMaintenanceClient(client.ActiveConnection()).HashKV(t.Context(), &pb.HashKVRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) != 1 || got.Hash != want[0].HashKV.Hash {
		t.Errorf("hash %d, want %v", got.Hash, want)
	}
}

func readJSON(t *testing.T, file string, to any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// edit changes the backend of a data dir.
func edit(t *testing.T, dir string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(backendOf(dir), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(change); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func backendOf(dir string) string { return filepath.Join(dir, "member/snap/db") }

// flipLast changes the last byte of the newest put's value. A lease is behind
// the value: the newest puts of the fixtures have none.
func flipLast(tx *bolt.Tx) error {
	b := tx.Bucket([]byte("key"))
	k, v := b.Cursor().Last()
	v = slices.Clone(v)
	v[len(v)-1] ^= 1
	return b.Put(slices.Clone(k), v)
}

func raiseNoSpace(tx *bolt.Tx) error {
	key, err := proto.Marshal(&pb.AlarmMember{MemberID: 1, Alarm: pb.AlarmType_NOSPACE})
	if err != nil {
		return err
	}
	return tx.Bucket([]byte("alarm")).Put(key, nil)
}

func TestVerifyCatches(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(*bolt.Tx) error
		failed []string
		says   string
	}{
		"a flipped byte": {flipLast, []string{"v3 boot", "v3 log and backend"}, "no put in the log wrote"},
		"no key bucket": {func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("key")) },
			[]string{"v3 boot", "v3 contents"}, "bucket key is missing"},
		"keys gone": {func(tx *bolt.Tx) error {
			if err := tx.Bucket([]byte("meta")).Delete([]byte("scheduledCompactRev")); err != nil {
				return err
			}
			if err := tx.Bucket([]byte("meta")).Delete([]byte("finishedCompactRev")); err != nil {
				return err
			}
			if err := tx.DeleteBucket([]byte("key")); err != nil {
				return err
			}
			_, err := tx.CreateBucket([]byte("key"))
			return err
		}, []string{"v3 boot", "v3 log and backend"}, "are in no revision of the backend"},
		"no space": {raiseNoSpace, []string{"v3 alarms", "v3 write"}, "can't be written to: etcdserver: mvcc: database space exceeded"},
	} {
		for _, of := range []string{"3.4.23-mixed", "3.5.33"} {
			t.Run(name+" "+of, func(t *testing.T) {
				dir := fixture.DataDir(t, of)
				edit(t, dir, c.damage)
				got := verifyDir(t, dir)
				if failed := got.failed(); !slices.Equal(failed, c.failed) {
					t.Fatalf("failed: %q, want %q", failed, c.failed)
				}
				if text := got[c.failed[len(c.failed)-1]]; !strings.Contains(text, c.says) {
					t.Errorf("%q does not say %q", text, c.says)
				}
			})
		}
	}
}

// A backup of a running member leaves the v3 data out, and makes a backend.
func TestVerifyMadeBackend(t *testing.T) {
	dir := fixture.DataDir(t, "3.4.23-mixed")
	edit(t, dir, func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
			if string(name) == "meta" {
				return nil
			}
			return tx.DeleteBucket(name)
		})
	})
	got := verifyDir(t, dir)
	if len(got) != 1 || !strings.HasSuffix(got["v3 contents"], "the v3 data is NOT in here") {
		t.Errorf("got %v", got)
	}
}

// With users checked, nobody could look.
func TestVerifyWithAuthOn(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33")
	edit(t, dir, func(tx *bolt.Tx) error { return tx.Bucket([]byte("auth")).Put([]byte("authEnabled"), []byte{1}) })
	got := verifyDir(t, dir)
	got.wantPassed(t)
	if !strings.HasPrefix(got["v3 auth"], "2 users, 1 roles") {
		t.Errorf("auth: %s", got["v3 auth"])
	}
}

func TestVerifyFile(t *testing.T) {
	snapshot := filepath.Join(fixture.Unpack(t, "3.4.23-mixed"), "snapshot.db")
	verifyFile(t, snapshot).wantPassed(t)
}

func TestVerifyFileCatchesAFlippedByte(t *testing.T) {
	snapshot := filepath.Join(fixture.Unpack(t, "3.4.23-mixed"), "snapshot.db")
	flipValue(t, snapshot)
	if failed := verifyFile(t, snapshot).failed(); !slices.Equal(failed, []string{"v3 boot", "v3 sha-256"}) {
		t.Errorf("failed %q", failed)
	}
}

func TestVerifyCopiedBackend(t *testing.T) {
	verifyFile(t, backendOf(fixture.DataDir(t, "3.5.33"))).wantPassed(t)
}

func verifyFile(t *testing.T, path string) outcome {
	t.Helper()
	src, err := restore.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got := outcome{}
	v := OfFile(src, VerifyOptions{})
	defer v.Close()
	v.CheckDigest(got.checks(t))
	v.CheckSource(got.checks(t))
	v.CheckBoot(t.Context(), got.checks(t))
	return got
}

// flipValue changes a byte of a value of the fixtures, wherever it stands.
func flipValue(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(data, []byte("val-100"), []byte("val-101"))
	if bytes.Equal(changed, data) {
		t.Fatal("the fixture has no such value")
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A backend that was killed lags behind the log, from which the boot makes up
// for it.
func TestVerifyLogAhead(t *testing.T) {
	for name, compact := range map[string]bool{"plain": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			dir := aheadOfBackend(t, compact)
			got := verifyDir(t, dir)
			got.wantPassed(t)
			for check, says := range map[string]string{
				"v3 log and backend": "the log is ahead by 2",
				"v3 records":         "after the boot",
			} {
				if !strings.Contains(got[check], says) {
					t.Errorf("%s: %q does not say %q", check, got[check], says)
				}
			}
		})
	}
}

func aheadOfBackend(t *testing.T, compact bool) string {
	t.Helper()
	src := inspect(t, fixture.DataDir(t, "3.5.33"))
	clone, err := Clone(t.Context(), src, datadir.R37, CloneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clone.Remove() })
	old, err := os.ReadFile(backendOf(clone.Dir))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, clone.Dir)
	writeAll(t, dial(t, s), compact)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(backendOf(clone.Dir), old, 0o600); err != nil {
		t.Fatal(err)
	}
	return clone.Dir
}

// writeAll makes one request of every kind that touches keys.
func writeAll(t *testing.T, client *clientv3.Client, compact bool) {
	t.Helper()
	ctx := t.Context()
	var errs []error
	note := func(_ any, err error) { errs = append(errs, err) }
	for range 20 {
		note(client.Put(ctx, "ahead", strings.Repeat("x", len(errs))))
	}
	note(client.Txn(ctx).Then(clientv3.OpPut("ahead/a", "1"), clientv3.OpPut("ahead/b", "2")).Commit())
	note(client.Delete(ctx, "ahead/a"))
	note(client.Delete(ctx, "nothing there"))
	lease, err := client.Grant(ctx, 1000)
	errs = append(errs, err)
	note(client.Put(ctx, "ahead/leased", "3", clientv3.WithLease(lease.ID)))
	if compact {
		now, err := client.Get(ctx, "ahead")
		errs = append(errs, err)
		note(client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical()))
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Without a backend etcd makes one from the log.
func TestVerifyLogAlone(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33")
	if err := os.Remove(backendOf(dir)); err != nil {
		t.Fatal(err)
	}
	got := verifyDir(t, dir)
	got.wantPassed(t)
	if !strings.Contains(got["v3 revision"], "99: the backend's 1 and the") {
		t.Errorf("revision: %s", got["v3 revision"])
	}
}

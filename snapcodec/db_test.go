package snapcodec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"
)

func openDB(t testing.TB, b []byte) *DB {
	t.Helper()
	db, err := OpenDB(bytes.NewReader(b), int64(len(b)), DBOptions{Name: "db"})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// keyspace fills backends through etcd's own code.
type keyspace struct {
	testing.TB
	path string
	be   backend.Backend
	kv   mvcc.KV
	rnd  *rand.Rand
}

func newKeyspace(t testing.TB, seed int64) *keyspace {
	t.Helper()
	s := &keyspace{TB: t, path: filepath.Join(t.TempDir(), "db"), rnd: rand.New(rand.NewSource(seed))}
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *keyspace) open() {
	s.be = backend.NewDefaultBackend(zap.NewNop(), s.path)
	s.kv = mvcc.New(zap.NewNop(), s.be, &lease.FakeLessor{}, mvcc.StoreConfig{})
}

func (s *keyspace) close() {
	if s.be != nil {
		s.kv.Close()
		s.be.Close()
		s.be = nil
	}
}

// fill makes n transactions.
func (s *keyspace) fill(n int) {
	for range n {
		txn := s.kv.Write(traceutil.TODO())
		for range 1 + s.rnd.Intn(3)*s.rnd.Intn(2) {
			key := fmt.Appendf(nil, "k%03d", s.rnd.Intn(100))
			switch s.rnd.Intn(5) {
			case 0:
				txn.DeleteRange(key, fmt.Appendf(nil, "k%03d", s.rnd.Intn(100)))
			default:
				value := bytes.Repeat([]byte{'v'}, s.rnd.Intn(1+s.rnd.Intn(400)))
				if s.rnd.Intn(200) == 0 {
					value = bytes.Repeat([]byte("large"), 10_000)
				}
				txn.Put(key, value, lease.LeaseID(s.rnd.Intn(2)*77))
			}
		}
		txn.End()
	}
}

func (s *keyspace) compact(rev int64) {
	done, err := s.kv.Compact(traceutil.TODO(), rev)
	if err != nil {
		s.Fatal(err)
	}
	<-done
}

// bytes closes the backend and gives the file.
func (s *keyspace) bytes() []byte {
	s.close()
	return readFile(s, s.path)
}

// etcdHash asks etcd for the hash at a revision of a copy of the file.
func etcdHashes(t testing.TB, file []byte, revs []int64) []HashKV {
	t.Helper()
	s := &keyspace{TB: t, path: filepath.Join(t.TempDir(), "db")}
	if err := os.WriteFile(s.path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	defer s.close()
	var all []HashKV
	for _, rev := range revs {
		h, current, err := s.kv.HashStorage().HashByRev(rev)
		switch {
		case errors.Is(err, mvcc.ErrCompacted):
			all = append(all, HashKV{HashRevision: -1})
		case errors.Is(err, mvcc.ErrFutureRev):
			all = append(all, HashKV{HashRevision: -2})
		case err != nil:
			t.Fatal(err)
		default:
			all = append(all, HashKV{h.Hash, h.Revision, h.CompactRevision, current})
		}
	}
	return all
}

func compareHashes(t testing.TB, file []byte, revs ...int64) {
	t.Helper()
	db := openDB(t, file)
	for i, want := range etcdHashes(t, file, revs) {
		got, err := db.HashKV(revs[i])
		switch {
		case errors.Is(err, ErrCompacted):
			got = HashKV{HashRevision: -1}
		case errors.Is(err, ErrFutureRevision):
			got = HashKV{HashRevision: -2}
		case err != nil:
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("revision %d: %+v, want %+v", revs[i], got, want)
		}
	}
}

// manyRevisions gives revisions to ask about, in and out of range.
func manyRevisions(last int64) []int64 {
	revs := []int64{0, 1, 2, last, last + 1}
	for rev := int64(3); rev < last; rev += 1 + last/60 {
		revs = append(revs, rev)
	}
	return revs
}

func TestHashKVEqualsEtcds(t *testing.T) {
	for seed := range int64(6) {
		s := newKeyspace(t, seed)
		s.fill(400)
		compactAt := s.kv.Rev() - 100 - seed
		if seed > 0 {
			s.compact(compactAt)
		}
		s.fill(100)
		last := s.kv.Rev()
		compareHashes(t, s.bytes(), manyRevisions(last)...)
	}
}

func TestHashKVOfEmptyKeyspaces(t *testing.T) {
	s := newKeyspace(t, 1)
	compareHashes(t, s.bytes(), 0, 1, 2)

	s = newKeyspace(t, 1)
	s.kv.Put([]byte("a"), nil, 0)
	s.kv.Put([]byte("a"), nil, 0)
	s.kv.DeleteRange([]byte("a"), nil)
	s.kv.Put([]byte("b"), nil, 0)
	s.kv.DeleteRange([]byte("b"), nil)
	last := s.kv.Rev()
	compareHashes(t, readFile(t, s.path), 0)
	for rev := int64(1); rev <= last; rev++ {
		s.compact(rev)
		s.be.ForceCommit()
		compareHashes(t, readFile(t, s.path), 0, 1, 2, 3, 4, 5, 6, 7)
	}
}

// TestHashKVWithCompactionUnderWay: a compaction was scheduled and etcd was
// killed; nothing or half of it was done.
func TestHashKVWithCompactionUnderWay(t *testing.T) {
	for seed := range int64(4) {
		s := newKeyspace(t, seed)
		s.fill(200)
		if seed%2 == 1 {
			s.compact(80)
		}
		last := s.kv.Rev()
		s.close()
		be := backend.NewDefaultBackend(zap.NewNop(), s.path)
		mvcc.SetScheduledCompact(be.BatchTx(), 150)
		be.ForceCommit()
		be.Close()
		compareHashes(t, readFile(t, s.path), manyRevisions(last)...)
	}
}

func TestFixtureHashes(t *testing.T) {
	for _, dir := range []string{"testdata/etcd-3.4.23", "testdata/etcd-3.5.33"} {
		t.Run(dir, func(t *testing.T) {
			var answer []struct {
				HashKV struct {
					Hash            uint32
					CompactRevision int64 `json:"compact_revision"`
					Header          struct{ Revision int64 }
				}
			}
			readJSON(t, dir+"/hashkv.json", &answer)
			file := readFile(t, dir+"/snapshot.db")
			got, err := openDB(t, file).HashKV(0)
			if err != nil {
				t.Fatal(err)
			}
			w := answer[0].HashKV
			if want := (HashKV{w.Hash, w.Header.Revision, w.CompactRevision, w.Header.Revision}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			compareHashes(t, file, manyRevisions(got.CurrentRevision)...)
			if !HasTrailer(int64(len(file))) {
				t.Error("no trailer seen")
			}
			if err := VerifyTrailer(bytes.NewReader(file), int64(len(file)), DBOptions{}); err != nil {
				t.Error(err)
			}
			compareStatus(t, file)
		})
	}
}

// boltStatus computes what etcdutl 3.7 prints, the way it does: with bbolt,
// bucket by bucket. Source: etcdutl/snapshot/v3_snapshot.go.
func boltStatus(t testing.TB, file []byte) Status {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	bdb, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bdb.Close()
	var st Status
	h, seen := crc32.New(castagnoli), make(map[string]bool)
	err = bdb.View(func(tx *bolt.Tx) error {
		st.TotalSize = tx.Size()
		if m := tx.Bucket([]byte("meta")); m != nil {
			st.Version = string(m.Get([]byte("storageVersion")))
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			h.Write(name)
			return b.ForEach(func(k, v []byte) error {
				h.Write(k)
				h.Write(v)
				if string(name) != "key" {
					return nil
				}
				st.Revision = mvcc.BytesToRev(k).Main
				kv, err := ParseKeyValue(v)
				seen[string(kv.Key)] = !mvcc.IsTombstone(k)
				return err
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, alive := range seen {
		if alive {
			st.TotalKey++
		}
	}
	st.Hash = h.Sum32()
	return st
}

func compareStatus(t testing.TB, file []byte) {
	t.Helper()
	got, err := openDB(t, file).Status()
	if err != nil {
		t.Fatal(err)
	}
	if want := boltStatus(t, file); got != want {
		t.Errorf("status %+v, want %+v", got, want)
	}
}

func TestStatusEqualsEtcdutls(t *testing.T) {
	for seed := range int64(3) {
		s := newKeyspace(t, seed)
		s.fill(int(seed) * 1000)
		if seed > 1 {
			s.compact(s.kv.Rev() / 2)
		}
		file := s.bytes()
		compareStatus(t, file)
		checkClean(t, file)
	}
}

func checkClean(t testing.TB, file []byte) {
	t.Helper()
	report, err := openDB(t, file).Check()
	if err != nil || report.Total != 0 {
		t.Errorf("check: %v, %d problems: %v", err, report.Total, report.Problems)
	}
}

// TestBucketsEqualBbolts compares every entry of every bucket, and every start
// in between, with what bbolt reads.
func TestBucketsEqualBbolts(t *testing.T) {
	s := newKeyspace(t, 5)
	s.fill(2000)
	file := s.bytes()
	bdb, err := bolt.Open(s.path, 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bdb.Close()
	db := openDB(t, file)
	err = bdb.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bb *bolt.Bucket) error {
			compareBucket(t, db, string(name), bb)
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func compareBucket(t *testing.T, db *DB, name string, bb *bolt.Bucket) {
	t.Helper()
	b, err := db.Bucket(name)
	if err != nil || b == nil {
		t.Fatalf("bucket %s: %v, %v", name, b, err)
	}
	cursor := bb.Cursor()
	k, v := cursor.First()
	n := 0
	err = b.ForEach(nil, func(key, value []byte) error {
		if !bytes.Equal(k, key) || !bytes.Equal(v, value) {
			t.Fatalf("bucket %s: key %x, want %x", name, key, k)
		}
		if n++; n%37 == 0 {
			compareSeek(t, b, bb, key)
		}
		k, v = cursor.Next()
		return nil
	})
	if err != nil || k != nil {
		t.Errorf("bucket %s: %v, %x left", name, err, k)
	}
}

// compareSeek starts at a key, and just after it.
func compareSeek(t *testing.T, b *Bucket, bb *bolt.Bucket, key []byte) {
	t.Helper()
	for _, from := range [][]byte{slices.Clone(key), append(slices.Clone(key), 0)} {
		want, _ := bb.Cursor().Seek(from)
		var got []byte
		err := b.ForEach(from, func(k, _ []byte) error { got = slices.Clone(k); return errStop })
		if err != nil && err != errStop || !bytes.Equal(got, want) {
			t.Fatalf("from %x: %x, want %x (%v)", from, got, want, err)
		}
		value, err := b.Get(from)
		if err != nil || !bytes.Equal(value, bb.Get(from)) {
			t.Fatalf("get %x: %v", from, err)
		}
	}
}

func TestFixtureBackends(t *testing.T) {
	for _, dir := range []string{"testdata/etcd-3.4.23", "testdata/etcd-3.5.33"} {
		t.Run(dir, func(t *testing.T) {
			file := readFile(t, dir+"/snapshot.db")
			checkClean(t, file)
			db := openDB(t, file)
			compareFixtureMembers(t, db, dir)
			compareFixtureKeys(t, db, dir)
			var leases []string
			if err := db.Leases(func(l Lease) error { leases = append(leases, fmt.Sprintf("%x", l.ID)); return nil }); err != nil {
				t.Fatal(err)
			}
			if want := strings.Fields(string(readFile(t, dir+"/leases.txt")))[3:]; !slices.Equal(leases, want) {
				t.Errorf("leases %v, want %v", leases, want)
			}
			auth, err := db.Auth()
			if err != nil || auth.Enabled || len(auth.Users) != 2 || auth.Users[0].Name != "bob" || !auth.Users[0].HasPassword {
				t.Errorf("auth %+v, %v", auth, err)
			}
			if len(auth.Roles) == 0 || auth.Roles[0].Name != "r1" || len(auth.Roles[0].Permissions) == 0 {
				t.Errorf("roles %+v", auth.Roles)
			}
			if alarms, err := db.Alarms(); len(alarms) != 0 || err != nil {
				t.Errorf("alarms %v, %v", alarms, err)
			}
		})
	}
}

func compareFixtureMembers(t *testing.T, db *DB, dir string) {
	t.Helper()
	var want struct {
		Members []struct {
			ID                   uint64 `json:"ID"`
			Name                 string
			PeerURLs, ClientURLs []string
		}
	}
	readJSON(t, dir+"/members.json", &want)
	m, err := db.Membership()
	if err != nil || len(m.Members) != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	w := want.Members[0]
	if got := m.Members[0]; !reflect.DeepEqual(got, Member{w.ID, w.PeerURLs, false, w.Name, w.ClientURLs}) {
		t.Errorf("%+v, want %+v", got, w)
	}
	key, value := BackendMember(m.Members[0])
	b, err := db.Bucket("members")
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := b.Get(key); err != nil || !bytes.Equal(stored, value) {
		t.Errorf("etcd wrote %s, we %s (%v)", stored, value, err)
	}
}

// compareFixtureKeys compares the keys alive with what the server listed.
func compareFixtureKeys(t *testing.T, db *DB, dir string) {
	t.Helper()
	var answer struct {
		KVs []struct {
			Key            []byte
			Value          []byte
			CreateRevision int64 `json:"create_revision"`
			ModRevision    int64 `json:"mod_revision"`
			Version        int64
			Lease          int64
		}
	}
	readJSON(t, dir+"/expected-v3.json", &answer)
	alive := make(map[string]KeyValue)
	err := db.Keys(Revision{}, func(r *KeyRecord) error {
		kv, err := r.KeyValue()
		kv.Key, kv.Value = slices.Clone(kv.Key), slices.Clone(kv.Value)
		alive[string(kv.Key)] = kv
		if r.Tombstone {
			delete(alive, string(kv.Key))
		}
		return err
	})
	if err != nil || len(alive) != len(answer.KVs) {
		t.Fatalf("%d keys, want %d (%v)", len(alive), len(answer.KVs), err)
	}
	for _, w := range answer.KVs {
		want := KeyValue{w.Key, w.CreateRevision, w.ModRevision, w.Version, w.Value, w.Lease}
		if got := alive[string(w.Key)]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", w.Key, got, want)
		}
	}
}

func TestFixtureMeta(t *testing.T) {
	m, err := openDB(t, readFile(t, "testdata/etcd-3.5.33/snapshot.db")).Meta()
	if err != nil || m.ConsistentIndex == 0 || m.Term != 2 || m.FinishedCompact != 20 || m.ScheduledCompact != 20 || m.StorageVersion != "" {
		t.Errorf("%+v, %v", m, err)
	}
	if m.ConfState == nil || len(m.ConfState.Voters) != 1 || m.ConfState.Voters[0] != 17179298901032646278 {
		t.Errorf("%+v", m.ConfState)
	}
	m, err = openDB(t, readFile(t, "testdata/etcd-3.4.23/snapshot.db")).Meta()
	if err != nil || m.ConsistentIndex == 0 || m.Term != 0 || m.ConfState != nil || m.FinishedCompact != 20 {
		t.Errorf("%+v, %v", m, err)
	}
	c, err := openDB(t, readFile(t, "testdata/etcd-3.5.33/snapshot.db")).Cluster()
	if err != nil || c.Version != "3.5.0" || c.Downgrade.Enabled {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestShares: a table too small for all keys gives the same figures, in more
// passes.
func TestShares(t *testing.T) {
	s := newKeyspace(t, 9)
	txn := s.kv.Write(traceutil.TODO())
	for i := range 5000 {
		txn.Put(fmt.Appendf(nil, "key%d", i), []byte("v"), 0)
	}
	txn.End()
	s.fill(500)
	b, err := openDB(t, s.bytes()).Bucket("key")
	if err != nil {
		t.Fatal(err)
	}
	whole := newLiveSet(1 << 60)
	small := newLiveSet(1 << 60)
	small.slots = 1 << 10
	for _, l := range []*liveSet{whole, small} {
		if err := l.scan(b); err != nil {
			t.Fatal(err)
		}
		if err := l.finish(b); err != nil {
			t.Fatal(err)
		}
	}
	if whole.shares != 1 || small.shares < 4 {
		t.Errorf("%d and %d shares", whole.shares, small.shares)
	}
	if whole.count != small.count || !slices.Equal(whole.alive, small.alive) {
		t.Errorf("%d keys alive, want %d", small.count, whole.count)
	}
}

func TestRevisions(t *testing.T) {
	for _, rev := range []Revision{{1, 0}, {1 << 40, 7}} {
		key := AppendRevision(nil, rev)
		got, tombstone, err := ParseRevision(key)
		if err != nil || tombstone || got != rev || mvcc.BytesToRev(key) != (mvcc.Revision{Main: rev.Main, Sub: rev.Sub}) {
			t.Errorf("%s: %s %v %v", rev, got, tombstone, err)
		}
		if _, tombstone, err := ParseRevision(append(key, 't')); err != nil || !tombstone {
			t.Errorf("%s: no deletion (%v)", rev, err)
		}
	}
	for _, bad := range []string{"", "12345678_1234567", "12345678-12345678", "12345678_12345678x", "12345678_12345678tt"} {
		if _, _, err := ParseRevision([]byte(bad)); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestNotABackend(t *testing.T) {
	page := func(b string) string { return b + strings.Repeat("\x00", 8192) }
	tests := []struct{ name, content, want string }{
		{"empty", "", "too few"},
		{"short", "bolt", "too few"},
		{"zeros", page(""), "no etcd v3 backend"},
		{"text", page(strings.Repeat("hello ", 1000)), "no etcd v3 backend"},
		{"big endian", page(strings.Repeat("\x00", 16) + "\xed\x0c\xda\xed"), "big-endian"},
		{"format 3", page(strings.Repeat("\x00", 16) + "\xed\xda\x0c\xed\x03"), "format 3"},
		{"checksum", page(strings.Repeat("\x00", 16) + "\xed\xda\x0c\xed\x02"), "checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := OpenDB(strings.NewReader(tt.content), int64(len(tt.content)), DBOptions{Name: "x"})
			if !isCorrupt(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestOneMetaPageIsEnough: as in bbolt, the other one is used.
func TestOneMetaPageIsEnough(t *testing.T) {
	file := readFile(t, "testdata/etcd-3.5.33/snapshot.db")
	want, err := openDB(t, file).HashKV(0)
	if err != nil {
		t.Fatal(err)
	}
	older := 0 // damage to the older meta page costs nothing
	if openDB(t, file).txid%2 == 0 {
		older = 4096
	}
	b := slices.Clone(file)
	b[older+20] ^= 1
	got, err := openDB(t, b).HashKV(0)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	report, err := openDB(t, b).Check()
	if err != nil || report.Total != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	b[older^4096+20] ^= 1
	if _, err := OpenDB(bytes.NewReader(b), int64(len(b)), DBOptions{}); !isCorrupt(err) {
		t.Errorf("got %v", err)
	}
}

func TestTrailer(t *testing.T) {
	file := slices.Clone(readFile(t, "testdata/etcd-3.5.33/snapshot.db"))
	file[9000] ^= 1
	verify := func(b []byte) error { return VerifyTrailer(bytes.NewReader(b), int64(len(b)), DBOptions{Name: "x"}) }
	if err := verify(file); !errors.Is(err, ErrChecksum) {
		t.Errorf("got %v", err)
	}
	if err := verify(file[:len(file)-TrailerSize]); !isCorrupt(err) {
		t.Errorf("got %v", err)
	}
}

// everything reads a backend in all ways; none may panic.
func everything(db *DB) (problems int64, err error) {
	_, e1 := db.Status()
	_, e2 := db.HashKV(0)
	_, e3 := db.Meta()
	_, e4 := db.Membership()
	_, e5 := db.Auth()
	_, e6 := db.Alarms()
	e7 := db.Leases(func(Lease) error { return nil })
	e8 := db.Keys(Revision{5, 0}, func(r *KeyRecord) error { _, err := r.KeyValue(); return err })
	report, e9 := db.Check()
	return report.Total, errors.Join(e1, e2, e3, e4, e5, e6, e7, e8, e9)
}

// TestFlippedBytes damages one byte after the other of the pages in use. What
// the check does not see is the content of values, and bytes that nothing uses.
func TestFlippedBytes(t *testing.T) {
	file := slices.Clone(readFile(t, "testdata/etcd-3.5.33/snapshot.db"))
	clean, err := openDB(t, file).Status()
	if err != nil {
		t.Fatal(err)
	}
	step := 31
	if testing.Short() {
		step = 101
	}
	for at := 0; at < len(file)-TrailerSize; at += step {
		file[at] ^= 0xff
		db, err := OpenDB(bytes.NewReader(file), int64(len(file)), DBOptions{Name: "x"})
		if err == nil {
			problems, err := everything(db)
			if err != nil && problems == 0 {
				t.Fatalf("byte %d: %v, but the check passes", at, err)
			}
			if st, err := db.Status(); err == nil && problems == 0 && st.Hash != clean.Hash && inStructure(db, at) {
				t.Fatalf("byte %d of a page's structure: not seen", at)
			}
		}
		file[at] ^= 0xff
	}
}

// inStructure tells whether a byte belongs to the header of a page in a tree.
func inStructure(db *DB, at int) bool {
	id := uint64(int64(at) / db.pageSize)
	c := checker{db: db, reader: pageReader{db: db}, seen: make(bitmap, db.pages/64+1)}
	c.tree(db.root, c.bucket)
	return c.seen.has(id) && int64(at)%db.pageSize < pageHeader
}

// TestTruncatedBackends: a file cut anywhere is refused when it is opened.
func TestTruncatedBackends(t *testing.T) {
	file := readFile(t, "testdata/etcd-3.5.33/snapshot.db")
	whole := int(openDB(t, file).Size())
	for n := 0; n < whole; n += 61 {
		if _, err := OpenDB(bytes.NewReader(file[:n]), int64(n), DBOptions{}); !isCorrupt(err) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// TestDamagedPages breaks pages one way each and expects it by name.
func TestDamagedPages(t *testing.T) {
	s := newKeyspace(t, 3)
	s.fill(3000)
	file := s.bytes()
	db := openDB(t, file)
	b, err := db.Bucket("key")
	if err != nil {
		t.Fatal(err)
	}
	lowest, child := lowestBranch(t, b)
	branch := int(lowest) * int(db.pageSize)
	leaf := int(child) * int(db.pageSize)
	tests := []struct {
		name  string
		at    int
		write string
		want  string
	}{
		{"zeroed page", leaf, strings.Repeat("\x00", 4096), "header names page 0"},
		{"foreign page", leaf, "\x07", "header names page"},
		{"page type", leaf + 8, "\x09", "type 0x9"},
		{"too many entries", leaf + 10, "\xff\xff", "outside of the page"},
		{"overflow past the end", leaf + 12, "\xff\xff\xff\x7f", "pages follow it"},
		{"entry outside", leaf + 16 + 4, "\xff\xff\xff\xff", "entry 0 lies outside"},
		{"branch without entries", branch + 10, "\x00\x00", "branch without entries"},
		{"child outside", branch + 16 + 8, "\xff\xff\xff\xff", "is none of the"},
		{"cycle", branch + 16 + 8, string(binaryID(lowest)), "is used twice"},
		{"page in two places", branch + 16 + 8, string(binaryID(child)), "is used twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			damaged := slices.Clone(file)
			copy(damaged[tt.at:], tt.write)
			report, err := openDB(t, damaged).Check()
			if err != nil || report.Total == 0 {
				t.Fatalf("%+v, %v", report, err)
			}
			if !strings.Contains(errors.Join(report.Problems...).Error(), tt.want) {
				t.Errorf("problems %v, want %q", report.Problems, tt.want)
			}
			if _, err := everything(openDB(t, damaged)); err == nil && tt.name != "page in two places" {
				t.Error("nothing but the check sees it")
			}
		})
	}
}

// lowestBranch finds a branch whose children are leaves, and the second of them.
func lowestBranch(t *testing.T, b *Bucket) (id, child uint64) {
	t.Helper()
	r := pageReader{db: b.db}
	for id = b.root; ; id = child {
		p, err := r.read(id)
		if err != nil || p.flags != flagBranch || p.count < 2 {
			t.Fatalf("page %d: type %d, %d entries (%v)", id, p.flags, p.count, err)
		}
		_, child, _ = p.branch(1)
		if p, err := r.read(child); err != nil || p.flags == flagLeaf {
			return id, child
		}
	}
}

func binaryID(id uint64) []byte {
	return binary.LittleEndian.AppendUint64(nil, id)
}

// TestBackendReadErrors: a failing disk is no damage.
func TestBackendReadErrors(t *testing.T) {
	file := readFile(t, "testdata/etcd-3.5.33/snapshot.db")
	broken := errors.New("disk on fire")
	for limit := int64(0); limit < int64(len(file))-TrailerSize; limit += 1000 {
		db, err := OpenDB(failingReaderAt{file, limit, broken}, int64(len(file)), DBOptions{Name: "x"})
		if err == nil {
			_, err = everything(db)
		}
		if err != nil && !errors.Is(err, broken) {
			t.Fatalf("failing at %d: %v", limit, err)
		}
	}
}

func FuzzOpenDB(f *testing.F) {
	path := filepath.Join(f.TempDir(), "db")
	bdb, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 1024})
	if err != nil {
		f.Fatal(err)
	}
	err = bdb.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"key", "meta", "members", "lease"} {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			for i := range 30 {
				if err := b.Put(AppendRevision(nil, Revision{int64(i), 0}), []byte("\x0a\x01k")); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	bdb.Close()
	f.Add(readFile(f, path))
	f.Fuzz(func(t *testing.T, b []byte) {
		for at := range 2 { // let damage behind the meta pages be reached
			fixMeta(b, at*1024)
		}
		db, err := OpenDB(bytes.NewReader(b), int64(len(b)), DBOptions{})
		if err != nil {
			return
		}
		problems, err := everything(db)
		if err != nil && problems == 0 && isCorrupt(errors.Unwrap(err)) {
			t.Errorf("%v, but the check passes", err)
		}
	})
}

// fixMeta recomputes the checksum of a meta page.
func fixMeta(b []byte, at int) {
	if len(b) < at+pageHeader+metaSize {
		return
	}
	m := b[at+pageHeader:]
	h := fnv.New64a()
	h.Write(m[:metaSize-8])
	binary.LittleEndian.PutUint64(m[metaSize-8:], h.Sum64())
}

func FuzzKeyValue(f *testing.F) {
	f.Add([]byte("\x0a\x01k\x10\x02\x18\x03\x20\x01\x2a\x01v\x30\x07"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kv, err := ParseKeyValue(b)
		if err != nil {
			return
		}
		if key, err := keyOf(b); err != nil || (!bytes.Equal(key, kv.Key) && bytes.Count(b, []byte{0x0a}) < 2) {
			t.Errorf("key %q (%v), want %q", key, err, kv.Key)
		}
	})
}

package snapcodec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

func rewrite(t testing.TB, s *Snap, e Edit) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := RewriteSnap(&b, s, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// recoverStore lets etcd read a snapshot that we wrote: the file through its
// snapshotter, the tree through its store.
func recoverStore(t testing.TB, file []byte) (v2store.Store, *raftpb.Snapshot) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, SnapName(1, 1))
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	rs, err := snap.Read(zap.NewNop(), name)
	if err != nil {
		t.Fatal(err)
	}
	st := v2store.New("/0", "/1")
	if err := st.Recovery(rs.Data); err != nil {
		t.Fatal(err)
	}
	return st, rs
}

// sealStore makes a .snap file of a store's JSON through etcd's own code.
func sealStore(t testing.TB, data []byte, h Header) []byte {
	t.Helper()
	dir := t.TempDir()
	auto := false
	rs := &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: &raftpb.ConfState{Voters: h.ConfState.Voters, AutoLeave: &auto}, Index: &h.Index, Term: &h.Term,
	}}
	if err := snap.New(zap.NewNop(), dir).SaveSnap(rs); err != nil {
		t.Fatal(err)
	}
	return readFile(t, filepath.Join(dir, SnapName(h.Term, h.Index)))
}

func TestUnchangedCopyIsByteExact(t *testing.T) {
	for _, name := range fixtureSnaps(t) {
		b := readFile(t, name)
		s := openBytes(t, b)
		if !bytes.Equal(rewrite(t, s, Edit{}), b) {
			t.Errorf("%s: copy differs", name)
		}
		m, err := s.Membership()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(rewrite(t, s, Edit{Version: &m.ClusterVersion}), b) {
			t.Errorf("%s: copy with its own version differs", name)
		}
	}
}

// TestEdits compares an edited copy with the source: all other nodes are the
// same, the rest of the file is byte for byte.
func TestEdits(t *testing.T) {
	version, none := "3.0.0", ""
	members := &Membership{
		Members: []Member{
			{ID: 0xbeef, PeerURLs: []string{"http://10.0.0.1:2380", "https://[::1]:2380"}, Name: "new <1>", ClientURLs: []string{"http://10.0.0.1:2379"}},
			{ID: 0xa, PeerURLs: []string{"http://10.0.0.2:2380"}, IsLearner: true},
		},
		Removed: []uint64{0xdead, 0x1},
	}
	voters := &ConfState{Voters: []uint64{0xbeef}, Learners: []uint64{0xa}}
	tests := []struct {
		name string
		edit Edit
	}{
		{"drop version", Edit{Version: &none}},
		{"set version", Edit{Version: &version}},
		{"membership", Edit{Membership: members}},
		{"no members at all", Edit{Membership: &Membership{}, Version: &none}},
		{"conf state", Edit{ConfState: voters}},
		{"everything", Edit{Version: &version, Membership: members, ConfState: voters}},
	}
	for _, name := range fixtureSnaps(t) {
		for _, tt := range tests {
			t.Run(filepath.Base(name)+"/"+tt.name, func(t *testing.T) {
				src := openBytes(t, readFile(t, name))
				checkEdit(t, src, tt.edit, rewrite(t, src, tt.edit))
			})
		}
	}
}

func checkEdit(t *testing.T, src *Snap, e Edit, file []byte) {
	t.Helper()
	got := openBytes(t, file)
	c, err := got.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	was, err := src.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	want, wantHeader := was.Membership, src.Header
	if e.Membership != nil {
		want.Members, want.Removed = bySorted(*e.Membership)
	}
	if e.Version != nil {
		want.ClusterVersion = *e.Version
	}
	if e.ConfState != nil {
		wantHeader.ConfState = *e.ConfState
	}
	if !sameMembership(c.Membership, want) {
		t.Errorf("membership %+v, want %+v", c.Membership, want)
	}
	if !reflect.DeepEqual(got.Header, wantHeader) {
		t.Errorf("header %+v, want %+v", got.Header, wantHeader)
	}
	if !reflect.DeepEqual(c.StoreInfo, was.StoreInfo) || c.UserData != was.UserData {
		t.Errorf("contents %+v, want %+v", c, was)
	}
	compareTail(t, src, got)
	checkWithEtcd(t, file, want)
}

// bySorted sorts as a reader gives them.
func bySorted(m Membership) ([]Member, []uint64) {
	m.Members = append([]Member(nil), m.Members...)
	m.Removed = append([]uint64(nil), m.Removed...)
	sortMembership(&m)
	return m.Members, m.Removed
}

func sameMembership(a, b Membership) bool {
	return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b)
}

// compareTail compares everything after /0.
func compareTail(t *testing.T, a, b *Snap) {
	t.Helper()
	tail := func(s *Snap) []byte {
		all, err := io.ReadAll(s.Store())
		if err != nil {
			t.Fatal(err)
		}
		return all[bytes.Index(all, []byte(`"1":{"Path":"/1"`)):]
	}
	if !bytes.Equal(tail(a), tail(b)) {
		t.Error("bytes after /0 differ")
	}
}

// checkWithEtcd reads the membership back through etcd's own package.
func checkWithEtcd(t *testing.T, file []byte, want Membership) {
	t.Helper()
	st, _ := recoverStore(t, file)
	if len(want.Members) > 0 {
		compareMembers(t, st, want)
	}
	ev, err := st.Get(versionKey, false, false)
	switch {
	case want.ClusterVersion == "" && err == nil:
		t.Errorf("etcd still sees %v", ev)
	case want.ClusterVersion != "" && (err != nil || *ev.Node.Value != want.ClusterVersion):
		t.Errorf("etcd sees no version %s: %v", want.ClusterVersion, err)
	}
	if _, err := st.Set("/1/after", false, "x", v2store.TTLOptionSet{}); err != nil {
		t.Error(err)
	}
}

func compareMembers(t *testing.T, st v2store.Store, want Membership) {
	t.Helper()
	members, removed := membership.MembersFromStore(zap.NewNop(), st)
	if len(members) != len(want.Members) || len(removed) != len(want.Removed) {
		t.Errorf("etcd sees %d members and %d removed, want %+v", len(members), len(removed), want)
	}
	for _, w := range want.Members {
		for id, m := range members {
			if uint64(id) != w.ID {
				continue
			}
			if got := (Member{uint64(id), m.PeerURLs, m.IsLearner, m.Name, m.ClientURLs}); !reflect.DeepEqual(got, w) {
				t.Errorf("etcd sees %+v, want %+v", got, w)
			}
		}
	}
	for _, id := range want.Removed {
		found := false
		for r := range removed {
			found = found || uint64(r) == id
		}
		if !found {
			t.Errorf("etcd does not see %x as removed", id)
		}
	}
}

// TestRandomStoresSurviveRewriting: etcd fills a store, we drop the version and
// replace the members, etcd recovers it and sees the same user keys.
func TestRandomStoresSurviveRewriting(t *testing.T) {
	none := ""
	edit := Edit{Version: &none, Membership: &Membership{Members: []Member{{ID: 7, PeerURLs: []string{"http://a:1"}}}}}
	for seed := range int64(10) {
		st := randomStore(t, seed, 100)
		if seed%2 == 0 {
			st.Set("/0/version", false, "2.3.0", v2store.TTLOptionSet{})
			st.Set("/0/members/1f/raftAttributes", false, `{"peerURLs":["http://b:1"]}`, v2store.TTLOptionSet{})
			st.Set("/0/removed_members/9", false, "", v2store.TTLOptionSet{})
		}
		data := saveStore(t, st)
		src := openBytes(t, sealStore(t, data, Header{Term: 1, Index: 1, ConfState: ConfState{Voters: []uint64{1}}}))
		got, _ := recoverStore(t, rewrite(t, src, edit))
		again := v2store.New("/0", "/1") // bytes that are no UTF-8 change when etcd saves them
		if err := again.Recovery(data); err != nil {
			t.Fatal(err)
		}
		if want, have := userTree(t, saveStore(t, again)), userTree(t, saveStore(t, got)); !bytes.Equal(want, have) {
			t.Errorf("seed %d: keys differ", seed)
		}
	}
}

// userTree is the JSON of /1 and /2.
func userTree(t *testing.T, data []byte) []byte {
	t.Helper()
	var s struct {
		Root struct{ Children map[string]json.RawMessage }
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return append(s.Root.Children["1"], s.Root.Children["2"]...)
}

// TestRewriteRefusesDamage: a damaged source gives an error and no output.
func TestRewriteRefusesDamage(t *testing.T) {
	b := bytes.Clone(readFile(t, fixtureSnaps(t)[0]))
	b[len(b)/2] ^= 4
	var out bytes.Buffer
	none := ""
	for _, e := range []Edit{{}, {Version: &none}} {
		err := RewriteSnap(&out, openBytes(t, b), e)
		if !errors.Is(err, ErrChecksum) || out.Len() > 0 {
			t.Errorf("%v, %d bytes written", err, out.Len())
		}
	}
}

type fullWriter struct{ left int }

var errFull = errors.New("no space")

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestRewriteReportsWriteErrors(t *testing.T) {
	s := openBytes(t, readFile(t, fixtureSnaps(t)[0]))
	for left := range 3 {
		if err := RewriteSnap(&fullWriter{left * 1000}, s, Edit{}); !errors.Is(err, errFull) {
			t.Errorf("%d: %v", left, err)
		}
	}
	if err := WriteMembershipSnap(&fullWriter{}, Header{}, Membership{}); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

// TestMembershipSnapEqualsEtcds compares our own snapshot with the one that
// etcd 3.7 synthesises from the same members, but for its watch history.
func TestMembershipSnapEqualsEtcds(t *testing.T) {
	m := Membership{
		Members: []Member{
			{ID: 0xa1, PeerURLs: []string{"http://a:2380"}, Name: "a", ClientURLs: []string{"http://a:2379"}},
			{ID: 0xb2, PeerURLs: []string{"http://b:2380"}, IsLearner: true},
		},
		Removed: []uint64{0xdead}, ClusterVersion: "3.6.0",
	}
	h := Header{Term: 3, Index: 9, ConfState: ConfState{Voters: []uint64{0xa1}, Learners: []uint64{0xb2}}}
	var b bytes.Buffer
	if err := WriteMembershipSnap(&b, h, m); err != nil {
		t.Fatal(err)
	}
	checkWithEtcd(t, b.Bytes(), m)
	got := openBytes(t, b.Bytes())
	if !reflect.DeepEqual(got.Header, h) {
		t.Errorf("%+v", got.Header)
	}
	c, err := got.Inspect()
	if err != nil || !sameMembership(c.Membership, m) || c.UserData.Any() || c.Nodes != 12 {
		t.Errorf("%+v, %v", c, err)
	}
	st := v2store.New("/0", "/1")
	for _, k := range []struct{ key, value string }{
		{"/0/members/a1/attributes", `{"name":"a","clientURLs":["http://a:2379"]}`},
		{"/0/members/a1/raftAttributes", `{"peerURLs":["http://a:2380"]}`},
		{"/0/members/b2/raftAttributes", `{"peerURLs":["http://b:2380"],"isLearner":true}`},
		{"/0/removed_members/dead", ""}, {"/0/version", "3.6.0"},
	} {
		if _, err := st.Create(k.key, false, k.value, false, v2store.TTLOptionSet{ExpireTime: v2store.Permanent}); err != nil {
			t.Fatal(err)
		}
	}
	want, err := io.ReadAll(bytes.NewReader(saveStore(t, st)))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(got.Store())
	if g, w := beforeHub(text), beforeHub(want); g != w {
		t.Errorf("\n%s\nwant\n%s", g, w)
	}
}

func beforeHub(store []byte) string {
	tree, _, _ := bytes.Cut(store, []byte(`,"WatcherHub"`))
	return string(tree)
}

func TestFixtureMembership(t *testing.T) {
	type list struct {
		Members []struct {
			ID                   string `json:"id"`
			Name                 string
			PeerURLs, ClientURLs []string
		}
	}
	var one list
	readJSON(t, "testdata/etcd-2.3.7/members.json", &one)
	m, err := openBytes(t, readFile(t, "testdata/etcd-2.3.7/0000000000000002-000000000000025a.snap")).Membership()
	if err != nil {
		t.Fatal(err)
	}
	w := one.Members[0]
	id, _ := ParseID(w.ID)
	want := Membership{Members: []Member{{ID: id, Name: w.Name, PeerURLs: w.PeerURLs, ClientURLs: w.ClientURLs}}, ClusterVersion: "2.3.0"}
	if !sameMembership(m, want) {
		t.Errorf("%+v, want %+v", m, want)
	}
	m, err = openBytes(t, readFile(t, "testdata/etcd-2.3.7-cluster/0000000000000002-0000000000000192.snap")).Membership()
	if err != nil || len(m.Members) != 3 || m.Members[1].Name != "m1" {
		t.Errorf("%+v, %v", m, err)
	}
	if got, ok := m.Member(0xd433dfc4c701a375); !ok || got.Name != "m1" {
		t.Errorf("%+v, %v", got, ok)
	}
	if FormatID(0x81ffdcfb5f4cde8) != "81ffdcfb5f4cde8" {
		t.Error("leading zeros")
	}
}

// TestUserData asks etcd's own check of each tree.
func TestUserData(t *testing.T) {
	far := v2store.TTLOptionSet{ExpireTime: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)}
	key := func(k string) func(v2store.Store) {
		return func(s v2store.Store) { s.Set(k, false, "v", far) }
	}
	dir := func(k string) func(v2store.Store) {
		return func(s v2store.Store) { s.Set(k, true, "", v2store.TTLOptionSet{}) }
	}
	tests := []struct {
		name  string
		fill  []func(v2store.Store)
		first string
	}{
		{"nothing", nil, ""},
		{"members only", []func(v2store.Store){key("/0/members/1/raftAttributes"), key("/0/version")}, ""},
		{"a key", []func(v2store.Store){key("/1/a")}, "/1/a"},
		{"an empty dir", []func(v2store.Store){dir("/1/a")}, "/1/a"},
		{"a hidden key", []func(v2store.Store){key("/1/_a")}, "/1/_a"},
		{"below a hidden dir", []func(v2store.Store){key("/1/_a/b/c")}, "/1/_a"},
		{"hidden below a dir", []func(v2store.Store){key("/1/a/_b")}, "/1/a"},
		{"auth never used", []func(v2store.Store){dir("/2"), dir("/2/users"), dir("/2/roles"), key("/2/enabled")}, ""},
		{"a user", []func(v2store.Store){key("/2/users/root")}, "/2/users/root"},
		{"a hidden user", []func(v2store.Store){key("/2/users/_root")}, "/2/users/_root"},
		{"another tree", []func(v2store.Store){key("/3/a")}, "/3/a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := v2store.New("/0", "/1")
			for _, f := range tt.fill {
				f(st)
			}
			var u UserData
			if _, err := WalkStore(bytes.NewReader(saveStore(t, st)), func(n *Node) error { u.Add(n); return nil }); err != nil {
				t.Fatal(err)
			}
			clean, err := membership.IsMetaStoreOnly(st)
			if err != nil {
				t.Fatal(err)
			}
			if u.Visible == clean {
				t.Errorf("visible %v, etcd says clean %v", u.Visible, clean)
			}
			if u.First != tt.first || u.Any() != (tt.first != "") {
				t.Errorf("%+v, want first %q", u, tt.first)
			}
		})
	}
}

func TestMembershipErrors(t *testing.T) {
	tests := []struct{ name, key, value string }{
		{"no raft attributes", "/0/members/1/attributes", `{}`},
		{"bad id", "/0/members/xyz/raftAttributes", `{}`},
		{"bad json", "/0/members/1/raftAttributes", `{`},
		{"bad removed id", "/0/removed_members/q", ``},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := v2store.New("/0", "/1")
			st.Set(tt.key, false, tt.value, v2store.TTLOptionSet{})
			s := openBytes(t, sealStore(t, saveStore(t, st), Header{Term: 1, Index: 1}))
			if _, err := s.Membership(); !isCorrupt(err) {
				t.Errorf("got %v", err)
			}
			if _, err := s.Inspect(); !isCorrupt(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

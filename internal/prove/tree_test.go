package prove

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// storeRequest is what etcd does with a request on its own store.
func storeRequest(s v2store.Store, r walcodec.Request) {
	opts := v2store.TTLOptionSet{Refresh: r.Refresh != nil && *r.Refresh}
	if r.Expiration != 0 {
		opts.ExpireTime = time.Unix(0, r.Expiration)
	}
	compare := r.PrevIndex > 0 || r.PrevValue != ""
	switch {
	case r.Method == "POST":
		_, _ = s.Create(r.Path, r.Dir, r.Val, true, opts)
	case r.Method == "SYNC":
		s.DeleteExpiredKeys(time.Unix(0, r.Time))
	case r.Method == "DELETE" && compare:
		_, _ = s.CompareAndDelete(r.Path, r.PrevValue, r.PrevIndex)
	case r.Method == "DELETE":
		_, _ = s.Delete(r.Path, r.Dir, r.Recursive)
	case r.PrevExist != nil && !*r.PrevExist:
		_, _ = s.Create(r.Path, r.Dir, r.Val, false, opts)
	case compare:
		_, _ = s.CompareAndSwap(r.Path, r.PrevValue, r.PrevIndex, r.Val, opts)
	case r.PrevExist != nil:
		_, _ = s.Update(r.Path, r.Val, opts)
	default:
		_, _ = s.Set(r.Path, r.Dir, r.Val, opts)
	}
}

// storeLines writes the whole store down, hidden nodes included.
func storeLines(t *testing.T, s v2store.Store) []string {
	t.Helper()
	data, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{fmt.Sprint(s.Index())}
	_, err = snapcodec.WalkStore(bytes.NewReader(data), func(n *snapcodec.Node) error {
		lines = append(lines, nodeLine(string(n.Path), n.Dir, string(n.Value), n.CreatedIndex, n.ModifiedIndex, n.ExpireTime))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Delete(lines, 1, 2) // the root
}

func nodeLine(p string, dir bool, value string, created, modified uint64, expires time.Time) string {
	return fmt.Sprintf("%s %t %q %d %d %s", p, dir, value, created, modified, expires.UTC())
}

func treeLines(t *tree) []string {
	lines := []string{fmt.Sprint(t.index)}
	var walk func(p string, n *node)
	walk = func(p string, n *node) {
		for _, name := range slices.Sorted(maps.Keys(n.children)) {
			c := n.children[name]
			lines = append(lines, nodeLine(p+"/"+name, c.isDir(), c.value, c.created, c.modified, c.expires))
			walk(p+"/"+name, c)
		}
	}
	walk("", t.root)
	return lines
}

// randomRequest is good as often as bad; the clock of expiry is virtual.
func randomRequest(r *rand.Rand, now int64, index uint64) walcodec.Request {
	names := []string{"a", "b", "_h", "c/d", "c/_i/e", "", "../x"}
	req := walcodec.Request{
		Method: []string{"PUT", "PUT", "PUT", "PUT", "POST", "DELETE", "SYNC"}[r.IntN(7)],
		Path:   []string{"/1", "/1", "/1", "/2", "/"}[r.IntN(5)] + "/" + names[r.IntN(len(names))],
		Val:    []string{"", "x", "y"}[r.IntN(3)],
		Dir:    r.IntN(5) == 0, Recursive: r.IntN(3) == 0, Time: now,
	}
	if r.IntN(3) == 0 {
		req.Path += "/" + names[r.IntN(len(names))]
	}
	if r.IntN(3) == 0 {
		req.Expiration = now + r.Int64N(20)
	}
	switch r.IntN(6) {
	case 0:
		req.PrevExist = new(r.IntN(2) == 0)
	case 1:
		req.PrevIndex = index - min(index, r.Uint64N(8))
	case 2:
		req.PrevValue = "x"
	case 3:
		req.Refresh = new(true)
	}
	return req
}

// TestTreeDoesAsEtcdsStore compares the tree with etcd's own store after every
// one of many random requests.
func TestTreeDoesAsEtcdsStore(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		store, x := v2store.New(clusterDir, keysDir), &expectation{tree: newTree(), members: newRoster(snapcodec.Membership{})}
		now, changes := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano(), uint64(0)
		for i := range 3000 {
			now += r.Int64N(3)
			req := randomRequest(r, now, x.tree.index)
			if n := x.tree.get(clean(req.Path)); n != nil && n.isDir() && req.PrevExist != nil && *req.PrevExist {
				continue // etcd 3.7 refuses to update a directory, which 3.5 and before do
			}
			storeRequest(store, req)
			if err := x.request(req); err != nil {
				t.Fatal(err)
			}
			if i%50 > 0 && store.Index() == x.tree.index {
				continue
			}
			if want, got := storeLines(t, store), treeLines(x.tree); !slices.Equal(got, want) {
				t.Fatalf("seed %d, after %d requests, the last %+v:\ngot  %q\nwant %q", seed, i, req, got, want)
			}
			changes = x.tree.index
		}
		if changes < 500 {
			t.Errorf("seed %d: only %d changes were made", seed, changes)
		}
	}
}

// Up to etcd 3.5, and so in its logs, an update gives a directory another time
// to live and leaves its modified index.
func TestDirectoryUpdateMovesTheIndex(t *testing.T) {
	x := newTree()
	x.create("/1/d", change{dir: true}, false)
	before := *x.get("/1/d")
	at := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	if !x.update("/1/d", change{expires: at}) || x.index != 2 {
		t.Errorf("index %d after the update", x.index)
	}
	if n := x.get("/1/d"); n.modified != before.modified || !n.expires.Equal(at) {
		t.Errorf("directory is %+v", n)
	}
	if x.update("/1/d", change{value: "x"}) {
		t.Error("a directory took a value")
	}
}

func TestRosterCountsWhatEtcdApplies(t *testing.T) {
	add := func(id uint64, context string) walcodec.ConfChange {
		return walcodec.ConfChange{Type: walcodec.ConfChangeAddNode, NodeID: id, Context: []byte(context)}
	}
	update := func(id uint64, url string) walcodec.ConfChange {
		return walcodec.ConfChange{Type: walcodec.ConfChangeUpdateNode, NodeID: id, Context: []byte(`{"peerURLs":["` + url + `"]}`)}
	}
	r := newRoster(snapcodec.Membership{Members: []snapcodec.Member{{ID: 1, PeerURLs: []string{"http://a"}}}, Removed: []uint64{9}})
	for i, step := range []struct {
		change walcodec.ConfChange
		moves  uint64
	}{
		{add(1, `{"peerURLs":["http://b"]}`), 0},                  // is there
		{add(2, `{"peerURLs":["http://a"]}`), 0},                  // URL in use
		{add(9, `{"peerURLs":["http://b"]}`), 0},                  // was removed
		{add(2, `{"peerURLs":["http://b"]}`), 1},                  //
		{add(3, `{"peerURLs":["http://c"],"isLearner":true}`), 1}, //
		{add(4, `{"peerURLs":["http://d"],"isLearner":true}`), 0}, // a second learner
		{add(2, `{"isPromote":true}`), 0},                         // is no learner
		{add(3, `{"isPromote":true}`), 1},                         //
		{add(3, `{"isPromote":true}`), 0},                         // no longer a learner
		{update(2, "http://c"), 0},                                // URL in use
		{update(5, "http://e"), 0},                                // not there
		{update(2, "http://e"), 1},                                //
		{walcodec.ConfChange{Type: walcodec.ConfChangeRemoveNode, NodeID: 2}, 2},
		{walcodec.ConfChange{Type: walcodec.ConfChangeRemoveNode, NodeID: 2}, 0},
		{add(6, `{"peerURLs":["http://e"]}`), 1}, // free again
	} {
		if moves, err := r.apply(step.change); err != nil || moves != step.moves {
			t.Errorf("step %d: index moves by %d (%v), want %d", i, moves, err, step.moves)
		}
	}
	if _, err := r.apply(add(7, "{")); err == nil {
		t.Error("a context that is no JSON was taken")
	}
}

package snapcodec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

// flatNode is a Node that can be kept and compared.
type flatNode struct {
	Path, Value       string
	Created, Modified uint64
	Expire            time.Time
	Dir               bool
}

func collect(t testing.TB, r io.Reader) ([]flatNode, StoreInfo) {
	t.Helper()
	var all []flatNode
	info, err := WalkStore(r, func(n *Node) error {
		all = append(all, flatten(n))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, info
}

func flatten(n *Node) flatNode {
	return flatNode{string(n.Path), string(n.Value), n.CreatedIndex, n.ModifiedIndex, n.ExpireTime, n.Dir}
}

// jsonNode is how etcd declares a node; encoding/json fills it from anything.
type jsonNode struct {
	Path          string
	CreatedIndex  uint64
	ModifiedIndex uint64
	ExpireTime    time.Time
	Value         string
	Children      map[string]*jsonNode
}

type jsonStore struct {
	Root       *jsonNode
	WatcherHub struct {
		EventHistory struct {
			Queue                 struct{ Size, Capacity uint64 }
			StartIndex, LastIndex uint64
		}
	}
	CurrentIndex   uint64
	Stats          map[string]uint64
	CurrentVersion uint64
}

// flatten lists the tree as WalkStore visits it.
func (n *jsonNode) flatten(all []flatNode) []flatNode {
	all = append(all, flatNode{n.Path, n.Value, n.CreatedIndex, n.ModifiedIndex, n.ExpireTime, n.Children != nil})
	var names []string
	for name := range n.Children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all = n.Children[name].flatten(all)
	}
	return all
}

func (s *jsonStore) info() StoreInfo {
	h := s.WatcherHub.EventHistory
	return StoreInfo{
		CurrentIndex: s.CurrentIndex, CurrentVersion: s.CurrentVersion, Stats: s.Stats,
		History: HistoryInfo{h.StartIndex, h.LastIndex, h.Queue.Size, h.Queue.Capacity},
	}
}

// compareWithJSON reads a store both ways.
func compareWithJSON(t *testing.T, data []byte) {
	t.Helper()
	var want jsonStore
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	got, info := collect(t, bytes.NewReader(data))
	wantNodes := want.Root.flatten(nil)
	if len(got) != len(wantNodes) {
		t.Fatalf("%d nodes, want %d", len(got), len(wantNodes))
	}
	for i := range got {
		if got[i] != wantNodes[i] {
			t.Fatalf("node %d:\n%+v\nwant\n%+v", i, got[i], wantNodes[i])
		}
	}
	if !reflect.DeepEqual(info, want.info()) {
		t.Errorf("info %+v, want %+v", info, want.info())
	}
}

func TestFixtureTreesAgreeWithJSON(t *testing.T) {
	for _, name := range fixtureSnaps(t) {
		t.Run(name, func(t *testing.T) {
			data, err := io.ReadAll(openBytes(t, readFile(t, name)).Store())
			if err != nil {
				t.Fatal(err)
			}
			compareWithJSON(t, data)
		})
	}
}

// apiNode is a node of the answer to GET /v2/keys.
type apiNode struct {
	Key                         string
	Value                       string
	Dir                         bool
	Expiration                  time.Time
	Nodes                       []apiNode
	ModifiedIndex, CreatedIndex uint64
}

// TestFixtureTreesAgreeWithServer: what the server said later about a node that
// was last changed before the snapshot, the snapshot says too.
func TestFixtureTreesAgreeWithServer(t *testing.T) {
	tests := []struct{ snap, expected string }{
		{"testdata/etcd-2.3.7/0000000000000002-000000000000025a.snap", "testdata/etcd-2.3.7/expected.json"},
		{"testdata/etcd-2.3.7-cluster/0000000000000002-00000000000000c9.snap", "testdata/etcd-2.3.7-cluster/expected.json"},
		{"testdata/etcd-2.3.7-cluster/0000000000000002-0000000000000192.snap", "testdata/etcd-2.3.7-cluster/expected.json"},
		{"testdata/etcd-3.4.23/0000000000000002-000000000000012d.snap", "testdata/etcd-3.4.23/expected-v2.json"},
	}
	for _, tt := range tests {
		t.Run(tt.snap, func(t *testing.T) {
			var answer struct{ Node apiNode }
			readJSON(t, tt.expected, &answer)
			nodes, info := collect(t, openBytes(t, readFile(t, tt.snap)).Store())
			byPath := make(map[string]flatNode)
			for _, n := range nodes {
				byPath[n.Path] = n
			}
			if n := compareAPI(t, answer.Node, byPath, info.CurrentIndex); n == 0 {
				t.Error("no node could be compared")
			}
		})
	}
}

// compareAPI compares a node and those below it and counts them.
func compareAPI(t *testing.T, n apiNode, byPath map[string]flatNode, index uint64) (compared int) {
	if n.Key != "" && n.ModifiedIndex <= index {
		want := flatNode{"/1" + n.Key, n.Value, n.CreatedIndex, n.ModifiedIndex, n.Expiration, n.Dir}
		if got := byPath["/1"+n.Key]; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		compared++
	}
	for _, c := range n.Nodes {
		compared += compareAPI(t, c, byPath, index)
	}
	return compared
}

// oddTexts are values and names that JSON has to escape, or that are longer
// than any buffer.
func oddTexts() []string {
	return []string{
		"", "plain", `"quoted"`, `back\slash`, `\`, `\\"`, "tab\tnew\nline\r", "<a href='x'>&amp;</a>",
		"日本語", "\u2028\u2029", "\x00\x01\x1f\x7f", "bad \xff\xfe utf-8", "\xed\xa0\x80", "😀 \U0010ffff",
		strings.Repeat("long ", 100_000), strings.Repeat(`"`, 300_000), `{"json":"inside"}`,
	}
}

// randomStore fills a v2 store through etcd's own code.
func randomStore(t testing.TB, seed int64, steps int) v2store.Store {
	t.Helper()
	rnd := rand.New(rand.NewSource(seed))
	s := v2store.New("/0", "/1")
	odd := oddTexts()
	for i := range steps {
		key := fmt.Sprintf("/1/%c/_%d/k%d", 'a'+rnd.Intn(5), rnd.Intn(3), rnd.Intn(50))
		if rnd.Intn(3) == 0 {
			key = "/1/" + string(rune(rnd.Intn(0x3000)+'0')) + odd[1+rnd.Intn(13)]
		}
		value := odd[rnd.Intn(len(odd))]
		if len(value) > 1000 && rnd.Intn(30) != 0 {
			value = value[:rnd.Intn(1000)]
		}
		ttl := v2store.TTLOptionSet{}
		if rnd.Intn(4) == 0 {
			ttl.ExpireTime = time.Date(2040, 1, 2, 3, 4, rnd.Intn(60), rnd.Intn(2)*rnd.Intn(1e9), time.UTC)
		}
		// Failures (not a directory, exists already) are part of the counters.
		switch rnd.Intn(6) {
		case 0:
			s.Delete(key, true, true)
		case 1:
			s.Create(key, rnd.Intn(2) == 0, value, true, ttl)
		case 2:
			s.Create(fmt.Sprintf("/2/users/u%d", i), false, value, false, ttl)
		case 3:
			s.Create(fmt.Sprintf("/1/empty%d", i), true, "", false, ttl)
		default:
			s.Set(key, false, value, ttl)
		}
	}
	return s
}

func saveStore(t testing.TB, s v2store.Store) []byte {
	t.Helper()
	data, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRandomTreesAgreeWithEtcd(t *testing.T) {
	for seed := range int64(12) {
		compareWithJSON(t, saveStore(t, randomStore(t, seed, 200)))
	}
}

// TestReadSizes: where the input is cut into reads makes no difference.
func TestReadSizes(t *testing.T) {
	data := saveStore(t, randomStore(t, 99, 150))
	want, wantInfo := collect(t, bytes.NewReader(data))
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		got, info := collect(t, wrap(bytes.NewReader(data)))
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(info, wantInfo) {
			t.Errorf("%s: differs", name)
		}
	}
	for _, buffer := range []int{64, 100, 511, 4096} {
		var got []flatNode
		_, err := newWalker(bytes.NewReader(data), buffer, func(n *Node) error {
			got = append(got, flatten(n))
			return nil
		}).walk()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("buffer of %d: differs (%v)", buffer, err)
		}
	}
}

func TestStoreErrors(t *testing.T) {
	node := func(rest string) string { return `{"Root":{"Path":"/",` + rest + `}}` }
	tests := []struct{ name, json, want string }{
		{"empty", "", "ends early"},
		{"no root", `{"CurrentIndex":1}`, "no Root"},
		{"cut", `{"Root":{"Path":"/","Chi`, "ends early"},
		{"two stores", `{"Root":{"Path":"/","Children":{}}}{}`, "after the end"},
		{"no children", node(`"Value":""`), "no Children"},
		{"no path", `{"Root":{"Children":{}}}`, "no Path"},
		{"path does not fit", node(`"Children":{"a":{"Path":"/b","Children":null}}`), "says that its path"},
		{"field after children", node(`"Children":{},"Value":""`), "after Children"},
		{"bad time", node(`"ExpireTime":"yesterday","Children":{}`), "expire time"},
		{"negative index", node(`"CreatedIndex":-1,"Children":{}`), "number should be"},
		{"index above 64 bits", node(`"CreatedIndex":18446744073709551616,"Children":{}`), "64 bits"},
		{"bad escape", node(`"Value":"\q","Children":{}`), "escape"},
		{"bad unicode escape", node(`"Value":"\u12g4","Children":{}`), "escape"},
		{"missing comma", node(`"Value":"" "Children":{}`), "where ','"},
		{"too deep", node(`"ACL":` + strings.Repeat("[", 20000)), "nested deeper"},
		{"too long", node(`"Value":"` + strings.Repeat("x", maxString+1) + `"`), "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := WalkStore(strings.NewReader(tt.json), func(*Node) error { return nil })
			if !isCorrupt(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestOldNode reads what etcd 2.0 wrote: ACL between ExpireTime and Value.
func TestOldNode(t *testing.T) {
	compareWithJSON(t, []byte(`{"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z",`+
		`"ACL":"","Value":"","Children":{"1":{"Path":"/1","CreatedIndex":1,"ModifiedIndex":2,`+
		`"ExpireTime":"2015-01-01T00:00:00.5Z","ACL":"","Value":"v","Children":null}}},"WatcherHub":{"EventHistory":{`+
		`"Queue":{"Events":[null],"Size":0,"Front":0,"Back":0,"Capacity":1},"StartIndex":3,"LastIndex":4}},`+
		`"CurrentIndex":5,"Stats":{"getsSuccess":6},"CurrentVersion":2}`))
}

// bigStore generates the JSON of a store with many keys without holding it.
func bigStore(keys int) io.Reader {
	r, w := io.Pipe()
	go func() {
		io.WriteString(w, `{"Root":{"Path":"/","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{`+
			`"1":{"Path":"/1","CreatedIndex":0,"ModifiedIndex":0,"ExpireTime":"0001-01-01T00:00:00Z","Value":"","Children":{`)
		value := strings.Repeat("x", 800) + `\n` + strings.Repeat("y", 200)
		var b []byte
		for i := range keys {
			b = b[:0]
			if i > 0 {
				b = append(b, ',')
			}
			name := fmt.Sprintf("key%08d", i)
			b = fmt.Appendf(b, `"%s":{"Path":"/1/%s","CreatedIndex":%d,"ModifiedIndex":%d,"ExpireTime":"%s","Value":"%s","Children":null}`,
				name, name, i, i, permanent, value)
			w.Write(b)
		}
		io.WriteString(w, `}}}},"CurrentIndex":1,"CurrentVersion":2}`)
		w.Close()
	}()
	return r
}

// TestFlatMemory walks a store far larger than what the walker may hold.
func TestFlatMemory(t *testing.T) {
	keys := 60_000 // about 70 MB
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := 0
	var peak uint64
	_, err := WalkStore(bigStore(keys), func(*Node) error {
		if n++; n%10_000 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&after)
			peak = max(peak, after.HeapAlloc)
		}
		return nil
	})
	if err != nil || n != keys+2 {
		t.Fatalf("%d nodes, %v", n, err)
	}
	if grown := int64(peak) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
}

func TestWalkAllocations(t *testing.T) {
	data, err := io.ReadAll(bigStore(10_000))
	if err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(5, func() {
		if _, err := WalkStore(bytes.NewReader(data), func(*Node) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 100 {
		t.Errorf("%v allocations for 10,000 nodes", allocs)
	}
}

func BenchmarkWalkStore(b *testing.B) {
	data, err := io.ReadAll(bigStore(50_000))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := WalkStore(bytes.NewReader(data), func(*Node) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzWalkStore: no panic; and a tree that encoding/json would write the same
// way, we read as it does.
func FuzzWalkStore(f *testing.F) {
	f.Add(saveStore(f, randomStore(f, 1, 3)))
	f.Add([]byte(`{"Root":{"Path":"/","Value":"\ud83d\ude00\ud800x","Children":{"a":{"Path":"/a","Children":null}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := WalkStore(bytes.NewReader(data), func(*Node) error { return nil })
		var raw struct{ Root json.RawMessage }
		var root jsonNode
		if json.Unmarshal(data, &raw) != nil || json.Unmarshal(raw.Root, &root) != nil {
			return
		}
		canonical, _ := json.Marshal(map[string]any{"Root": root})
		if !bytes.Equal(canonical, data) || !pathsFit(&root, "/") {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		compareWithJSON(t, data)
	})
}

// pathsFit tells whether each node's path is that of its place.
func pathsFit(n *jsonNode, path string) bool {
	if n.Path != path {
		return false
	}
	for name, c := range n.Children {
		if c == nil || !pathsFit(c, strings.TrimSuffix(path, "/")+"/"+name) {
			return false
		}
	}
	return true
}

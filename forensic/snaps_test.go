package forensic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func listSnaps(t *testing.T, path, walDir string) *SnapList {
	t.Helper()
	l, err := ListSnaps(context.Background(), path, walDir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestListSnaps(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7-cluster")
	snaps := filepath.Join(dir, "member", "snap")
	older, newer := filepath.Join(snaps, snapcodec.SnapName(2, 0xc9)), filepath.Join(snaps, snapcodec.SnapName(2, 0x192))
	whole := readFile(t, older)
	writeFile(t, filepath.Join(snaps, snapcodec.SnapName(2, 0x300)), whole) // misnamed
	writeFile(t, older+".broken", whole)
	writeFile(t, filepath.Join(snaps, "tmp12345"), []byte("half"))
	writeFile(t, filepath.Join(snaps, "notes"), nil)
	writeFile(t, filepath.Join(snaps, "db"), make([]byte, 8192))
	overwriteByte(t, older, int64(len(whole)/2), 1)
	want := []struct {
		name    string
		kind    string
		state   SnapState
		problem string
		inLog   string
	}{
		{snapcodec.SnapName(2, 0x300), "snap", SnapDamaged, "its name says term 2 index 768, its content term 2 index 201", "the log has no record of it"},
		{snapcodec.SnapName(2, 0x192), "snap", SnapOK, "", ""},
		{snapcodec.SnapName(2, 0xc9), "snap", SnapDamaged, "checksum mismatch", ""},
		{"tmp12345", "temp", SnapLeftover, "", "-"},
		{"notes", "other", SnapNotChecked, "not named as one of etcd's files", "-"},
		{"db", "db", SnapDamaged, "no etcd v3 backend", "-"},
		{snapcodec.SnapName(2, 0xc9) + ".broken", "broken", SnapSetAside, "but it reads well", "-"},
	}
	l := listSnaps(t, dir, "")
	if len(l.Files) != len(want) || l.Damaged() != 3 {
		t.Fatalf("%d files, %d damaged: %+v", len(l.Files), l.Damaged(), l.Files)
	}
	for i, w := range want {
		f := l.Files[i]
		if f.Name != w.name || f.Kind != w.kind || f.State != w.state || !strings.Contains(f.Problem, w.problem) || (w.problem == "") != (f.Problem == "") {
			t.Errorf("file %d: %+v, want %+v", i, f, w)
		}
		if (f.InLog == nil) != (w.inLog == "-") || f.InLog != nil && (*f.InLog != (w.inLog == "") || f.InLogProblem != w.inLog) {
			t.Errorf("%s in the log: %v %q, want %q", f.Name, f.InLog, f.InLogProblem, w.inLog)
		}
	}
	tree := l.Files[1].Tree
	if tree.V2Index != 383 || len(tree.Members) != 3 || tree.Members[1].Name != "m1" || len(tree.Voters) != 3 || tree.ClusterVersion != "2.3.0" {
		t.Errorf("%+v", tree)
	}
	if others := l.KeepSnapshots(); len(others) != 4 || len(l.Files) != 3 {
		t.Errorf("others %v, %d left", others, len(l.Files))
	}
	opened, err := OpenTree(context.Background(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if opened.Path != newer || opened.Header().Index != 0x192 {
		t.Errorf("picked %s", opened.Path)
	}
}

func TestListSnapsWithoutLog(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	l := listSnaps(t, filepath.Join(dir, "member", "snap"), "")
	if len(l.Files) != 2 || l.Files[0].InLog != nil {
		t.Errorf("%+v", l.Files)
	}
	l = listSnaps(t, filepath.Join(dir, "member", "snap", l.Files[0].Name), filepath.Join(dir, "member", "wal"))
	if len(l.Files) != 1 || l.Files[0].InLog == nil || !*l.Files[0].InLog {
		t.Errorf("%+v", l.Files)
	}
	moved := t.TempDir()
	if err := os.Rename(filepath.Join(dir, "member", "wal"), filepath.Join(moved, "wal")); err != nil {
		t.Fatal(err)
	}
	l = listSnaps(t, dir, filepath.Join(moved, "wal"))
	if len(l.Files) != 2 || l.Files[1].InLog == nil || !*l.Files[1].InLog {
		t.Errorf("%+v", l.Files)
	}
}

func TestBackendInList(t *testing.T) {
	l := listSnaps(t, fixture.DataDir(t, "3.5.33"), "")
	f := l.Files[0]
	if len(l.Files) != 1 || f.State != SnapNotChecked || f.Index != 109 || f.Term != 2 || f.Backend == nil || f.Backend.PageSize != 4096 {
		t.Errorf("%+v", l.Files)
	}
	_, err := OpenTree(context.Background(), fixture.DataDir(t, "3.5.33"), "")
	if !errors.Is(err, ErrNoSnaps) {
		t.Errorf("got %v", err)
	}
}

func openFixtureTree(t *testing.T, name string) (*Tree, string) {
	t.Helper()
	dir := fixture.DataDir(t, name)
	tree, err := OpenTree(context.Background(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree, dir
}

func dumpTree(t *testing.T, tree *Tree, o TreeOptions) string {
	t.Helper()
	o.Now = testNow
	var out bytes.Buffer
	if err := DumpTree(&out, tree, o); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestDumpTree(t *testing.T) {
	tree, _ := openFixtureTree(t, "2.3.7")
	lines := dumpTree(t, tree, TreeOptions{Width: 40})
	golden(t, "tree.lines.golden", lines)
	asJSON := dumpTree(t, tree, TreeOptions{Format: FormatJSON})
	golden(t, "tree.json.golden", asJSON)
	if n := len(checkJSONLines(t, asJSON)); n != strings.Count(lines, "\n") {
		t.Errorf("%d objects, %d lines", n, strings.Count(lines, "\n"))
	}
	for _, tt := range []struct {
		key  string
		want int
	}{{"/a/b/car", 1}, {"/1/a/b/car", 1}, {"/a/*", 2}, {"/0/version", 1}, {"/nope", 0}} {
		if n := strings.Count(dumpTree(t, tree, TreeOptions{Key: tt.key}), "\n"); n != tt.want {
			t.Errorf("--key %s prints %d lines, want %d", tt.key, n, tt.want)
		}
	}
}

// TestDumpTreeIsWhatTheMemberHeld walks what the live member answered: every
// key that the log after the snapshot leaves alone is in the dump with its
// indexes.
func TestDumpTreeIsWhatTheMemberHeld(t *testing.T) {
	tree, dir := openFixtureTree(t, "2.3.7-cluster")
	held := map[string]map[string]any{}
	for _, n := range checkJSONLines(t, dumpTree(t, tree, TreeOptions{Format: FormatJSON})) {
		if key, ok := n["key"].(string); ok {
			held[key] = n
		}
	}
	var expected struct{ Node answer }
	if err := json.Unmarshal(readFile(t, filepath.Join(filepath.Dir(dir), "expected.json")), &expected); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, a := range expected.Node.flat() {
		n, ok := held[a.Key]
		if !ok || n["modified_index"] != float64(a.ModifiedIndex) {
			continue // written after the snapshot
		}
		compared++
		if a.Dir != (n["dir"] == true) || !a.Dir && a.Value != n["value"] || float64(a.CreatedIndex) != n["created_index"] {
			t.Errorf("%s: %v, the member had %+v", a.Key, n, a)
		}
	}
	if compared == 0 {
		t.Error("nothing to compare")
	}
}

// answer is a node of a v2 API answer.
type answer struct {
	Key, Value                  string
	Dir                         bool
	CreatedIndex, ModifiedIndex uint64
	Nodes                       []answer
}

func (a answer) flat() []answer {
	all := []answer{a}
	for _, n := range a.Nodes {
		all = append(all, n.flat()...)
	}
	return all
}

func TestDumpMembers(t *testing.T) {
	tree, _ := openFixtureTree(t, "2.3.7-cluster")
	wantLines(t, dumpTree(t, tree, TreeOptions{Members: true}),
		"member id=347510d36f1313a6 name=m3 peerURLs=http://127.0.0.1:32005 clientURLs=http://127.0.0.1:32004",
		"member id=d433dfc4c701a375 name=m1 peerURLs=http://127.0.0.1:32001 clientURLs=http://127.0.0.1:32000",
		"member id=e3f0fc768a3d4087 name=m2 peerURLs=http://127.0.0.1:32003 clientURLs=http://127.0.0.1:32002")
	first, _, _ := strings.Cut(dumpTree(t, tree, TreeOptions{Members: true, Format: FormatJSON}), "\n")
	if want := `{"id":"347510d36f1313a6","name":"m3","peer_urls":["http://127.0.0.1:32005"],"client_urls":["http://127.0.0.1:32004"]}`; first != want {
		t.Errorf("got %s, want %s", first, want)
	}
}

func TestDumpDamagedTree(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	path := filepath.Join(dir, "member", "snap", snapcodec.SnapName(2, 0x25a))
	at := bytes.Index(readFile(t, path), []byte("GT-S"))
	overwriteByte(t, path, int64(at), 1)
	tree, err := OpenTree(context.Background(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var out bytes.Buffer
	err = DumpTree(&out, tree, TreeOptions{})
	if !errors.Is(err, snapcodec.ErrChecksum) || !strings.Contains(out.String(), `"FT-S"`) {
		t.Errorf("%v", err)
	}
	tree, err = OpenTree(context.Background(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if tree.Header().Index != 0x12d {
		t.Errorf("picked the damaged one, %s", tree.Path)
	}
}

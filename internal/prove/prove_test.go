package prove

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func mustVerify(t *testing.T, path string, o Options) *Report {
	t.Helper()
	r, err := Verify(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// find returns the check of that name.
func (r *Report) find(t *testing.T, name string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q in %+v", name, r.Checks)
	return Check{}
}

func treeState(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info fs.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var sum [32]byte
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = sha256.Sum256(data)
		}
		fmt.Fprintln(&b, path, info.Mode(), info.ModTime(), sum)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFixturesPassUntouched(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	for _, name := range fixture.Names() {
		dir := fixture.DataDir(t, name)
		before := treeState(t, dir)
		for _, level := range []Level{Digest, Structure, Boot, ""} {
			r := mustVerify(t, dir, Options{Level: level})
			if r.Result != Passed {
				t.Errorf("%s at %q: %+v", name, level, r)
			}
			if last := r.Checks[len(r.Checks)-1].Level; level != "" && last != level || r.Level == "" {
				t.Errorf("%s at %q: ended with %s and says %s", name, level, last, r.Level)
			}
		}
		if after := treeState(t, dir); after != before {
			t.Errorf("%s: before:\n%safter:\n%s", name, before, after)
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestLogAlone(t *testing.T) {
	wal := filepath.Join(fixture.DataDir(t, "2.3.7"), "member", "wal")
	r := mustVerify(t, wal, Options{})
	if r.Result != Passed || r.Level != Structure || !strings.Contains(r.Note, "log alone") {
		t.Errorf("%+v", r)
	}
	if r := mustVerify(t, wal, Options{Level: Boot}); r.Result != Passed || r.find(t, "keys").Result != Passed {
		t.Errorf("asked to boot: %+v", r)
	}
}

func TestNothingToVerify(t *testing.T) {
	empty := t.TempDir()
	dir := fixture.DataDir(t, "2.3.7")
	for _, path := range []string{empty, filepath.Join(empty, "none"), filepath.Join(dir, "member", "snap"), segment(t, dir)} {
		if r, err := Verify(t.Context(), path, Options{}); err == nil {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

func segment(t *testing.T, dir string) string {
	t.Helper()
	wal := filepath.Join(dir, "member", "wal")
	segments, err := walcodec.Segments(os.DirFS(wal))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments %v: %v", segments, err)
	}
	return filepath.Join(wal, segments[len(segments)-1].Name)
}

func newestSnap(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
	if err != nil || len(names) == 0 {
		t.Fatalf("snapshots %v: %v", names, err)
	}
	return slices.Max(names)
}

// edit changes a file's bytes.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 0x10; return b }
}

func cut(at int) func([]byte) []byte { return func(b []byte) []byte { return b[:at] } }

func TestDamageIsFound(t *testing.T) {
	const snap, log = "0000000000000002-000000000000025a.snap", "0000000000000000-0000000000000000.wal"
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		check string
		says  []string // all in one problem of that check
	}{
		"flipped byte in the .snap": {
			func(t *testing.T, dir string) { edit(t, newestSnap(t, dir), flip(70_000)) },
			"snapshot checksums", []string{snap, "offset", "checksum"},
		},
		"flipped byte in an older .snap": {
			func(t *testing.T, dir string) {
				edit(t, filepath.Join(dir, "member", "snap", "0000000000000002-000000000000012d.snap"), flip(500))
			},
			"snapshot checksums", []string{"012d.snap", "offset"},
		},
		"truncated .snap": {
			func(t *testing.T, dir string) { edit(t, newestSnap(t, dir), cut(50_000)) },
			"snapshot checksums", []string{snap, "offset"},
		},
		"empty .snap": {
			func(t *testing.T, dir string) { edit(t, newestSnap(t, dir), cut(0)) },
			"snapshot checksums", []string{snap, "offset 0"},
		},
		"renamed .snap": {
			func(t *testing.T, dir string) {
				if err := os.Rename(newestSnap(t, dir), filepath.Join(dir, "member", "snap", "0000000000000002-000000000000025b.snap")); err != nil {
					t.Fatal(err)
				}
			},
			"snapshot trees", []string{"025b.snap", "should be named " + snap},
		},
		"flipped byte in the log": {
			func(t *testing.T, dir string) { edit(t, segment(t, dir), flip(60_000)) },
			"log checksums", []string{log, "offset"},
		},
		"log cut inside a record": {
			func(t *testing.T, dir string) { edit(t, segment(t, dir), cut(124_293-7)) },
			"log checksums", []string{log, "offset", "torn"},
		},
		"log cut before its commit": {
			func(t *testing.T, dir string) { edit(t, segment(t, dir), cutAtRecord(t, segment(t, dir), 1200)) },
			"agreement", []string{snap, "the log ends at index 599"},
		},
		"log gone": {
			func(t *testing.T, dir string) {
				if err := os.Remove(segment(t, dir)); err != nil {
					t.Fatal(err)
				}
			},
			"agreement", []string{"no segments"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fixture.DataDir(t, "2.3.7")
			c.spoil(t, dir)
			before := treeState(t, dir)
			r := mustVerify(t, dir, Options{})
			found := r.find(t, c.check)
			if r.Result != Damaged || found.Result != Damaged || !slices.ContainsFunc(found.Problems, func(p string) bool { return hasAll(p, c.says) }) {
				t.Errorf("%s: %+v, want a problem with %q", r.Result, found, c.says)
			}
			if boot := r.find(t, bootName); boot.Result != Unproven {
				t.Errorf("what is damaged was booted: %+v", boot)
			}
			if after := treeState(t, dir); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

func hasAll(text string, parts []string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// cutAtRecord keeps the first n records.
func cutAtRecord(t *testing.T, path string, n int) func([]byte) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := walcodec.NewReader(f, walcodec.ReaderOptions{})
	for range n {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	return cut(int(r.Offset()))
}

func TestDamagedBackendIsFound(t *testing.T) {
	dir := fixture.DataDir(t, "3.4.23-mixed")
	edit(t, filepath.Join(dir, "member", "snap", "db"), func(b []byte) []byte {
		copy(b[2*4096:], make([]byte, 8*4096)) // all pages but the first two
		return b
	})
	r := mustVerify(t, dir, Options{})
	if c := r.find(t, "v3 backend"); c.Result != Damaged || !hasAll(strings.Join(c.Problems, "\n"), []string{"db: offset"}) {
		t.Errorf("%+v", c)
	}
}

// A crash may cut the last write short: that is damage unless it is allowed.
func TestTornTail(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	edit(t, segment(t, dir), cut(124_293-7))
	if r := mustVerify(t, dir, Options{}); r.Result != Damaged {
		t.Errorf("not allowed: %+v", r)
	}
	r := mustVerify(t, dir, Options{AllowTorn: true})
	if r.Result != Passed || !strings.Contains(r.find(t, "log checksums").Detail, "torn tail") {
		t.Errorf("allowed: %+v", r)
	}
}

// A crash leaves a piece of a snapshot that the log never learned of.
func TestLeftoverSnapshotIsToldOnly(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	piece := filepath.Join(dir, "member", "snap", "0000000000000002-0000000000000280.snap")
	if err := os.WriteFile(piece, []byte("\x08\x01\x12\xff\x7fhalf"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := mustVerify(t, dir, Options{})
	if r.Result != Passed || !strings.Contains(r.find(t, "snapshot checksums").Detail, "but for "+filepath.Base(piece)) {
		t.Errorf("%+v", r)
	}
}

func TestCancelled(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := Verify(ctx, fixture.DataDir(t, "2.3.7"), Options{}); err == nil {
		t.Errorf("%+v", r)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// fill makes a data dir with our server and hands its API to write.
func fill(t *testing.T, o server.Options, write func(do func(method, target string, form url.Values) int)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := server.Create(dir); err != nil {
		t.Fatal(err)
	}
	s, err := server.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	write(func(method, target string, form url.Values) int {
		req := httptest.NewRequest(method, target, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		return w.Code
	})
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBootAgreesWithReplay fills dirs at random, with and without snapshots;
// keys run out, names are hidden, values are no UTF-8.
func TestBootAgreesWithReplay(t *testing.T) {
	for _, snapshots := range []uint64{100_000, 40} {
		r := rand.New(rand.NewPCG(snapshots, 7))
		options := server.Options{SnapshotCount: snapshots, SyncInterval: 20 * time.Millisecond}
		dir := fill(t, options, func(do func(string, string, url.Values) int) {
			names := []string{"a", "b", "_h", "c/d", "c/_i/e", "ü%20?", "_h/_j"}
			for range 1500 {
				target := &url.URL{Path: "/v2/keys/" + names[r.IntN(len(names))]}
				if r.IntN(2) == 0 {
					target.Path += "/" + names[r.IntN(len(names))]
				}
				form := url.Values{"value": {[]string{"x", "\xff\x00é", "", "<&>"}[r.IntN(4)]}}
				for key, value := range map[string]string{"ttl": "1", "dir": "true", "prevExist": "true", "prevValue": "x", "refresh": "true"} {
					if r.IntN(12) == 0 {
						form.Set(key, value)
					}
				}
				method := []string{"PUT", "PUT", "PUT", "POST", "DELETE"}[r.IntN(5)]
				if method == http.MethodDelete {
					target.RawQuery, form = "recursive=true", nil
				}
				do(method, target.String(), form)
			}
			time.Sleep(600 * time.Millisecond) // some keys run out, through the log
		})
		if rep := mustVerify(t, dir, Options{}); rep.Result != Passed || strings.HasPrefix(rep.find(t, "keys").Detail, "0 keys") {
			t.Errorf("snapshots every %d: %+v", snapshots, rep)
		}
	}
}

// With v2 auth on and guests shut out, only root sees all.
func TestAuthIsNoHindrance(t *testing.T) {
	dir := fill(t, server.Options{}, func(do func(string, string, url.Values) int) {
		do("PUT", "/v2/keys/secret", url.Values{"value": {"x"}})
	})
	s, err := server.Open(t.Context(), dir, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ path, body string }{
		{"/v2/auth/users/root", `{"user":"root","password":"pw"}`},
		{"/v2/auth/roles/some", `{"role":"some","permissions":{"kv":{"read":["/x"],"write":[]}}}`},
		{"/v2/auth/users/anna", `{"user":"anna","password":"pw","roles":["some"]}`},
		{"/v2/auth/enable", ``},
		{"/v2/auth/roles/guest", `{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}`},
	} {
		req := httptest.NewRequest("PUT", step.path, strings.NewReader(step.body))
		req.SetBasicAuth("root", "pw")
		w := httptest.NewRecorder()
		if s.Handler().ServeHTTP(w, req); w.Code/100 != 2 {
			t.Fatalf("%s: %d %s", step.path, w.Code, w.Body)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := mustVerify(t, dir, Options{})
	if r.Result != Passed || !strings.HasPrefix(r.find(t, "users and roles").Detail, "2 users") {
		t.Errorf("%+v", r)
	}
}

// TestBootFindsWhatDiffers boots a good copy and expects something else.
func TestBootFindsWhatDiffers(t *testing.T) {
	for name, c := range map[string]struct {
		expect func(*expectation)
		check  string
		says   string
	}{
		"a value":        {func(x *expectation) { x.tree.get("/1/a/b/car").value = "other" }, "keys", `want "/a/b/car" key`},
		"a key more":     {func(x *expectation) { x.tree.set("/1/zz", change{}) }, "keys", `want "/zz" key`},
		"a key less":     {func(x *expectation) { x.tree.remove("/1/a/b/car", false, false) }, "keys", "/a/b/car"},
		"a hidden key":   {func(x *expectation) { x.tree.get("/1/_hidden").children["x"] = &node{value: "1", name: "x"} }, "keys", `"/_hidden/x" key`},
		"the v2 index":   {func(x *expectation) { x.tree.index++ }, "indexes", "v2 index 722, want 723"},
		"the raft index": {func(x *expectation) { x.applied-- }, "indexes", "raft index 751, want 750"},
		"a user":         {func(x *expectation) { x.tree.set("/2/users/eve", change{}) }, "users and roles", `want ["eve"]`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fixture.DataDir(t, "2.3.7")
			r := &Report{Result: Passed}
			b := &booted{dir: filepath.Join(t.TempDir(), "data")}
			var err error
			if b.files, err = datadir.Find(dir, ""); err != nil {
				t.Fatal(err)
			}
			if err := b.replay(t.Context(), &finding{}); err != nil {
				t.Fatal(err)
			}
			if err := b.boot(t.Context(), &finding{}); err != nil {
				t.Fatal(err)
			}
			defer b.close()
			c.expect(b.want)
			r.check(Boot, "indexes", b.indexes)
			r.check(Boot, "keys", func(f *finding) error { return b.keys(t.Context(), f) })
			r.check(Boot, "users and roles", func(f *finding) error { return b.auth(t.Context(), f) })
			found := r.find(t, c.check)
			if found.Result == Passed || !strings.Contains(found.Detail+strings.Join(found.Problems, "\n"), c.says) {
				t.Errorf("%+v, want %q", found, c.says)
			}
		})
	}
}

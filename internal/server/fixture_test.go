package server_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

// open boots a dir and closes it when the test ends.
func open(t *testing.T, dir string, opts server.Options) *server.Server {
	t.Helper()
	s, err := server.Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

func closeServer(t *testing.T, s *server.Server) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// answer is what a server said.
type answer struct {
	code   int
	header http.Header
	body   string
}

func ask(h http.Handler, method, target, body string, header ...string) answer {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// withoutTTL drops what depends on when the question was asked.
func withoutTTL(t *testing.T, body string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	dropTTL(v)
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func dropTTL(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "ttl")
		for _, child := range v {
			dropTTL(child)
		}
	case []any:
		for _, child := range v {
			dropTTL(child)
		}
	}
}

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What each archive's etcd had answered, and where we must answer the same.
var fixtureAnswers = []struct{ fixture, file, target string }{
	{"2.3.7", "expected.json", "/v2/keys/?recursive=true&sorted=true"},
	{"2.3.7", "expected-hidden.json", "/v2/keys/_hidden?recursive=true&sorted=true"},
	{"2.3.7-cluster", "expected.json", "/v2/keys/?recursive=true&sorted=true"},
	{"2.3.7-cluster", "users.json", "/v2/auth/users"},
	{"2.3.7-cluster", "roles.json", "/v2/auth/roles"},
	{"3.4.23-mixed", "expected-v2.json", "/v2/keys/?recursive=true&sorted=true"},
}

func TestFixturesAnswerAsTheirEtcdDid(t *testing.T) {
	// the last entry of 2.3.7-cluster, a grant to alice, was acknowledged
	// before its member knew that it was committed
	modes := map[string]server.Options{
		"written":   {KeepUncommitted: true},
		"read only": {KeepUncommitted: true, ReadOnly: true},
		"cloned":    {KeepUncommitted: true, Clone: true},
	}
	for _, tt := range fixtureAnswers {
		for mode, opts := range modes {
			t.Run(tt.fixture+" "+tt.file+" "+mode, func(t *testing.T) {
				dir := fixture.DataDir(t, tt.fixture)
				s := open(t, dir, opts)
				got := ask(s.Handler(), "GET", tt.target, "")
				want := withoutTTL(t, readFile(t, filepath.Dir(dir), tt.file))
				if withoutTTL(t, got.body) != want {
					t.Errorf("got  %s\nwant %s", withoutTTL(t, got.body), want)
				}
			})
		}
	}
}

func TestFixturesKeepTheirClusterID(t *testing.T) {
	for _, name := range []string{"2.3.7", "2.3.7-cluster"} {
		dir := fixture.DataDir(t, name)
		s := open(t, dir, server.Options{ReadOnly: true})
		got := ask(s.Handler(), "GET", "/v2/keys/", "").header.Get("X-Etcd-Cluster-ID")
		want := strings.Fields(readFile(t, filepath.Dir(dir), "cluster-id.txt"))[1]
		if got != want {
			t.Errorf("%s: cluster id %s, want %s", name, got, want)
		}
	}
}

type memberList struct {
	Members []struct {
		ID, Name             string
		PeerURLs, ClientURLs []string
	}
}

func members(t *testing.T, body string) memberList {
	t.Helper()
	var list memberList
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return list
}

func TestMemberOfManyIsTakenOver(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7-cluster")
	before := members(t, readFile(t, filepath.Dir(dir), "members.json"))
	s := open(t, dir, server.Options{})
	after := members(t, ask(s.Handler(), "GET", "/v2/members", "").body)
	if len(before.Members) != 3 || len(after.Members) != 1 {
		t.Fatalf("members %v, then %v", before, after)
	}
	if after.Members[0].Name != "m1" {
		t.Errorf("left alone is %s, want m1", after.Members[0].Name)
	}
	if boot := s.Status().Boot; len(boot.Removed) != 2 || boot.Dropped != 1 {
		t.Errorf("removed %x and dropped %d entries, want two members and one", boot.Removed, boot.Dropped)
	}
	users := ask(s.Handler(), "GET", "/v2/auth/users/alice", "").body
	if users != `{"user":"alice"}`+"\n" {
		t.Errorf("the entry not known to be committed shows: %s", users)
	}
	if got := ask(s.Handler(), "PUT", "/v2/keys/new", "value=x"); got.code != http.StatusCreated {
		t.Errorf("write answered %d %s", got.code, got.body)
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	for _, name := range fixture.Names() {
		dir := fixture.DataDir(t, name)
		before := tree(t, dir)
		s := open(t, dir, server.Options{ReadOnly: true})
		got := ask(s.Handler(), "PUT", "/v2/keys/new", "value=x")
		if !strings.Contains(got.body, "read-only") {
			t.Errorf("%s: write answered %d %s", name, got.code, got.body)
		}
		closeServer(t, s)
		if after := tree(t, dir); after != before {
			t.Errorf("%s: before\n%safter\n%s", name, before, after)
		}
	}
}

// tree lists a dir's files with size, time and digest.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		io.WriteString(&b, p+" "+info.Mode().String()+" "+info.ModTime().String()+" "+digest(t, p, info)+"\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

func newEngine(t *testing.T) *Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A log that can't be written stops the server; nothing is acknowledged.
func TestServerStopsWhenItsLogFails(t *testing.T) {
	s := newEngine(t)
	e := s.engine.(*v2Engine)
	if err := e.node.wal.Close(); err != nil { // stands for a disk that went away
		t.Fatal(err)
	}
	r := httptest.NewRequest("PUT", "/v2/keys/a?value=x", nil)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "server stopped") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	<-e.failed()
	if err := e.err(); err == nil || !strings.Contains(err.Error(), "write the log") {
		t.Errorf("cause %v", err)
	}
}

func TestSnapshotsOfAnOddShapeAreRefused(t *testing.T) {
	good, err := v2store.New(clusterPrefix, keysPrefix).Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := recoverStore(v2store.New(clusterPrefix, keysPrefix), good); err != nil {
		t.Fatalf("a store's own snapshot: %v", err)
	}
	for name, change := range map[string]func(map[string]any){
		"no tree":      func(m map[string]any) { m["Root"] = nil },
		"missing node": func(m map[string]any) { root(m)["Children"] = map[string]any{"1": nil} },
		"no hub":       func(m map[string]any) { m["WatcherHub"] = nil },
		"no ring":      func(m map[string]any) { queue(m)["Events"] = []any{} },
		"short ring":   func(m map[string]any) { queue(m)["Events"] = []any{nil} },
		"beyond ring":  func(m map[string]any) { queue(m)["Front"], queue(m)["Back"] = 5000, 5000 },
		"no event":     func(m map[string]any) { queue(m)["Size"], queue(m)["Back"] = 1, 1 },
	} {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		bad, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := recoverStore(v2store.New(clusterPrefix, keysPrefix), bad); err == nil {
			t.Errorf("%s: taken for good", name)
		}
	}
}

func root(m map[string]any) map[string]any { return m["Root"].(map[string]any) }

func queue(m map[string]any) map[string]any {
	hub := m["WatcherHub"].(map[string]any)
	return hub["EventHistory"].(map[string]any)["Queue"].(map[string]any)
}

// FuzzApply applies what may be in a log: no entry may panic, and what was
// applied must make a snapshot that can be booted from.
func FuzzApply(f *testing.F) {
	yes := true
	for _, r := range []walcodec.Request{
		{Method: "PUT", Path: "/1/a", Val: "x"},
		{Method: "PUT", Path: "/1/d", Dir: true},
		{Method: "PUT", Path: "/1/d", PrevExist: &yes, Expiration: 1e18, Refresh: &yes},
		{Method: "PUT", Path: "/0/members/a/attributes", Val: "{}"},
		{Method: "PUT", Path: "/0/version", Val: "3.4.0"},
		{Method: "POST", Path: "/1/q", Val: "x"},
		{Method: "DELETE", Path: "/1", Recursive: true},
		{Method: "SYNC", Time: 2e18},
	} {
		f.Add(int32(0), walcodec.AppendRequest(nil, r), walcodec.AppendRequest(nil, r))
	}
	change := walcodec.AppendConfChange(nil, walcodec.ConfChange{NodeID: 1, Context: []byte(`{"id":1,"peerURLs":["http://a:1"]}`)})
	f.Add(int32(1), change, change)
	f.Fuzz(func(t *testing.T, kind int32, first, second []byte) {
		m := newMachine(1, 2)
		if err := m.cluster.recover(); err != nil {
			t.Fatal(err)
		}
		for i, data := range [][]byte{first, second} {
			if _, err := m.apply(walcodec.Entry{Type: walcodec.EntryType(kind), Term: 1, Index: uint64(i + 1), Data: data}); err != nil {
				return
			}
		}
		tree, err := m.store.Save()
		if err != nil {
			t.Fatal(err)
		}
		again := newMachine(1, 2)
		if err := recoverStore(again.store, tree); err != nil {
			t.Fatal(err)
		}
	})
}

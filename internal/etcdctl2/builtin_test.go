//go:build e2e

package etcdctl2_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

// startBuiltIn serves a new data dir with Lifeboat's own server.
func startBuiltIn(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "m")
	if err := server.Create(dir); err != nil {
		t.Fatal(err)
	}
	s, err := server.Open(t.Context(), dir, server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	url := "http://" + l.Addr().String()
	waitFor(t, "the server at "+url, func() error { return settled(url, "3.0.0") })
	return url
}

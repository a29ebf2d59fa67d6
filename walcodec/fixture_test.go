package walcodec

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

func walDir(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(fixture.DataDir(t, name), "member", "wal")
}

func TestVerifyFixtures(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			r, err := Verify(context.Background(), os.DirFS(walDir(t, name)), VerifyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Err(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", r)
		})
	}
}

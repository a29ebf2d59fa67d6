package walcodec

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// walDir unpacks a fixture and returns its WAL folder.
func walDir(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(fixture.DataDir(t, name), "member", "wal")
}

func TestVerifyFixtures(t *testing.T) {
	type facts struct {
		Counts      Counts
		First, Last uint64
		Term        uint64
		Commit      uint64
		Used, Zeros int64
		Padded      bool
		Snapshots   []uint64
	}
	tests := map[string]facts{
		"2.3.7":         {Counts{1, 751, 749, 1, 3}, 1, 751, 2, 751, 124293, 0, false, []uint64{0, 301, 602}},
		"2.3.7-cluster": {Counts{1, 578, 575, 1, 3}, 1, 578, 3, 577, 67850, 0, false, []uint64{0, 201, 402}},
		"3.4.23-mixed":  {Counts{1, 534, 534, 1, 2}, 1, 534, 2, 534, 64024, 63935976, true, []uint64{0, 301}},
		"3.5.33":        {Counts{1, 109, 108, 1, 1}, 1, 109, 2, 109, 12056, 63987944, true, []uint64{0}},
	}
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			r, err := Verify(context.Background(), os.DirFS(walDir(t, name)), VerifyOptions{})
			must(t, err)
			must(t, r.Err())
			got := facts{r.Counts, r.FirstIndex, r.LastIndex, r.LastTerm, r.HardState.Commit, r.Used, r.Zeros, r.Segments[0].Padded, nil}
			for _, s := range r.Snapshots {
				got.Snapshots = append(got.Snapshots, s.Index)
			}
			if !reflect.DeepEqual(got, tests[name]) {
				t.Errorf("found %+v\nwant %+v", got, tests[name])
			}
			if r.Segments[0].Padded == r.Segments[0].Plain {
				t.Errorf("padded %v, plain %v", r.Segments[0].Padded, r.Segments[0].Plain)
			}
		})
	}
}

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage/fs"
)

// listed is what `list -o json` says.
type listed struct {
	Backups []struct {
		Manifest repository.Manifest
		Proofs   []repository.Proof
	}
	Unfinished []struct{ ID string }
	Damaged    []string
	Unknown    []string
}

// listRepo lists a repository in which nothing may be damaged or unknown.
func listRepo(t testing.TB, repo string) listed {
	t.Helper()
	o := finish(t, lifeboatCommand("list", "--repo", repo, "-o", "json"))
	var l listed
	if err := json.Unmarshal([]byte(o.stdout), &l); err != nil {
		t.Fatalf("list: exit %d, %v\n%s", o.code, err, o.stderr)
	}
	if len(l.Damaged)+len(l.Unknown) > 0 {
		t.Fatalf("damaged %q, unknown %q", l.Damaged, l.Unknown)
	}
	return l
}

func (l listed) ids() []string {
	var ids []string
	for _, b := range l.Backups {
		ids = append(ids, b.Manifest.ID)
	}
	return ids
}

// filledEtcd is a running member with some MB in its backend that don't
// compress.
func filledEtcd(t testing.TB, r release, megabytes int) *etcd {
	t.Helper()
	e := start(t, r, newDataDir(t))
	noise := rand.NewChaCha8([32]byte{byte(megabytes)})
	value := make([]byte, 256<<10)
	for i := range megabytes * 4 {
		if _, err := io.ReadFull(noise, value); err != nil {
			t.Fatal(err)
		}
		if err := e.put(fmt.Sprintf("/bulk/%d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// killed runs lifeboat, kills it after the delay, and tells what it had said on
// stdout and whether it had ended well by then.
func killed(t testing.TB, delay time.Duration, args ...string) (stdout string, done bool) {
	t.Helper()
	cmd := lifeboatCommand(args...)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(delay)
	_ = cmd.Process.Kill() // it may have ended by itself
	err := cmd.Wait()
	return out.String(), err == nil
}

// However saves are killed, what was reported as saved is there and whole, what
// is listed is whole, and a repository goes on working.
func TestSavesSurviveSIGKILL(t *testing.T) {
	e := filledEtcd(t, etcd37, 8)
	repo := filepath.Join(t.TempDir(), "repo")
	lifeboat(t, "init", "--repo", repo)
	args := []string{"save", "--repo", repo, "--cluster", "c", "--endpoints", e.client, "-o", "json"}
	began := time.Now()
	lifeboat(t, args...)
	took := time.Since(began)

	var acknowledged []string
	runs := soak(t, 200)
	for range runs {
		stdout, done := killed(t, rand.N(took*5/4), args...)
		if !done {
			continue
		}
		var saved struct{ Manifest repository.Manifest }
		if err := json.Unmarshal([]byte(stdout), &saved); err != nil {
			t.Fatalf("%v in %q", err, stdout)
		}
		acknowledged = append(acknowledged, saved.Manifest.ID)
	}
	l := listRepo(t, repo)
	for _, id := range acknowledged {
		if !slices.Contains(l.ids(), id) {
			t.Errorf("%s was reported as saved, and is not listed", id)
		}
	}
	t.Logf("%d kills within %v: %d reported as saved, %d listed, %d unfinished", runs, took*5/4, len(acknowledged), len(l.Backups), len(l.Unfinished))
	if len(l.Unfinished) == 0 || len(acknowledged) == runs {
		t.Error("no kill hit a save at work: the test shows nothing")
	}
	lifeboat(t, "verify", "--repo", repo, "--all", "--level", "digest")
	lifeboat(t, args...)
	lifeboat(t, "verify", "--repo", repo, "latest", "--level", "boot")
	mustHoldOnly(t, repo, "clusters", "lifeboat.json")
}

// openRepo opens a repository of the test's own.
func openRepo(t testing.TB, dir string) *repository.Repository {
	t.Helper()
	store, err := fs.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// saveSmall puts a backup of a few small parts there.
func saveSmall(t testing.TB, repo *repository.Repository) {
	t.Helper()
	draft, err := repo.Begin(t.Context(), "c", repository.DraftOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		part := repository.Part{Name: fmt.Sprintf("member/wal/%d.wal", i), Role: repository.RoleWAL}
		_, err := draft.Put(t.Context(), part, func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, part.Name)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := draft.Commit(t.Context(), repository.Manifest{Kind: repository.Files}); err != nil {
		t.Fatal(err)
	}
}

// listSound lists what is there, all of it sound.
func listSound(t testing.TB, repo *repository.Repository) (*repository.Listing, []string) {
	t.Helper()
	l, err := repo.List(t.Context(), "")
	if err != nil || len(l.Damaged)+len(l.Unknown) > 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	var ids []string
	for _, b := range l.Backups {
		ids = append(ids, b.ID())
		if damage, err := repo.CheckDigests(t.Context(), b, nil); err != nil || len(damage) > 0 {
			t.Fatalf("%s: %v, %v", b.ID(), damage, err)
		}
	}
	return l, ids
}

// However prunes are killed, what the rules keep is there and whole, and the
// next one ends the work.
func TestPrunesSurviveSIGKILL(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	lifeboat(t, "init", "--repo", dir)
	repo := openRepo(t, dir)
	prune := []string{"prune", "--repo", dir, "--keep-last", "2"}
	for range 6 {
		saveSmall(t, repo)
	}
	began := time.Now()
	lifeboat(t, prune...)
	took := time.Since(began)

	half := 0
	for range soak(t, 200) {
		saveSmall(t, repo)
		_, before := listSound(t, repo)
		killed(t, rand.N(took), prune...)
		l, after := listSound(t, repo)
		if want := before[len(before)-2:]; !slices.Equal(after[max(0, len(after)-2):], want) {
			t.Fatalf("of %v, %v are left", before, after)
		}
		if len(l.Unfinished) > half {
			half = len(l.Unfinished)
		}
	}
	t.Logf("up to %d backups were half removed", half)
	lifeboat(t, prune...)
	if l, ids := listSound(t, repo); len(ids) != 2 {
		t.Errorf("%d backups after a prune that was not killed: %+v", len(ids), l)
	} else {
		for _, u := range l.Unfinished {
			if !u.Pruned {
				t.Errorf("%s is taken for a save that died", u.ID)
			}
		}
	}
}

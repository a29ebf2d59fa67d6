package save

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// hold locks a member's backend as its etcd does while it runs. Where the
// system does not tell who holds locks, the member may be running anyhow.
func hold(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "member/snap/db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
}

// The backend of a running member goes through a copy, of which nothing is left.
func TestFilesOfARunningMember(t *testing.T) {
	for _, name := range []string{"3.4.23-mixed", "3.5.33"} {
		t.Run(name, func(t *testing.T) {
			source := dataDir(t, name)
			hold(t, source)
			repo, scratch := newRepository(t), t.TempDir()
			var total, progress int64
			o := FilesOptions{Scratch: scratch, Options: Options{
				Total: func(n int64) { total = n }, Progress: func(n int64) { progress += n },
			}}
			b, err := Files(t.Context(), repo, "c", source, o)
			if err != nil {
				t.Fatal(err)
			}
			if plain, _ := b.Size(); total != plain || progress != plain {
				t.Errorf("told %d bytes of %d, want %d", progress, total, plain)
			}
			got := load(t, repo, b)
			checkFacts(t, inspect(t, source), b.Manifest)
			checkFacts(t, inspect(t, got), b.Manifest)
			checkRestorable(t, got, b.Manifest.V2)
			if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
				t.Errorf("left in the scratch folder: %v (%v)", left, err)
			}
		})
	}
}

// A backend that is ahead of the log does not make a backup, however often it
// is looked at.
func TestFilesRefuseALogBehindTheBackend(t *testing.T) {
	t.Parallel()
	source := dataDir(t, "3.5.33")
	segment := onlySegment(t, source)
	data := bytes.TrimRight(read(t, segment), "\x00")
	write(t, segment, data[:len(data)/2])
	hold(t, source)
	repo := newRepository(t)
	var said []string
	o := FilesOptions{Options: Options{Info: func(s string) { said = append(said, s) }}}
	_, err := Files(t.Context(), repo, "c", source, o)
	if err == nil || !strings.Contains(err.Error(), "it has applied up to index 109") || len(said) != 9 {
		t.Errorf("error %v, said %q", err, said)
	}
	mustBeEmpty(t, repo)
}

// A member that is started in the midst is read again.
func TestFilesStartOverWhenTheBackendChanges(t *testing.T) {
	t.Parallel()
	source := dataDir(t, "3.5.33")
	touched := false
	touch := func(int64) {
		if !touched {
			touched = true
			if err := os.Chtimes(filepath.Join(source, "member/snap/db"), time.Time{}, time.Now().Add(time.Second)); err != nil {
				t.Error(err)
			}
		}
	}
	var said []string
	repo := newRepository(t)
	o := FilesOptions{Options: Options{Progress: touch, Info: func(s string) { said = append(said, s) }}}
	b, err := Files(t.Context(), repo, "c", source, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || !strings.Contains(said[0], "changed while it was read: trying again") {
		t.Errorf("said %q", said)
	}
	load(t, repo, b)
	mustHoldObjects(t, repo, len(b.Manifest.Parts)+1)
}

// The parts of a backup are what a data dir is made of, and no more.
func TestPartsOfFiles(t *testing.T) {
	source := dataDir(t, "3.4.23-mixed")
	write(t, filepath.Join(source, "member/snap/0000000000000009-0000000000000999.snap"), []byte("no snapshot"))
	write(t, filepath.Join(source, "member/wal/0.tmp"), make([]byte, 100))
	b, err := Files(t.Context(), newRepository(t), "c", source, FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]repository.Role{}
	for _, p := range b.Manifest.Parts {
		roles[p.Name] = p.Role
	}
	want := map[string]repository.Role{
		"member/snap/db": repository.RoleDB,
		"member/snap/0000000000000002-000000000000012d.snap": repository.RoleSnap,
		"member/wal/0000000000000000-0000000000000000.wal":   repository.RoleWAL,
	}
	if len(roles) != len(want) {
		t.Errorf("parts %v", roles)
	}
	for name, role := range want {
		if roles[name] != role {
			t.Errorf("part %s: role %q, want %q", name, roles[name], role)
		}
	}
	if len(b.Manifest.Notes) != 1 || !strings.Contains(b.Manifest.Notes[0], "0999.snap is passed over") {
		t.Errorf("notes %q", b.Manifest.Notes)
	}
}

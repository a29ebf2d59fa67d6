//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestVerifyBootsV3 verifies what each release left behind when it was killed,
// with the built-in etcd and with releases that are installed.
func TestVerifyBootsV3(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		made   release
		booted []release
	}{
		{etcd34, []release{etcd34, etcd35, etcd36}},
		{etcd35, []release{etcd35, etcd36}},
		{etcd36, []release{etcd36, etcd37}},
		{etcd37, []release{etcd37}},
	} {
		for kind, make := range map[string]func(testing.TB) source{
			"log alone":      func(t testing.TB) source { return oneMember(t, c.made) },
			"with snapshots": func(t testing.TB) source { return oneMember(t, c.made, "--snapshot-count", "40") },
		} {
			t.Run(string(c.made)+" "+kind, func(t *testing.T) {
				t.Parallel()
				s := make(t)
				check := untouched(t, s.dir)
				lifeboat(t, "verify", s.dir)
				for _, r := range c.booted {
					o := lifeboat(t, "verify", s.dir, "--etcd-binary", r.path(t, "etcd"))
					if want := "etcd " + string(r) + "."; !strings.Contains(o.stdout, want) {
						t.Errorf("%q is not said:\n%s", want, o.stdout)
					}
				}
				check()
			})
		}
	}
}

// TestVerifyV3OfOneOfThree: the others are gone, and 3.7 would wait for them.
func TestVerifyV3OfOneOfThree(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd34, etcd35, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := oneOfThree(t, r, 0)
			check := untouched(t, s.dir)
			lifeboat(t, "verify", s.dir)
			check()
		})
	}
}

// TestVerifyRefusesWhatCannotBoot says it as it is, with the way out.
func TestVerifyRefusesWhatCannotBoot(t *testing.T) {
	t.Parallel()
	s := oneMember(t, etcd36)
	o := finish(t, lifeboatCommand("verify", s.dir, "--etcd-binary", etcd35.path(t, "etcd")))
	if o.code != 1 || !strings.Contains(o.stdout, "etcd 3.5 can't be made to boot it") {
		t.Errorf("exit code %d:\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// stoppedV3 makes a data dir whose backend holds all that was written.
func stoppedV3(t testing.TB, r release, flags ...string) string {
	t.Helper()
	e := start(t, r, newDataDir(t), flags...)
	for i := range 60 {
		persist(t, "a put", func() error { return e.put(fmt.Sprintf("/k/%d", i), fmt.Sprintf("a value of %d", i)) })
	}
	e.Stop()
	return e.dir
}

func editBackend(t testing.TB, dir string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "member/snap/db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(change); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// changeValue changes a byte of a value, wherever it stands in the file.
func changeValue(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(data, []byte("a value of 57"), []byte("a value oF 57"))
	if bytes.Equal(data, changed) {
		t.Fatalf("%s: does not hold the value", path)
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantDamage verifies and wants exit code 3 and the text.
func wantDamage(t testing.TB, path, text string) {
	t.Helper()
	o := finish(t, lifeboatCommand("verify", path))
	if o.code != 3 || !strings.Contains(o.stdout, text) {
		t.Errorf("exit code %d, want 3 and %q:\n%s%s", o.code, text, o.stdout, o.stderr)
	}
}

func TestVerifyCatchesV3Damage(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd34, etcd35, etcd36, etcd37} {
		for kind, flags := range map[string][]string{"log alone": nil, "with snapshots": {"--snapshot-count", "20"}} {
			t.Run(string(r)+" "+kind, func(t *testing.T) {
				t.Parallel()
				dir := stoppedV3(t, r, flags...)
				lifeboat(t, "verify", dir)
				changeValue(t, filepath.Join(dir, "member/snap/db"))
				wantDamage(t, dir, `of key "/k/57" holds what no put in the log wrote`)
				editBackend(t, dir, func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("key")) })
				wantDamage(t, dir, "bucket key is missing")
			})
		}
	}
}

// TestVerifyCatchesADirThatTakesNoWrites fills an etcd up to its quota.
func TestVerifyCatchesADirThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd35, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t), "--quota-backend-bytes", "4000000")
			for i := 0; ; i++ {
				err := e.put(fmt.Sprint(i), strings.Repeat("x", 500_000))
				if err != nil && strings.Contains(err.Error(), "database space exceeded") {
					break
				}
				if err != nil || i > 100 {
					t.Fatalf("put %d: %v", i, err)
				}
			}
			e.Stop()
			wantDamage(t, e.dir, "can't be written to: etcdserver: mvcc: database space exceeded")
		})
	}
}

func TestVerifySnapshotFile(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd34, etcd35, etcd36, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t))
			for i := range 60 {
				persist(t, "a put", func() error { return e.put(fmt.Sprintf("/k/%d", i), fmt.Sprintf("a value of %d", i)) })
			}
			file := filepath.Join(t.TempDir(), "snapshot.db")
			e.etcdctl("3", "snapshot", "save", file)
			e.Kill()
			lifeboat(t, "verify", file)
			lifeboat(t, "verify", file, "--etcd-binary", r.path(t, "etcd"))
			changeValue(t, file)
			wantDamage(t, file, "checksum mismatch")
		})
	}
}

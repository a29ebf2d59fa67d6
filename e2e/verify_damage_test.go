//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// filledBackup backs up a running etcd that has taken snapshots.
func filledBackup(t testing.TB, r release) string {
	t.Helper()
	e := start(t, r, newDataDir(t), "--snapshot-count", "40")
	for i := range 130 {
		e.v2Set(fmt.Sprintf("/k/%d", i%50), fmt.Sprint("some value ", i))
	}
	dst := filepath.Join(t.TempDir(), "backup")
	lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", dst)
	e.Kill()
	return dst
}

// newest is the last file by name in a folder.
func newest(t testing.TB, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v %v", pattern, names, err)
	}
	return slices.Max(names)
}

// TestVerifyCatchesDamage spoils a copy of a backup in each way, and wants the
// file and the offset told, exit code 3, and nothing touched.
func TestVerifyCatchesDamage(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd23, etcd34, etcd35} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			backup := filledBackup(t, r)
			lifeboat(t, "verify", backup)
			for name, spoil := range damages {
				dir := filepath.Join(t.TempDir(), "copy")
				if err := os.CopyFS(dir, os.DirFS(backup)); err != nil {
					t.Fatal(err)
				}
				file, offset := spoil(t, filepath.Join(dir, "member"))
				check := untouched(t, dir)
				o := finish(t, lifeboatCommand("verify", dir))
				check()
				if o.code != 3 || !tellsPlace(o.stdout, filepath.Base(file), offset) {
					t.Errorf("%s: exit code %d, want 3, with %s and an offset up to %d:\n%s%s", name, o.code, filepath.Base(file), offset, o.stdout, o.stderr)
				}
			}
		})
	}
}

// damages spoil a member's files and return which file, and where.
var damages = map[string]func(t testing.TB, member string) (file string, offset int64){
	"flipped byte in the .snap": func(t testing.TB, member string) (string, int64) {
		return flipByte(t, newest(t, member+"/snap/*.snap"))
	},
	"flipped byte in the log": func(t testing.TB, member string) (string, int64) {
		return flipByte(t, newest(t, member+"/wal/*.wal"))
	},
	"truncated .snap": func(t testing.TB, member string) (string, int64) {
		return truncateHalf(t, newest(t, member+"/snap/*.snap"))
	},
	"truncated log": func(t testing.TB, member string) (string, int64) {
		return truncateLog(t, newest(t, member+"/wal/*.wal"))
	},
}

// flipByte changes a bit in the middle of what a backup wrote: its files hold
// no room for later.
func flipByte(t testing.TB, path string) (string, int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := len(data) / 2
	data[at] ^= 0x04
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, int64(at)
}

// truncateLog cuts a segment inside of a record in its middle: 2.3's records
// are not padded, and may end anywhere.
func truncateLog(t testing.TB, path string) (string, int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := int64(0)
	for at := 0; at < len(data)/2; {
		word := binary.LittleEndian.Uint64(data[at:])
		padding := 0
		if word>>63 == 1 {
			padding = int(word >> 56 & 7)
		}
		cut = int64(at) + 9 // the length word, and a byte
		at += 8 + int(word&(1<<56-1)) + padding
	}
	if err := os.Truncate(path, cut); err != nil {
		t.Fatal(err)
	}
	return path, cut
}

func truncateHalf(t testing.TB, path string) (string, int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size() / 2
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path, size
}

// tellsPlace tells whether a line names the file and an offset up to the damage:
// where the record begins that it lies in, or the checksum that failed.
func tellsPlace(out, file string, upTo int64) bool {
	for line := range strings.Lines(out) {
		at := strings.Index(line, "offset ")
		if !strings.Contains(line, file) || at < 0 {
			continue
		}
		var offset int64
		if _, err := fmt.Sscanf(line[at:], "offset %d", &offset); err == nil && offset <= upTo {
			return true
		}
	}
	return false
}

// TestVerifyOfARunningEtcd can't vouch for the backend, and says so; its
// backup passes.
func TestVerifyOfARunningEtcd(t *testing.T) {
	t.Parallel()
	e := start(t, etcd34, newDataDir(t), "--snapshot-count", "40")
	for i := range 100 {
		e.v2Set("/k", fmt.Sprint(i))
	}
	o := finish(t, lifeboatCommand("verify", e.dir))
	if o.code != 1 || !strings.Contains(o.stdout, "an etcd is writing it") {
		t.Errorf("exit code %d:\n%s%s", o.code, o.stdout, o.stderr)
	}
	e.v2Set("/k", "last")
	dst := filepath.Join(t.TempDir(), "backup")
	lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", dst)
	lifeboat(t, "verify", dst)
}

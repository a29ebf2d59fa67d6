//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// backedUp backs the source up for a release ("" is its own) and returns the
// backup's dir. The source must stay as it was.
func backedUp(t testing.TB, s source, target release, flags ...string) string {
	t.Helper()
	check := untouched(t, s.dir)
	dst := filepath.Join(t.TempDir(), "backup")
	args := append([]string{"backup", "--data-dir", s.dir, "--backup-dir", dst}, flags...)
	if target != "" {
		args = append(args, "--for", string(target))
	}
	lifeboat(t, args...)
	check()
	mustHoldOnly(t, filepath.Dir(dst), "backup")
	return dst
}

func TestBackupOfFixtureBoots(t *testing.T) {
	tests := []struct {
		fixture string
		target  release // of --for; "" leaves it out
		boots   []release
	}{
		{"2.3.7", "", []release{etcd23}},
		{"2.3.7", etcd34, []release{etcd34}},
		{"2.3.7", etcd35, []release{etcd35}},
		{"2.3.7-cluster", "", []release{etcd23}},
		{"2.3.7-cluster", etcd34, []release{etcd34}},
		{"2.3.7-cluster", etcd35, []release{etcd35}},
		{"3.4.23-mixed", "", []release{etcd34, etcd35}},
		{"3.4.23-mixed", etcd35, []release{etcd35}},
		{"3.5.33", "", []release{etcd35, etcd36}},
		{"3.5.33", etcd36, []release{etcd36}},
		{"3.5.33", etcd37, []release{etcd37}},
	}
	for _, tt := range tests {
		for _, r := range tt.boots {
			t.Run(tt.fixture+" for "+string(tt.target)+" in "+string(r), func(t *testing.T) {
				t.Parallel()
				s := fixtureSource(t, tt.fixture)
				s.prove(t, r, backedUp(t, s, tt.target))
			})
		}
	}
}

// A member of a cluster, with snapshots and a conf change after them. etcd puts
// a conf change into the backend at once, though 3.4 does not count it there,
// and the backend onto the disk every 100 ms: both must boot, a backend that
// has the change and one that lacks it.
func TestBackupOfMemberBoots(t *testing.T) {
	const onDisk = 500 * time.Millisecond
	tests := []struct {
		name   string
		source release
		settle time.Duration
		boots  []release
	}{
		{"3.4", etcd34, 0, []release{etcd34, etcd35, etcd36, etcd37}},
		{"3.4 settled", etcd34, onDisk, []release{etcd36, etcd37}},
		{"3.5", etcd35, 0, []release{etcd35, etcd36, etcd37}},
		{"3.5 settled", etcd35, onDisk, []release{etcd36, etcd37}},
		{"3.6", etcd36, 0, []release{etcd36, etcd37}},
		{"3.7", etcd37, 0, []release{etcd37}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			proveAll(t, oneOfThree(t, tt.source, tt.settle), tt.boots)
		})
	}
}

// Without a snapshot, everything is in the log from its start; health probes
// leave quorum reads in it that 3.6 and 3.7 refuse. The commit of the last write
// never reached the disk, but a member alone had acknowledged it.
func TestBackupWithoutSnapshotBoots(t *testing.T) {
	for source, boots := range map[release][]release{
		etcd34: {etcd34, etcd35, etcd36, etcd37},
		etcd35: {etcd35, etcd36, etcd37},
	} {
		t.Run(string(source), func(t *testing.T) {
			t.Parallel()
			proveAll(t, oneMember(t, source), boots)
		})
	}
}

func proveAll(t *testing.T, s source, boots []release) {
	for _, r := range boots {
		t.Run("for "+string(r), func(t *testing.T) {
			t.Parallel()
			s.prove(t, r, backedUp(t, s, r))
		})
	}
}

// What no change can make a release take is refused by name.
func TestBackupRefusesV2KeysFor36(t *testing.T) {
	t.Parallel()
	for name, cause := range map[string]string{
		"2.3.7":        "v2 user data",
		"3.4.23-mixed": "v2 user data",
	} {
		for _, target := range []release{etcd36, etcd37} {
			s := fixtureSource(t, name)
			dst := filepath.Join(t.TempDir(), "backup")
			o := finish(t, lifeboatCommand("backup", "--data-dir", s.dir, "--backup-dir", dst, "--for", string(target)))
			if o.code != 1 || !strings.Contains(o.stderr, cause) {
				t.Errorf("%s for %s: exit %d\n%s", name, target, o.code, o.stderr)
			}
			mustHoldOnly(t, filepath.Dir(dst))
		}
	}
}

// The log alone rebuilds all keys.
func TestBackupOfLogAloneBoots(t *testing.T) {
	tests := []struct {
		fixture string
		target  release
	}{
		{"2.3.7", etcd23},
		{"2.3.7", etcd34},
		{"2.3.7-cluster", etcd35},
		{"3.4.23-mixed", etcd34},
		{"3.4.23-mixed", etcd35},
		{"3.5.33", etcd35},
		{"3.5.33", etcd36},
		{"3.5.33", etcd37},
	}
	for _, tt := range tests {
		t.Run(tt.fixture+" for "+string(tt.target), func(t *testing.T) {
			t.Parallel()
			s := fixtureSource(t, tt.fixture)
			check := untouched(t, s.dir)
			dst := filepath.Join(t.TempDir(), "backup")
			lifeboat(t, "backup", "--wal-dir", filepath.Join(s.dir, "member", "wal"),
				"--backup-wal-dir", filepath.Join(dst, "member", "wal"), "--for", string(tt.target))
			check()
			// etcd 2.3 makes no folder for snapshots beside a log that is there.
			if err := os.Mkdir(filepath.Join(dst, "member", "snap"), 0o700); err != nil {
				t.Fatal(err)
			}
			s.prove(t, tt.target, dst)
		})
	}
}

// One of several members can't know of its last entry that it was committed;
// the copy keeps it.
func TestBackupWarnsOfUncommittedEntries(t *testing.T) {
	t.Parallel()
	dst := filepath.Join(t.TempDir(), "backup")
	o := lifeboat(t, "backup", "--data-dir", fixtureSource(t, "2.3.7-cluster").dir, "--backup-dir", dst)
	if !strings.Contains(o.stderr, "can't tell whether the cluster committed its last entries, index 578 to 578: the copy keeps them") {
		t.Errorf("no warning:\n%s", o.stderr)
	}
}

// The log may lie apart from the data dir, in the source and in the backup.
func TestBackupOfSeparateWALDir(t *testing.T) {
	t.Parallel()
	srcWAL := filepath.Join(t.TempDir(), "wal")
	s := oneMember(t, etcd35, "--snapshot-count", "50", "--wal-dir", srcWAL)
	check, checkWAL := untouched(t, s.dir), untouched(t, srcWAL)
	dst, dstWAL := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "wal")
	lifeboat(t, "backup", "--data-dir", s.dir, "--wal-dir", srcWAL, "--backup-dir", dst, "--backup-wal-dir", dstWAL)
	check()
	checkWAL()
	mustHoldOnly(t, filepath.Dir(dst), "backup")
	mustHoldOnly(t, filepath.Dir(dstWAL), "wal")
	s.prove(t, etcd35, dst, "--wal-dir", dstWAL)
}

// The ids that a member is to have can be told.
func TestBackupKeepsIdsOnRequest(t *testing.T) {
	t.Parallel()
	s := fixtureSource(t, "3.5.33")
	e := start(t, etcd35, backedUp(t, s, "", "--keep-cluster-id", "--node-id", "1f2e3d4c5b6a7988"), "--force-new-cluster")
	if id := e.soleMember(); id != "1f2e3d4c5b6a7988" {
		t.Errorf("member id %s", id)
	}
	resp, err := e.v3().MemberList(callContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.ClusterId != 9680446002668400282 {
		t.Errorf("cluster id %d, want the source's", resp.Header.ClusterId)
	}
}

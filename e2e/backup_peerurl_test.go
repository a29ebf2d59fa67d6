//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// A member that was never told its peer URL has the one that
// --force-new-cluster gives to the copy.
func TestBackupOfDefaultPeerURL(t *testing.T) {
	tests := []struct {
		from   release
		target release
		flags  []string
	}{
		{etcd23, etcd23, nil},
		{etcd23, etcd34, []string{"--for", "3.4"}},
		{etcd23, etcd35, []string{"--for", "3.5"}},
		{etcd34, etcd34, nil},
		{etcd34, etcd35, nil},
		{etcd34, etcd37, []string{"--for", "3.7"}},
		{etcd35, etcd35, nil},
		{etcd35, etcd36, []string{"--for", "3.6"}},
		{etcd36, etcd36, nil},
		{etcd37, etcd37, nil},
	}
	for _, tt := range tests {
		for _, snapshots := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s to %s, snapshots %v", tt.from, tt.target, snapshots), func(t *testing.T) {
				t.Parallel()
				s := defaultMember(t, tt.from, snapshots)
				dst := filepath.Join(t.TempDir(), "backup")
				lifeboat(t, append([]string{"backup", "--data-dir", s.dir, "--backup-dir", dst}, tt.flags...)...)
				s.prove(t, tt.target, dst)
			})
		}
	}
}

// defaultMember makes the data dir of a member that advertises the default.
func defaultMember(t *testing.T, r release, snapshots bool) source {
	t.Helper()
	ports := freePorts(t, 2)
	e := &etcd{
		t: t, release: r, name: "default", dir: newDataDir(t), client: loopback(ports[0]), peer: loopback(ports[1]),
		cluster: "default=" + datadir.ForcedPeerURL,
		flags:   []string{"--initial-advertise-peer-urls", datadir.ForcedPeerURL},
	}
	if snapshots {
		e.flags = append(e.flags, "--snapshot-count", "20")
	}
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	if r == etcd23 {
		return v2Source(e)
	}
	writeHistory(e)
	return seal(e)
}

// v2Source writes v2 keys, ends the etcd with SIGKILL, and keeps what it answered.
func v2Source(e *etcd) source {
	e.t.Helper()
	for i := range 60 {
		e.v2Set(fmt.Sprintf("/k/%d", i%17), fmt.Sprint(i))
	}
	s := source{dir: e.dir, v2: e.v2Dump("/").lines()}
	e.settle()
	e.Kill()
	return s
}

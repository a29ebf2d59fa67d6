//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// A member started on a seeded data dir catches up from the log while the
// cluster is written to: no snapshot is sent.
func TestSeededMemberJoins(t *testing.T) {
	for _, r := range []release{etcd34, etcd35, etcd36, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			members := startCluster(t, r, 3)
			writeHistory(members[0])
			joining := newMembers(t, r, 1, nil)[0]
			id := addMember(members[0], joining.peer)
			members[2].Stop() // m3: it knows of the new member
			joining.name, joining.dir = "m4", newDataDir(t)
			joining.cluster = members[0].cluster + ",m4=" + joining.peer
			joining.flags = []string{"--initial-cluster-state", "existing"}
			load := startPuts(members[0])
			check := untouched(t, members[2].dir)
			o := lifeboat(t, "member", "seed", "--from", members[2].dir, "--node-id", fmt.Sprintf("%x", id), "--data-dir", joining.dir)
			check()
			if !strings.Contains(o.stdout, "--initial-advertise-peer-urls "+joining.peer) {
				t.Errorf("the hint does not name the member's peer URL:\n%s", o.stdout)
			}
			if err := members[2].Restart(); err != nil {
				t.Fatal(err)
			}
			if err := joining.Restart(); err != nil {
				t.Fatal(err)
			}
			load.stop(t)
			sameState(t, members[0], joining)
			if log := joining.proc.log.String(); strings.Contains(log, "received and saved database snapshot") || strings.Contains(log, "applying snapshot") {
				t.Errorf("a snapshot was sent to it:\n%s", joining.proc.tail())
			}
			if err := joining.put("/seeded", "writes"); err != nil {
				t.Errorf("a write through the new member: %v", err)
			}
		})
	}
}

// A source that was taken before the member was added does not know it.
func TestSeedRefuses(t *testing.T) {
	t.Parallel()
	s := oneOfThree(t, etcd35, 0)
	dst := filepath.Join(t.TempDir(), "seed")
	for name, id := range map[string]string{
		"an unknown id":    "abc",
		"the source's own": nodeID(t, s.dir),
	} {
		cmd := lifeboatCommand("member", "seed", "--from", s.dir, "--node-id", id, "--data-dir", dst)
		if o := finish(t, cmd); o.code != 1 || !strings.Contains(o.stderr, id) {
			t.Errorf("%s: exit code %d, %s", name, o.code, o.stderr)
		}
	}
	mustHoldOnly(t, filepath.Dir(dst))
}

// nodeID is the id in the log of a data dir.
func nodeID(t *testing.T, dir string) string {
	t.Helper()
	d, err := datadir.Inspect(t.Context(), dir, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return fmt.Sprintf("%x", d.IDs.NodeID)
}

func addMember(e *etcd, peer string) uint64 {
	e.t.Helper()
	var id uint64
	persist(e.t, "add a member", func() error {
		resp, err := e.v3().MemberAdd(callContext(e.t), []string{peer})
		if err == nil {
			id = resp.Member.ID
		}
		return err
	})
	return id
}

// sameState waits until both answer a linearizable read, and compares them at
// one revision.
func sameState(t *testing.T, a, b *etcd) {
	t.Helper()
	resp, err := a.v3().Get(callContext(t), "/history")
	if err != nil {
		t.Fatal(err)
	}
	persist(t, "a linearizable read", func() error {
		_, err := b.v3().Get(callContext(t), "/history")
		return err
	})
	rev := resp.Header.Revision
	if got, want := b.hashKV(rev), a.hashKV(rev); got != want {
		t.Errorf("hashkv %d at revision %d, want %d", got, rev, want)
	}
}

// puts writes keys until it is stopped.
type puts struct {
	done chan struct{}
	wait sync.WaitGroup
	err  error
}

func startPuts(e *etcd) *puts {
	p := &puts{done: make(chan struct{})}
	p.wait.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-p.done:
				return
			default:
			}
			if p.err = e.put(fmt.Sprintf("/load/%d", i%500), strings.Repeat("x", 200)); p.err != nil {
				return
			}
		}
	})
	return p
}

func (p *puts) stop(t *testing.T) {
	t.Helper()
	close(p.done)
	p.wait.Wait()
	if p.err != nil {
		t.Errorf("the load: %v", p.err)
	}
}

//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// startCluster boots n members m1…mN of one cluster, each on a data dir of its
// own, and waits until all are healthy.
func startCluster(t testing.TB, r release, n int, flags ...string) []*etcd {
	t.Helper()
	var members []*etcd
	err := retryPorts(func() error {
		for _, m := range members {
			m.Kill()
		}
		members = newMembers(t, r, n, flags)
		return bootAll(members)
	})
	if err != nil {
		t.Fatal(err)
	}
	return members
}

func newMembers(t testing.TB, r release, n int, flags []string) []*etcd {
	t.Helper()
	ports := freePorts(t, 2*n)
	root := t.TempDir()
	members := make([]*etcd, n)
	var peers []string
	for i := range members {
		name := fmt.Sprintf("m%d", i+1)
		members[i] = &etcd{
			t: t, release: r, name: name, dir: filepath.Join(root, name), flags: flags,
			client: loopback(ports[2*i]), peer: loopback(ports[2*i+1]),
		}
		peers = append(peers, members[i].name+"="+members[i].peer)
	}
	for _, m := range members {
		m.cluster = strings.Join(peers, ",")
	}
	return members
}

func bootAll(members []*etcd) error {
	for _, m := range members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := m.waitHealthy(); err != nil {
			return err
		}
	}
	return nil
}

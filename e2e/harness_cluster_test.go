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

// join adds a member of that name to the cluster that e belongs to, and boots it.
func (e *etcd) join(name string) *etcd {
	e.t.Helper()
	m := &etcd{
		t: e.t, release: e.release, name: name, dir: filepath.Join(e.t.TempDir(), name),
		flags: append([]string{"--initial-cluster-state", "existing"}, e.flags...),
	}
	ports := freePorts(e.t, 2)
	m.client, m.peer = loopback(ports[0]), loopback(ports[1])
	e.etcdctl("member", "add", name, "--peer-urls", m.peer)
	m.cluster = e.peersBut(name) + "," + name + "=" + m.peer
	if err := m.Restart(); err != nil {
		e.t.Fatal(err)
	}
	return m
}

// peersBut is the cluster as --initial-cluster wants it, without a member that
// has not started yet.
func (e *etcd) peersBut(newcomer string) string {
	e.t.Helper()
	resp, err := e.v3().MemberList(callContext(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	var peers []string
	for _, m := range resp.Members {
		if m.Name != "" && m.Name != newcomer {
			peers = append(peers, m.Name+"="+m.PeerURLs[0])
		}
	}
	return strings.Join(peers, ",")
}

//go:build e2e

package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Of three members a follower is taken, and the one that is gone passed over.
func TestSaveTakesAFollower(t *testing.T) {
	for _, r := range []release{etcd34, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			members := startCluster(t, r, 3)
			writeHistory(members[0])
			var endpoints []string
			for _, m := range members {
				endpoints = append(endpoints, m.client)
			}
			members[2].Kill()
			persist(t, "a write with two of three", func() error { return members[0].put("/after", "x") })
			file := filepath.Join(t.TempDir(), "s.db")
			o := lifeboat(t, "snapshot", "save", file, "--endpoints", strings.Join(endpoints, ","))
			if !strings.Contains(o.stderr, ": follower, ") || !strings.Contains(o.stderr, "passed over "+members[2].client) {
				t.Errorf("it said:\n%s", o.stderr)
			}
			mustHoldOnly(t, filepath.Dir(file), "s.db")
		})
	}
}

// With authentication on, a snapshot is the root user's to take.
func TestSaveWithAPassword(t *testing.T) {
	t.Parallel()
	e := start(t, etcd37, newDataDir(t))
	c := e.v3()
	if _, err := c.UserAdd(callContext(t), "root", "rootpw"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UserGrantRole(callContext(t), "root", "root"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AuthEnable(callContext(t)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "s.db")
	for name, flags := range map[string][]string{
		"no user":        nil,
		"wrong password": {"--user", "root:wrong"},
	} {
		o := finish(t, lifeboatCommand(append([]string{"snapshot", "save", file, "--endpoints", e.client}, flags...)...))
		if o.code != 1 || strings.Contains(o.stderr, "trying again") {
			t.Errorf("%s: exit %d\n%s", name, o.code, o.stderr)
		}
		mustHoldOnly(t, filepath.Dir(file))
	}
	cmd := lifeboatCommand("snapshot", "save", file, "--endpoints", e.client)
	cmd.Env = append(cmd.Env, "ETCDCTL_USER=root", "ETCDCTL_PASSWORD=rootpw")
	if o := finish(t, cmd); o.code != 0 {
		t.Errorf("exit %d\n%s", o.code, o.stderr)
	}
	lifeboat(t, "snapshot", "status", file)
}

// A connection that breaks in the middle is started over.
func TestSaveStartsOver(t *testing.T) {
	t.Parallel()
	e := start(t, etcd37, newDataDir(t))
	big := strings.Repeat("x", 1<<20)
	for _, key := range []string{"/a", "/b", "/c", "/d"} {
		if err := e.put(key, big); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "s.db")
	proxy := newBreakingProxy(t, strings.TrimPrefix(e.client, "http://"), 2<<20)
	o := lifeboat(t, "snapshot", "save", file, "--endpoints", proxy)
	if !strings.Contains(o.stderr, "trying again") {
		t.Errorf("it said:\n%s", o.stderr)
	}
	mustHoldOnly(t, filepath.Dir(file), "s.db")
	lifeboat(t, "snapshot", "status", file)

	stdout := finish(t, lifeboatCommand("snapshot", "save", "-", "--endpoints", newBreakingProxy(t, strings.TrimPrefix(e.client, "http://"), 2<<20)))
	if stdout.code == 0 || !strings.Contains(stdout.stderr, "can't be taken back") {
		t.Errorf("to the standard output: exit %d\n%s", stdout.code, stdout.stderr)
	}
	whole := lifeboat(t, "snapshot", "save", "-", "--endpoints", e.client)
	if err := os.WriteFile(file, []byte(whole.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	lifeboat(t, "snapshot", "status", file)
}

// newBreakingProxy forwards to the target, and breaks the first connection that
// has answered so many bytes.
func newBreakingProxy(t testing.TB, target string, after int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var broken atomic.Bool
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go forward(client, target, after, &broken)
		}
	}()
	return l.Addr().String()
}

func forward(client net.Conn, target string, after int64, broken *atomic.Bool) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	go io.Copy(server, client)
	if _, err := io.CopyN(client, server, after); err != nil || broken.CompareAndSwap(false, true) {
		return
	}
	io.Copy(client, server)
}

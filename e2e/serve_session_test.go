//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sessionLines is what an operator types first. In their output nothing
// depends on the server's index.
var sessionLines = []string{
	"mkdir /a/b", "set /a/b/os linux", "get /a/b/os", "set /a/b/car volvo", "get /a/b/car",
	"ls / --recursive --sort", "ls / --recursive --sort -p",
	"rm /a/b/os", "get /a/b/os", "rmdir /a/b", "mkdir /a/empty", "rmdir /a/empty",
	"update /a/b/car saab", "update /a/b/bike x", "rm /a --recursive", "ls /",
	"set /config/motd hello --ttl 600", "mk /config/motd again", "member list", "cluster-health",
}

// v2Clients are the two programs that take these lines.
var v2Clients = []struct {
	name    string
	command func(t testing.TB, server string, args []string) *exec.Cmd
}{
	{"lifeboat v2", func(t testing.TB, server string, args []string) *exec.Cmd {
		return lifeboatCommand(append([]string{"v2", "--endpoints", server}, args...)...)
	}},
	{"etcdctl", func(t testing.TB, server string, args []string) *exec.Cmd {
		cmd := exec.Command(etcd34.path(t, "etcdctl"), append([]string{"--endpoints", server}, args...)...)
		cmd.Env = append(cleanEnv(), "ETCDCTL_API=2")
		return cmd
	}},
}

// TestServeSession types the session at `lifeboat serve` with both clients: all
// must show what etcd 3.4 shows to its own.
func TestServeSession(t *testing.T) {
	t.Parallel()
	record := typeSession(t, start(t, etcd34, newDataDir(t)), 1)
	if !strings.Contains(record, "100: Key not found (/a/b/os)") || !strings.Contains(record, "108: Directory not empty (/a/b)") {
		t.Fatalf("the record lacks the errors:\n%s", record)
	}
	for i, client := range v2Clients {
		e := startServe(t, newDataDir(t), "--create")
		if diff := diffLines(strings.Split(typeSession(t, e, i), "\n"), strings.Split(record, "\n")); diff != "" {
			t.Errorf("%s at lifeboat serve:\n%s", client.name, diff)
		}
		e.Stop()
	}
}

// typeSession returns what the client shows, without what differs by chance:
// ids, addresses, names and indexes.
func typeSession(t testing.TB, e *etcd, client int) string {
	t.Helper()
	var text strings.Builder
	for _, line := range sessionLines {
		o := finish(t, v2Clients[client].command(t, e.client, strings.Fields(line)))
		if line == "member list" || line == "cluster-health" {
			o.stdout = fmt.Sprintf("%d lines\n", strings.Count(o.stdout, "\n"))
		}
		for said := range strings.Lines(o.stderr) {
			said, _, _ = strings.Cut(said, " [") // the index
			o.stdout += "! " + strings.TrimSpace(said) + "\n"
		}
		fmt.Fprintf(&text, "$ %s\n%sexit %d\n", line, o.stdout, o.code)
	}
	return text.String()
}

// TestBackupOfServedDirBoots backs up the dir of a running `lifeboat serve`,
// whole and the log alone, and boots both here and in etcd 3.4.
func TestBackupOfServedDirBoots(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{"log only": {"--create"}, "with snapshots": {"--create", "--snapshot-count", "15"}} {
		t.Run(name, func(t *testing.T) {
			e := startServe(t, newDataDir(t), flags...)
			for i := range 40 {
				e.v2Set(fmt.Sprintf("/dir/%02d", i%23), fmt.Sprint("value ", i))
			}
			s := source{dir: e.dir, v2: e.v2Dump("/").lines()}
			whole, wal := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "wal")
			lifeboat(t, "backup", "--data-dir", e.dir, "--backup-dir", whole)
			lifeboat(t, "backup", "--wal-dir", filepath.Join(e.dir, "member", "wal"), "--backup-wal-dir", filepath.Join(wal, "member", "wal"))
			for _, dir := range []string{whole, wal} {
				lifeboat(t, "verify", dir)
				ours := startServe(t, dir, "--clone")
				s.checkServed(ours)
				ours.Stop()
				s.prove(t, etcd34, dir)
			}
			e.v2Set("/still", "served")
			e.Stop()
		})
	}
}

// TestServeAnswersAsTheFixturesEtcdDid compares with what each etcd had
// answered just before it was killed.
func TestServeAnswersAsTheFixturesEtcdDid(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"2.3.7", "2.3.7-cluster", "3.4.23-mixed"} {
		t.Run(name, func(t *testing.T) {
			s := fixtureSource(t, name)
			kept := filepath.Dir(s.dir)
			check := untouched(t, s.dir)
			e := startServe(t, s.dir, "--clone", "--keep-uncommitted")
			if diff := diffLines(e.v2Dump("/").lines(), s.v2); diff != "" {
				t.Error(diff)
			}
			switch name {
			case "2.3.7":
				hidden := readV2Dump(t, filepath.Join(kept, "expected-hidden.json")).lines()
				if diff := diffLines(e.v2Dump("/_hidden").lines(), hidden); diff != "" {
					t.Error(diff)
				}
			case "2.3.7-cluster":
				e.checkAnswer("/v2/auth/users", filepath.Join(kept, "users.json"))
				e.checkAnswer("/v2/auth/roles", filepath.Join(kept, "roles.json"))
			}
			e.Stop()
			check()
		})
	}
}

// TestServeRefusesTheDirOfARunningEtcd looks at such a dir, too, as a clone.
func TestServeRefusesTheDirOfARunningEtcd(t *testing.T) {
	t.Parallel()
	for _, r := range []release{etcd23, etcd34} {
		t.Run(string(r), func(t *testing.T) {
			e := start(t, r, newDataDir(t))
			e.v2Set("/a", "x")
			if o := finish(t, lifeboatCommand("serve", "--data-dir", e.dir, "--listen", "127.0.0.1:0")); o.code != 5 || !strings.Contains(o.stderr, "--clone") {
				t.Errorf("exit code %d\n%s", o.code, o.stderr)
			}
			want := e.v2Dump("/").lines()
			clone := startServe(t, e.dir, "--clone")
			if got := clone.v2Dump("/").lines(); !slices.Equal(got, want) {
				t.Errorf("the clone has %q, want %q", got, want)
			}
			clone.v2Set("/b", "in the clone")
			clone.Stop()
			if got := e.v2Dump("/").lines(); !slices.Equal(got, want) {
				t.Errorf("etcd now has %q, had %q", got, want)
			}
		})
	}
}

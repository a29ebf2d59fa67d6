//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// v3Releases are those that have snapshots to restore.
var v3Releases = []release{etcd34, etcd35, etcd36, etcd37}

// soleCluster is the cluster that single members are restored to.
const soleCluster = "m1=http://127.0.0.1:2380"

// fullSource is a member with leases, users and roles beside its keys, a
// snapshot of it taken by us, and what it answered.
type fullSource struct {
	source
	snapshot string
	extras   []string
}

const (
	shortLease = clientv3.LeaseID(0x1234)
	longLease  = clientv3.LeaseID(0x7fff0001)
)

func newFullSource(t testing.TB, r release, flags ...string) fullSource {
	t.Helper()
	e := start(t, r, newDataDir(t), flags...)
	writeHistory(e)
	writeExtras(e)
	file := filepath.Join(t.TempDir(), "snapshot.db")
	o := lifeboat(t, "snapshot", "save", file, "--endpoints", e.client)
	if !strings.HasPrefix(o.stdout, "Snapshot saved at "+file+"\n") {
		t.Errorf("snapshot save said %q", o.stdout)
	}
	extras := readExtras(e)
	return fullSource{source: seal(e), snapshot: file, extras: extras}
}

// writeExtras makes leases with and without keys, users, roles.
func writeExtras(e *etcd) {
	e.t.Helper()
	c := e.v3()
	must := func(_ any, err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	for id, ttl := range map[clientv3.LeaseID]int64{shortLease: 1000, longLease: 100_000} {
		_, err := clientv3.RetryLeaseClient(c).LeaseGrant(callContext(e.t), &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl})
		must(nil, err)
	}
	must(c.Put(callContext(e.t), "/leased/1", "x", clientv3.WithLease(longLease)))
	must(c.RoleAdd(callContext(e.t), "reader"))
	must(c.RoleGrantPermission(callContext(e.t), "reader", "/k/", "/k0", clientv3.PermissionType(clientv3.PermRead)))
	must(c.UserAdd(callContext(e.t), "alice", "secret"))
	must(c.UserGrantRole(callContext(e.t), "alice", "reader"))
}

// readExtras lists leases with their TTLs and keys, users and roles.
func readExtras(e *etcd) []string {
	e.t.Helper()
	c := e.v3()
	var all []string
	leases, err := c.Leases(callContext(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		ttl, err := c.TimeToLive(callContext(e.t), lease.ID, clientv3.WithAttachedKeys())
		if err != nil {
			e.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("lease %x granted %d keys %q", lease.ID, ttl.GrantedTTL, ttl.Keys))
	}
	slices.Sort(all)
	user, err := c.UserGet(callContext(e.t), "alice")
	if err != nil {
		e.t.Fatal(err)
	}
	role, err := c.RoleGet(callContext(e.t), "reader")
	if err != nil {
		e.t.Fatal(err)
	}
	return append(all, fmt.Sprint("alice ", user.Roles), fmt.Sprint("reader ", role.Perm))
}

// restoreTool is what the release itself restores snapshots with.
func restoreTool(t testing.TB, r release) *exec.Cmd {
	t.Helper()
	if r == etcd34 {
		cmd := exec.Command(r.path(t, "etcdctl"))
		cmd.Env = append(cleanEnv(), "ETCDCTL_API=3")
		return cmd
	}
	cmd := exec.Command(r.path(t, "etcdutl"))
	cmd.Env = cleanEnv()
	return cmd
}

// restoredByEtcd restores with the release's own tool.
func restoredByEtcd(t testing.TB, r release, snapshot, dir string, flags ...string) {
	t.Helper()
	cmd := restoreTool(t, r)
	cmd.Args = append(cmd.Args, append([]string{"snapshot", "restore", snapshot, "--data-dir", dir}, flags...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
}

// identity are the lines of a restored log that must be the same for the same
// flags: ids, members, hard state. What the snapshot record says of the voters
// came with 3.5.
func identity(t testing.TB, dir string) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(lifeboat(t, "wal", "dump", dir).stdout) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " voters=")
		lines = append(lines, line)
	}
	return lines
}

// checkFull compares a booted restore with its source.
func (s fullSource) check(e *etcd) {
	e.t.Helper()
	s.checkServed(e)
	if diff := diffLines(readExtras(e), s.extras); diff != "" {
		e.t.Errorf("leases, users, roles:\n%s", diff)
	}
}

// A snapshot restored by us and by etcd's own tool is the same member.
func TestRestoredSnapshotIsEtcdutls(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := newFullSource(t, r)
			check := untouched(t, filepath.Dir(s.snapshot))
			root := t.TempDir()
			ours, theirs := filepath.Join(root, "ours"), filepath.Join(root, "theirs")
			flags := []string{"--name", "m1", "--initial-cluster", soleCluster, "--initial-cluster-token", "tok-1", "--initial-advertise-peer-urls", "http://127.0.0.1:2380"}
			lifeboat(t, append([]string{"snapshot", "restore", s.snapshot, "--data-dir", ours}, flags...)...)
			restoredByEtcd(t, r, s.snapshot, theirs, flags...)
			check()
			if diff := diffLines(identity(t, ours), identity(t, theirs)); diff != "" {
				t.Errorf("logs differ:\n%s", diff)
			}
			proveSame(t, r, s, ours, theirs)
		})
	}
}

// proveSame boots both dirs, compares the answers, and writes to ours.
func proveSame(t *testing.T, r release, s fullSource, ours, theirs string) {
	t.Helper()
	a, b := start(t, r, ours), start(t, r, theirs)
	s.check(a)
	if r == etcd34 {
		// Its tool deletes user keys and leaves the old members (their bug).
		b.Kill()
	} else {
		s.check(b)
		if got, want := a.soleMember(), b.soleMember(); got != want {
			t.Errorf("member %s, theirs %s", got, want)
		}
	}
	takeV3Writes(a)
	a.Kill()
	a.Plain()
	a.checkV3Writes()
	a.checkNoAlarms()
}

// takeV3Writes writes what checkV3Writes looks for.
func takeV3Writes(e *etcd) {
	e.t.Helper()
	for i := range newWrites {
		if err := e.put(fmt.Sprintf("/new/%02d", i), fmt.Sprint(i)); err != nil {
			e.t.Fatalf("write %d after the boot: %v", i, err)
		}
	}
}

// status and hashkv are byte for byte etcdutl's, in every format that it has.
func TestFiguresAreEtcdutls(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := newFullSource(t, r)
			for _, format := range []string{"simple", "fields", "json", "table"} {
				ours := lifeboat(t, "snapshot", "status", s.snapshot, "-w", format).stdout
				theirs, err := exec.Command(etcd37.path(t, "etcdutl"), "snapshot", "status", s.snapshot, "-w", format).Output()
				if err != nil {
					t.Fatal(err)
				}
				if ours != string(theirs) {
					t.Errorf("status -w %s:\n%stheirs:\n%s", format, ours, theirs)
				}
			}
			var ours struct{ Hash uint32 }
			if err := json.Unmarshal([]byte(lifeboat(t, "hashkv", s.snapshot, "-w", "json").stdout), &ours); err != nil {
				t.Fatal(err)
			}
			if ours.Hash != s.hash {
				t.Errorf("hashkv %d, the server said %d", ours.Hash, s.hash)
			}
		})
	}
}

// restorePlan is the part of restore's JSON that tests ask for.
type restorePlan struct {
	Boots   []string
	Members []struct{ Name, DataDir string }
	Keys    struct{ Hash uint32 }
}

func restored(t testing.TB, args ...string) restorePlan {
	t.Helper()
	var p restorePlan
	o := lifeboat(t, append([]string{"restore", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(o.stdout), &p); err != nil {
		t.Fatalf("%v\n%s", err, o.stdout)
	}
	return p
}

// Every release that the plan names boots the result, of a snapshot and of the
// killed data dir.
func TestRestoreBootsWhereItSays(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			full := newFullSource(t, r)
			for kind, path := range map[string]string{"snapshot": full.snapshot, "data dir": full.dir} {
				plan := restored(t, path, "--data-dir", "x", "--dry-run")
				if !slices.Contains(plan.Boots, string(r)) {
					t.Errorf("%s: boots in %v, not in its own %s", kind, plan.Boots, r)
				}
				for _, target := range plan.Boots {
					t.Run(kind+" in "+target, func(t *testing.T) {
						t.Parallel()
						check := untouched(t, path)
						dir := newDataDir(t)
						restored(t, path, "--data-dir", dir, "--initial-cluster", soleCluster, "--for", target)
						check()
						e := start(t, release(target), dir)
						full.check(e)
						takeV3Writes(e)
						e.Kill()
						e.Plain()
						e.checkV3Writes()
					})
				}
			}
		})
	}
}

// A member of three that was killed under load, with snapshots, a removed
// member, and requests that its backend has not seen.
func TestRestoreOfAMemberOfThree(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := oneOfThree(t, r, 0)
			for _, target := range restored(t, s.dir, "--data-dir", "x", "--dry-run").Boots {
				t.Run("in "+target, func(t *testing.T) {
					t.Parallel()
					dir := newDataDir(t)
					restored(t, s.dir, "--data-dir", dir, "--initial-cluster", soleCluster)
					e := start(t, release(target), dir)
					s.checkServed(e)
					if out := e.etcdctl("3", "member", "list"); strings.Count(out, "\n") != 1 {
						t.Errorf("members:\n%s", out)
					}
					takeV3Writes(e)
				})
			}
		})
	}
}

// Three dirs of one source form a cluster, ours or one of them etcdutl's.
func TestRestoredMembersFormACluster(t *testing.T) {
	for _, r := range v3Releases {
		for _, from := range []string{"snapshot", "data dir", "snapshot, one by etcdutl"} {
			if r == etcd34 && strings.HasSuffix(from, "etcdutl") {
				continue // its tool changes the keys
			}
			t.Run(string(r)+" "+from, func(t *testing.T) {
				t.Parallel()
				s := newFullSource(t, r)
				path := s.snapshot
				if from == "data dir" {
					path = s.dir
				}
				members := newMembers(t, r, 3, nil)
				root := filepath.Dir(members[0].dir)
				if strings.HasSuffix(from, "etcdutl") {
					restoredByEtcd(t, r, path, members[2].dir, "--name", "m3", "--initial-cluster", members[0].cluster,
						"--initial-advertise-peer-urls", members[2].peer)
					for _, m := range members[:2] {
						lifeboat(t, "snapshot", "restore", path, "--data-dir", m.dir, "--name", m.name,
							"--initial-cluster", m.cluster, "--initial-advertise-peer-urls", m.peer)
					}
				} else {
					restored(t, path, "--data-dir", filepath.Join(root, "{name}"), "--initial-cluster", members[0].cluster)
					mustHoldOnly(t, root, "m1", "m2", "m3")
				}
				if err := bootAll(members); err != nil {
					t.Fatal(err)
				}
				proveCluster(t, s, members)
			})
		}
	}
}

// proveCluster reads from every member, and writes with one of three gone.
func proveCluster(t *testing.T, s fullSource, members []*etcd) {
	t.Helper()
	for _, m := range members {
		s.check(m)
		if out := m.etcdctl("3", "member", "list"); strings.Count(out, "started") != 3 {
			t.Errorf("members:\n%s", out)
		}
	}
	members[0].Kill()
	persist(t, "a write with two of three", func() error { return members[1].put("/new/one", "1") })
	if err := members[0].Restart(); err != nil {
		t.Fatal(err)
	}
	if got := members[0].hashKV(0); got != members[2].hashKV(0) {
		t.Errorf("members differ: %d and %d", got, members[2].hashKV(0))
	}
}

// After a bump every old revision is compacted, as with etcdutl, and the next
// write comes after it.
func TestBumpedRevision(t *testing.T) {
	for _, r := range []release{etcd35, etcd36, etcd37} {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			s := newFullSource(t, r)
			ours, better, theirs := newDataDir(t), newDataDir(t), newDataDir(t)
			bump := []string{"--bump-revision", "1000", "--mark-compacted"}
			lifeboat(t, append([]string{"snapshot", "restore", s.snapshot, "--data-dir", ours}, bump...)...)
			restored(t, s.snapshot, "--data-dir", better, "--bump-revision", "1000")
			restoredByEtcd(t, r, s.snapshot, theirs, bump...)
			var want string
			for _, dir := range []string{theirs, ours, better} {
				e := start(t, r, dir)
				got := watchOld(e)
				if want == "" {
					want = got
				}
				if got != want {
					t.Errorf("%s: %s, theirs: %s", dir, got, want)
				}
				e.Kill()
			}
			if !strings.Contains(want, rpctypes.ErrCompacted.Error()) {
				t.Errorf("the watch ended with %s", want)
			}
		})
	}
}

// watchOld says how a watch from an old revision ends, and the revision of the
// next write.
func watchOld(e *etcd) string {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(e.t.Context(), callTimeout)
	defer cancel()
	var got error = errors.New("no answer")
	for resp := range e.v3().Watch(ctx, "/k/1", clientv3.WithRev(50)) {
		got = resp.Err()
		break
	}
	put, err := e.v3().Put(callContext(e.t), "/k/1", "new")
	if err != nil {
		e.t.Fatal(err)
	}
	return fmt.Sprintf("%v, compacted, next revision %d", got, put.Header.Revision)
}

// A running member's backend is refused, whatever it is called by.
func TestRestoreOfARunningMemberIsRefused(t *testing.T) {
	t.Parallel()
	e := start(t, etcd37, newDataDir(t))
	for _, path := range []string{e.dir, filepath.Join(e.dir, "member/snap/db")} {
		dir := newDataDir(t)
		o := finish(t, lifeboatCommand("restore", path, "--data-dir", dir))
		if o.code != 1 || !strings.Contains(o.stderr, "etcd is running on it") {
			t.Errorf("%s: exit %d\n%s", path, o.code, o.stderr)
		}
		mustHoldOnly(t, filepath.Dir(dir))
	}
}

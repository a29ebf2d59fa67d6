//go:build e2e

package server_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

// everything is what a server holds for clients of v2.
func everything(t *testing.T, url string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range []string{"/v2/keys/?recursive=true&sorted=true", "/v2/keys/_hidden?recursive=true", "/v2/auth/users", "/v2/auth/roles", "/v2/auth/enable"} {
		body := must(t)(fetch(url + path))
		b.WriteString(withoutTTL(t, withoutIndex(body)) + "\n")
	}
	return b.String()
}

// withoutIndex drops the store's index from an error: each boot raises it.
func withoutIndex(body string) string {
	before, _, ok := strings.Cut(body, `,"index":`)
	if !ok {
		return body
	}
	return before + "}"
}

func put(t *testing.T, url, key, value string) {
	t.Helper()
	req, err := http.NewRequest("PUT", url+"/v2/keys"+key+"?value="+value, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("PUT %s%s: %s", url, key, resp.Status)
	}
}

// stay is a server on a dir between two moves.
type stay struct {
	url   string
	leave func()
}

func withEtcd(t *testing.T, dir string) stay {
	e := startEtcd(t, dir)
	return stay{e.url, func() { e.stop(t) }}
}

func withEtcdKilled(t *testing.T, dir string) stay {
	e := startEtcd(t, dir, "--snapshot-count", "10")
	return stay{e.url, func() { e.kill(t) }}
}

func withOurs(t *testing.T, dir string) stay {
	url, s := serve(t, dir, server.Options{})
	return stay{url, func() { closeServer(t, s) }}
}

func withOursAndSnapshots(t *testing.T, dir string) stay {
	url, s := serve(t, dir, server.Options{SnapshotCount: 10})
	return stay{url, func() { closeServer(t, s) }}
}

// TestDirsMoveBetweenEtcdAndUs passes a dir to and fro; what one wrote, the
// next must show.
func TestDirsMoveBetweenEtcdAndUs(t *testing.T) {
	fresh := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "new")
		if err := server.Create(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	sources := map[string]func(t *testing.T) string{"new": fresh, "new by etcd": seed}
	for _, name := range []string{"2.3.7", "2.3.7-cluster", "3.4.23-mixed"} {
		sources[name] = func(t *testing.T) string { return fixture.DataDir(t, name) }
	}
	routes := map[string][]func(*testing.T, string) stay{
		"plain":     {withOurs, withEtcd, withOurs, withEtcd},
		"snapshots": {withOursAndSnapshots, withEtcdKilled, withOursAndSnapshots, withEtcd, withOurs},
	}
	for source, make := range sources {
		for route, stays := range routes {
			t.Run(source+" "+route, func(t *testing.T) {
				dir := make(t)
				want := ""
				for i, with := range stays {
					s := with(t, dir)
					if got := everything(t, s.url); want != "" && got != want {
						t.Fatalf("stay %d shows\n%s\nthe one before had\n%s", i, got, want)
					}
					for n := range 25 {
						put(t, s.url, fmt.Sprintf("/moved/%d/%d", i, n), "x")
					}
					want = everything(t, s.url)
					s.leave()
				}
			})
		}
	}
}

// kv asks an etcd for its v3 keys.
func kv(t *testing.T, e *etcd, args ...string) string {
	t.Helper()
	cmd := exec.Command("etcdctl", append([]string{"--endpoints", e.url}, args...)...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("etcdctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

type v3Keys struct {
	Header struct{ Revision int64 }
	Kvs    []map[string]any
}

func parseV3(t *testing.T, body string) v3Keys {
	t.Helper()
	var v v3Keys
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	for _, kv := range v.Kvs {
		delete(kv, "lease") // those run out while etcd runs
	}
	return v
}

// TestV3KeysOutliveUs serves the v2 half of a mixed dir, with snapshots, and
// wants the v3 half unchanged afterwards, whether the backend had seen all of
// the log or none.
func TestV3KeysOutliveUs(t *testing.T) {
	for _, backend := range []string{"kept", "lost"} {
		t.Run("backend "+backend, func(t *testing.T) {
			dir := fixture.DataDir(t, "3.4.23-mixed")
			member := filepath.Join(dir, "member", "snap")
			if backend == "lost" { // then all must come from the log
				if err := os.RemoveAll(member); err != nil {
					t.Fatal(err)
				}
			}
			s := withOursAndSnapshots(t, dir)
			for n := range 60 {
				put(t, s.url, "/ours", fmt.Sprint(n))
			}
			s.leave()
			e := startEtcd(t, dir)
			got := parseV3(t, kv(t, e, "get", "", "--prefix", "-w", "json"))
			want := parseV3(t, readFile(t, filepath.Dir(dir), "expected-v3.json"))
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			for n := range 30 { // none may vanish for an index already seen
				kv(t, e, "put", fmt.Sprint("/after/", n), "x")
			}
			after := parseV3(t, kv(t, e, "get", "/after", "--prefix", "-w", "json"))
			if len(after.Kvs) != 30 {
				t.Errorf("%d of 30 puts after our stay are there", len(after.Kvs))
			}
			if value := must(t)(fetch(e.url + "/v2/keys/ours")); !strings.Contains(value, `"value":"59"`) {
				t.Errorf("the last v2 write: %s", value)
			}
		})
	}
}

// TestEtcdBootsWhatWeWereKilledOn kills our server and gives its dir to etcd.
func TestEtcdBootsWhatWeWereKilledOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := server.Create(dir); err != nil {
		t.Fatal(err)
	}
	acked := killUnderWrites(t, dir, "/killed")
	e := startEtcd(t, dir)
	for _, key := range acked {
		if got := must(t)(fetch(e.url + "/v2/keys" + key)); !strings.Contains(got, fmt.Sprintf(`"value":%q`, key)) {
			t.Errorf("%s was acknowledged: %s", key, got)
		}
	}
	if len(acked) < 50 {
		t.Errorf("only %d writes were acknowledged", len(acked))
	}
}

// TestTakenOverAsForceNewCluster compares what becomes of one member of three.
func TestTakenOverAsForceNewCluster(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7-cluster")
	giveBackend(t, filepath.Join(dir, "member", "snap", "db"), 0x192) // etcd 3.4 wants one beside a snapshot
	clone := filepath.Join(t.TempDir(), "clone")
	copyDir(t, dir, clone)
	e := startEtcd(t, dir, "--force-new-cluster")
	url, _ := serve(t, clone, server.Options{Name: "m1"})
	if want, got := everything(t, e.url), everything(t, url); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	wait(t, "both stores to have the same index", func() bool { return storeIndex(t, e.url) == storeIndex(t, url) })
	want := members(t, must(t)(fetch(e.url+"/v2/members"))).Members
	got := members(t, must(t)(fetch(url+"/v2/members"))).Members
	if len(want) != 1 || len(got) != 1 || want[0].ID != got[0].ID || want[0].Name != got[0].Name ||
		!reflect.DeepEqual(want[0].PeerURLs, got[0].PeerURLs) {
		t.Errorf("members %v, want %v", got, want)
	}
}

func giveBackend(t *testing.T, name string, consistentIndex uint64) {
	t.Helper()
	db, err := bolt.Open(name, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return meta.Put([]byte("consistent_index"), binary.BigEndian.AppendUint64(nil, consistentIndex))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestBackupOfEtcdctlBoots boots what etcdctl 3.4 makes of a dir. The etcd must
// be stopped: etcdctl waits for the backend's lock.
func TestBackupOfEtcdctlBoots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	e := startEtcd(t, dir, "--snapshot-count", "20")
	for n := range 50 {
		put(t, e.url, fmt.Sprint("/k/", n), "x")
	}
	want := everything(t, e.url)
	e.stop(t)
	for _, flags := range [][]string{nil, {"--with-v3"}} {
		backup := filepath.Join(t.TempDir(), "backup")
		cmd := exec.Command("etcdctl", append([]string{"backup", "--data-dir", dir, "--backup-dir", backup}, flags...)...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=2")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		url, s := serve(t, backup, server.Options{})
		if got := everything(t, url); got != want {
			t.Errorf("%v: got\n%s\nwant\n%s", flags, got, want)
		}
		if boot := s.Status().Boot; boot.Dropped != 0 {
			t.Errorf("%v: dropped %d entries", flags, boot.Dropped)
		}
	}
}

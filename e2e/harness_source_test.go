//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// source is a data dir and what its etcd answered before it was killed.
type source struct {
	dir  string
	v2   []string          // lines of the tree; nil without v2 data
	kept map[string]string // more answers: files by the path that was asked for
	v3   []string          // lines of the dump; nil without v3 data
	hash uint32            // hashkv of the newest revision; with v3 only
}

// fixtureSource unpacks a fixture.
func fixtureSource(t testing.TB, name string) source {
	t.Helper()
	dir := fixture.Unpack(t, name)
	switch name {
	case "2.3.7":
		return source{
			dir:  filepath.Join(dir, "data"),
			v2:   readV2Dump(t, filepath.Join(dir, "expected.json")).lines(),
			kept: map[string]string{"/v2/keys/_hidden?recursive=true&sorted=true": filepath.Join(dir, "expected-hidden.json")},
		}
	case "2.3.7-cluster":
		return source{
			dir: filepath.Join(dir, "m1"),
			v2:  readV2Dump(t, filepath.Join(dir, "expected.json")).lines(),
			// users.json has a role that the log's last entry grants; this
			// member never learned that the others had committed it.
			kept: map[string]string{
				"/v2/auth/roles": filepath.Join(dir, "roles.json"),
				"/v2/auth/users": filepath.Join(dir, "users.json"),
			},
		}
	}
	s := source{
		dir:  filepath.Join(dir, "data"),
		v3:   readV3Dump(t, filepath.Join(dir, "expected-v3.json")).lines(),
		hash: readHash(t, filepath.Join(dir, "hashkv.json")),
	}
	if name == "3.4.23-mixed" {
		s.v2 = readV2Dump(t, filepath.Join(dir, "expected-v2.json")).lines()
	}
	return s
}

// readHash reads what `etcdctl endpoint hashkv -w json` printed.
func readHash(t testing.TB, path string) uint32 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var answers []struct{ HashKV struct{ Hash uint32 } }
	if err := json.Unmarshal(data, &answers); err != nil || len(answers) != 1 {
		t.Fatalf("%s: %v answers, %v", path, len(answers), err)
	}
	return answers[0].HashKV.Hash
}

// seal ends the etcd with SIGKILL and keeps what it answered. Its last writes
// are then in the log, but perhaps not in a commit on disk.
func seal(e *etcd) source {
	e.t.Helper()
	s := source{dir: e.dir, v3: e.v3Dump().lines(), hash: e.hashKV(0)}
	e.Kill()
	return s
}

// oneMember makes the data dir of a single member with v3 data. With flags
// such as --snapshot-count it holds snapshots too.
func oneMember(t testing.TB, r release, flags ...string) source {
	t.Helper()
	e := start(t, r, newDataDir(t), flags...)
	writeHistory(e)
	return seal(e)
}

// oneOfThree makes the data dir of member m1 of three, with snapshots. While
// it ran, m3 was removed, that long before the last writes.
func oneOfThree(t testing.TB, r release, settle time.Duration) source {
	t.Helper()
	members := startCluster(t, r, 3, "--snapshot-count", "50")
	writeHistory(members[0])
	removeMember(members[0], "m3")
	members[2].Kill()
	time.Sleep(settle)
	persist(t, "a put after the removal", func() error { return members[0].put("/after", "removal") })
	s := seal(members[0])
	members[1].Kill()
	return s
}

// removeMember waits out the five seconds for which a young cluster refuses.
func removeMember(e *etcd, name string) {
	e.t.Helper()
	id := memberID(e, name)
	persist(e.t, "remove "+name, func() error {
		_, err := e.v3().MemberRemove(callContext(e.t), id)
		return err
	})
}

// persist repeats what a cluster may refuse for a while.
func persist(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for range 100 {
		if err = try(); err == nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

func memberID(e *etcd, name string) uint64 {
	e.t.Helper()
	resp, err := e.v3().MemberList(callContext(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range resp.Members {
		if m.Name == name {
			return m.ID
		}
	}
	e.t.Fatalf("no member %s", name)
	return 0
}

// writeHistory makes v3 puts, a delete, a compaction, a txn and later puts.
func writeHistory(e *etcd) {
	e.t.Helper()
	c := e.v3()
	must := func(_ any, err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	for i := range 120 {
		must(c.Put(callContext(e.t), fmt.Sprintf("/k/%d", i%37), fmt.Sprint(i)))
	}
	must(c.Delete(callContext(e.t), "/k/3"))
	must(c.Compact(callContext(e.t), 40))
	must(c.Txn(callContext(e.t)).
		If(clientv3.Compare(clientv3.Version("/k/1"), ">", 0)).
		Then(clientv3.OpPut("/t/1", "a"), clientv3.OpPut("/t/2", "b")).Commit())
	for i := range 5 {
		must(c.Put(callContext(e.t), fmt.Sprintf("/late/%d", i), "v"))
	}
}

// prove boots a backup as the only member of a new cluster. It must serve what
// the source held, under new ids and without the old members, take writes at
// once, and still hold them after SIGKILL and a plain restart.
// The etcd gets the flags both times.
func (s source) prove(t testing.TB, r release, dir string, flags ...string) {
	t.Helper()
	e := start(t, r, dir, append([]string{"--force-new-cluster"}, flags...)...)
	s.checkServed(e)
	self := e.soleMember()
	e.checkNoAlarms()
	takeWrites(e)
	e.settle()
	e.Kill()
	e.Plain(flags...)
	checkWrites(e)
	if again := e.soleMember(); again != self {
		t.Errorf("after a restart the member is %s, before %s", again, self)
	}
	e.Kill()
}

// checkServed compares what the etcd serves with what the source held.
func (s source) checkServed(e *etcd) {
	e.t.Helper()
	if s.v2 != nil {
		if diff := diffLines(e.v2Dump("/").lines(), s.v2); diff != "" {
			e.t.Errorf("v2 keys:\n%s", diff)
		}
	}
	for path, file := range s.kept {
		e.checkAnswer(path, file)
	}
	if s.v3 == nil {
		return
	}
	if diff := diffLines(e.v3Dump().lines(), s.v3); diff != "" {
		e.t.Errorf("v3 keys:\n%s", diff)
	}
	if hash := e.hashKV(0); hash != s.hash {
		e.t.Errorf("hashkv %d, want %d", hash, s.hash)
	}
}

// checkAnswer compares the answer to a GET with the one in the file, as JSON.
func (e *etcd) checkAnswer(path, file string) {
	e.t.Helper()
	resp, err := http.Get(e.client + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	kept, err := os.ReadFile(file)
	if err != nil {
		e.t.Fatal(err)
	}
	var got, want any
	if err := errors.Join(json.NewDecoder(resp.Body).Decode(&got), json.Unmarshal(kept, &want)); err != nil {
		e.t.Fatalf("%s: %v", path, err)
	}
	if !reflect.DeepEqual(got, want) {
		e.t.Errorf("%s: %v, want %v", path, got, want)
	}
}

// soleMember is the id of the only member, by every way to ask for members.
func (e *etcd) soleMember() string {
	e.t.Helper()
	var self string
	if e.release.hasV3() {
		self = e.soleV3Member()
	}
	if e.release.hasV2() {
		id := e.soleV2Member()
		if self != "" && self != id {
			e.t.Errorf("the member is %s by the v3 API, %s by the v2 API", self, id)
		}
		self = id
	}
	return self
}

func (e *etcd) soleV3Member() string {
	e.t.Helper()
	resp, err := e.v3().MemberList(callContext(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	if len(resp.Members) != 1 || resp.Members[0].ID != resp.Header.MemberId {
		e.t.Errorf("member %x of cluster %x has these members: %v", resp.Header.MemberId, resp.Header.ClusterId, resp.Members)
	}
	self := fmt.Sprintf("%x", resp.Header.MemberId)
	if out := e.etcdctl("3", "member", "list"); strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, self+", started,") {
		e.t.Errorf("etcdctl member list:\n%s", out)
	}
	return self
}

func (e *etcd) soleV2Member() string {
	e.t.Helper()
	resp, err := http.Get(e.client + "/v2/members")
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Members []struct{ ID string } }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		e.t.Fatal(err)
	}
	if len(list.Members) != 1 {
		e.t.Fatalf("v2 members %v, want one", list.Members)
	}
	return list.Members[0].ID
}

const newWrites = 20

// takeWrites writes through every API that the etcd has.
func takeWrites(e *etcd) {
	e.t.Helper()
	for i := range newWrites {
		key, value := fmt.Sprintf("/new/%02d", i), fmt.Sprint(i)
		if e.release.hasV2() {
			e.v2Set(key, value)
		}
		if !e.release.hasV3() {
			continue
		}
		if err := e.put(key, value); err != nil {
			e.t.Fatalf("write %d after the boot: %v", i, err)
		}
	}
}

// checkWrites looks for what [takeWrites] wrote.
func checkWrites(e *etcd) {
	e.t.Helper()
	if e.release.hasV2() {
		e.checkV2Writes()
	}
	if e.release.hasV3() {
		e.checkV3Writes()
	}
}

func (e *etcd) checkV3Writes() {
	e.t.Helper()
	resp, err := e.v3().Get(callContext(e.t), "/new/", clientv3.WithPrefix())
	if err != nil {
		e.t.Fatal(err)
	}
	var got, want []string
	for _, kv := range resp.Kvs {
		got = append(got, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
	}
	for i := range newWrites {
		want = append(want, fmt.Sprintf("/new/%02d=%d", i, i))
	}
	if diff := diffLines(got, want); diff != "" {
		e.t.Errorf("v3 writes after a restart:\n%s", diff)
	}
}

func (e *etcd) checkV2Writes() {
	e.t.Helper()
	resp, err := e.v2(http.MethodGet, "/new", url.Values{"sorted": {"true"}}, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if len(resp.Node.Nodes) != newWrites {
		e.t.Errorf("v2 writes after a restart: %v", resp.Node.lines())
	}
}

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// callTimeout is what one call of the v3 API may take.
const callTimeout = 10 * time.Second

// v3 is the connection to the etcd, made on first use; it ends with the test.
func (e *etcd) v3() *clientv3.Client {
	e.t.Helper()
	if e.conn != nil {
		return e.conn
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.client}, DialTimeout: callTimeout, Logger: zap.NewNop()})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	e.conn = c
	return c
}

func callContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	t.Cleanup(cancel)
	return ctx
}

// v3Pair is a key with everything that etcd keeps for it, as etcdctl prints it
// with -w json.
type v3Pair struct {
	Key            []byte `json:"key"`
	Value          []byte `json:"value"`
	CreateRevision int64  `json:"create_revision"`
	ModRevision    int64  `json:"mod_revision"`
	Version        int64  `json:"version"`
	Lease          int64  `json:"lease"`
}

// v3Dump is every key at a revision.
type v3Dump struct {
	Header struct {
		Revision int64 `json:"revision"`
	} `json:"header"`
	Pairs []v3Pair `json:"kvs"`
}

// v3Dump reads every key, by a linearizable read.
func (e *etcd) v3Dump() v3Dump {
	e.t.Helper()
	resp, err := e.v3().Get(callContext(e.t), "", clientv3.WithPrefix())
	if err != nil {
		e.t.Fatalf("read every key: %v", err)
	}
	var d v3Dump
	d.Header.Revision = resp.Header.Revision
	for _, kv := range resp.Kvs {
		d.Pairs = append(d.Pairs, v3Pair{kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease})
	}
	return d
}

// readV3Dump reads a dump kept as `etcdctl get "" --prefix -w json`.
func readV3Dump(t testing.TB, path string) v3Dump {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d v3Dump
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return d
}

// lines is the dump as its revision and one line a key.
func (d v3Dump) lines() []string {
	all := []string{fmt.Sprintf("revision %d", d.Header.Revision)}
	for _, p := range d.Pairs {
		all = append(all, fmt.Sprintf("%q create=%d mod=%d version=%d lease=%x %q",
			p.Key, p.CreateRevision, p.ModRevision, p.Version, p.Lease, p.Value))
	}
	return all
}

// hashKV is the etcd's hash of its keys up to the revision; 0 is the newest.
func (e *etcd) hashKV(revision int64) uint32 {
	e.t.Helper()
	resp, err := e.v3().HashKV(callContext(e.t), e.client, revision)
	if err != nil {
		e.t.Fatalf("hashkv at %d: %v", revision, err)
	}
	return resp.Hash
}

// put writes a v3 key, or says why the etcd did not take it.
func (e *etcd) put(key, value string) error {
	e.t.Helper()
	_, err := e.v3().Put(callContext(e.t), key, value)
	return err
}

// checkNoAlarms fails the test if the etcd has raised any.
func (e *etcd) checkNoAlarms() {
	e.t.Helper()
	if !e.release.hasV3() {
		return
	}
	resp, err := e.v3().AlarmList(callContext(e.t))
	if err != nil {
		e.t.Fatal(err)
	}
	if len(resp.Alarms) > 0 {
		e.t.Errorf("alarms %v", resp.Alarms)
	}
}

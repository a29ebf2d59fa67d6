package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// storyV3 is the quickstart from the first key to the last comparison.
func storyV3(s *shell) error {
	fmt.Fprintf(s.env.Stdout, "$ cd %s\n", s.dir)
	before, err := saveV3(s)
	if err != nil {
		return err
	}
	if err := wreck(s); err != nil {
		return err
	}
	return bringBackV3(s, before)
}

// saveV3 fills a new etcd, saves it while it runs, and returns what it then held.
func saveV3(s *shell) ([]*mvccpb.KeyValue, error) {
	s.say("An etcd of our own, on a port that the kernel picks.")
	if err := s.serve("lifeboat serve --data-dir etcd --create --v3 --listen 127.0.0.1:0"); err != nil {
		return nil, err
	}
	s.say("Keys as programs write them: put, changed, in transactions, with a lease, deleted, compacted.")
	written, err := s.withClient(fillV3)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(s.env.Stdout, "%d keys are there\n", len(written))
	s.say("A key pair: the machine that backs up gets the public key alone, and can't read its backups.")
	if err := s.run("lifeboat keygen key.txt | tee recipient.txt"); err != nil {
		return nil, err
	}
	s.say("A repository in a directory (or s3://bucket/prefix), and the first backup in it.")
	if err := s.run("lifeboat init --repo repo"); err != nil {
		return nil, err
	}
	return written, s.run(`lifeboat save --repo repo --cluster demo --recipients-file recipient.txt`)
}

// wreck stops the server and makes sure that what is left does not boot.
func wreck(s *shell) error {
	s.say("An accident: the disk gave the backend back as noise.")
	if err := s.kill(); err != nil {
		return err
	}
	if err := s.run("head -c 100000 /dev/urandom > etcd/member/snap/db"); err != nil {
		return err
	}
	return s.refused("lifeboat serve --data-dir etcd --listen 127.0.0.1:0")
}

// bringBackV3 verifies the backup, restores it, boots that and compares.
func bringBackV3(s *shell, before []*mvccpb.KeyValue) error {
	s.say("Is the backup good? A copy of it is booted, written to, and thrown away; the proof stays with the backup.")
	for _, line := range []string{
		"lifeboat verify --repo repo latest --level boot --identity key.txt",
		"lifeboat list --repo repo",
	} {
		if err := s.run(line); err != nil {
			return err
		}
	}
	s.say("Then restore it, and start etcd on what came back.")
	if err := s.run("lifeboat restore --repo repo latest --data-dir restored --identity key.txt"); err != nil {
		return err
	}
	if err := s.serve("lifeboat serve --data-dir restored --listen 127.0.0.1:0"); err != nil {
		return err
	}
	after, err := s.withClient(readV3)
	if err != nil {
		return err
	}
	if err := sameKeys(before, after); err != nil {
		return err
	}
	s.say(fmt.Sprintf("Compared with the first etcd: all %d keys are there, with the same values, leases,\n"+
		"# versions, created and modified revisions.", len(before)))
	return s.kill()
}

// withClient does something through the server's v3 API.
func (s *shell) withClient(do func(context.Context, *clientv3.Client) ([]*mvccpb.KeyValue, error)) ([]*mvccpb.KeyValue, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.url}, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	kvs, err := do(s.ctx, client)
	return kvs, errors.Join(err, client.Close())
}

const (
	demoKeys  = 1000
	demoLease = 24 * time.Hour

	settleTimeout = 30 * time.Second
	settlePoll    = 50 * time.Millisecond
)

// fillV3 writes keys, and reads what is there then.
func fillV3(ctx context.Context, c *clientv3.Client) ([]*mvccpb.KeyValue, error) {
	lease, err := c.Grant(ctx, int64(demoLease.Seconds()))
	if err != nil {
		return nil, err
	}
	var ops []clientv3.Op
	for i := range demoKeys {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/web/%04d", i), fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)))
	}
	ops = append(ops,
		clientv3.OpPut("/config/motd", "Ahoi, schöne neue Welt"),
		clientv3.OpPut("/lock/deploy", "anna", clientv3.WithLease(lease.ID)))
	for batch := range slices.Chunk(ops, 100) {
		if _, err := c.Txn(ctx).Then(batch...).Commit(); err != nil {
			return nil, err
		}
	}
	for i := range 50 {
		if _, err := c.Put(ctx, fmt.Sprintf("/services/web/%04d", i*7), "changed"); err != nil {
			return nil, err
		}
	}
	changed, err := c.Delete(ctx, "/services/web/09", clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	if _, err := c.Compact(ctx, changed.Header.Revision-20); err != nil {
		return nil, err
	}
	if err := settled(ctx, c); err != nil {
		return nil, err
	}
	return readV3(ctx, c)
}

// settled waits until etcd has noted its storage version, which a new one does
// some time after it listens: what is saved before counts as an older etcd's.
func settled(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		status, err := c.Status(ctx, c.Endpoints()[0])
		if err != nil || release(status.StorageVersion) == release(status.Version) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd %s keeps storage version %s: %w", status.Version, status.StorageVersion, ctx.Err())
		case <-time.After(settlePoll):
		}
	}
}

// release is a version without its patch.
func release(version string) string {
	return version[:max(strings.LastIndex(version, "."), 0)]
}

func readV3(ctx context.Context, c *clientv3.Client) ([]*mvccpb.KeyValue, error) {
	got, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	return got.Kvs, nil
}

// sameKeys says where two readings differ, if they do.
func sameKeys(before, after []*mvccpb.KeyValue) error {
	held := map[string]*mvccpb.KeyValue{}
	for _, kv := range after {
		held[string(kv.Key)] = kv
	}
	for _, kv := range before {
		got, ok := held[string(kv.Key)]
		if !ok {
			return fmt.Errorf("%s: is missing", kv.Key)
		}
		if !proto.Equal(got, kv) {
			return fmt.Errorf("%s: is %v, and was %v", kv.Key, got, kv)
		}
		delete(held, string(kv.Key))
	}
	for key := range held {
		return fmt.Errorf("%s: was not there before", key)
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The repositories of [services].
const (
	repoDir = "repo-dir"
	repoS3  = "repo-s3"
)

// repositoryRows take the snapshot from a running etcd, compress it with zstd
// and encrypt it with age, into a directory and into a bucket, and restore it
// from there. Beside them the same by hand, with etcdctl, zstd, age and curl. By
// hand nobody asks the member for the hash of its keys, which takes it seconds.
func repositoryRows() []row {
	live := row{data: snapshotFile, part: snapshotName, budget: budget{ofPeer: 1.2}, memory: oursMemory, setup: startServices}
	of := func(name, work string, ours, peer contender) row {
		r := live
		r.name, r.work, r.ours, r.peer = name, work, ours, peer
		return r
	}
	rows := []row{
		of("save-dir", "save it from a running etcd to a directory, zstd + age", saveTo(repoDir), byHand("etcdctl, zstd | age", saveByHand)),
		of("restore-dir", "restore it from there", restoreFrom(repoDir), byHand("age | zstd, etcdutl", restoreByHand)),
		of("save-s3", "save it to S3 on loopback, zstd + age", saveTo(repoS3), byHand("etcdctl, zstd | age, curl", saveByHand+` && `+putByHand)),
		of("restore-s3", "restore it from there", restoreFrom(repoS3), byHand("curl, age | zstd, etcdutl", getByHand+` && `+restoreByHand)),
	}
	rows[0].check = checkStored
	return rows
}

func saveTo(name string) contender {
	return contender{name: "lifeboat save", env: s3Env, argv: func(p paths) []string {
		s := p.services
		return []string{p.lifeboat, "save", "--repo", s.repo(name), "--cluster", "bench", "--endpoints", s.endpoint, "--recipient", s.recipient}
	}}
}

func restoreFrom(name string) contender {
	return contender{name: "lifeboat restore", env: s3Env, argv: func(p paths) []string {
		s := p.services
		return []string{p.lifeboat, "restore", "--repo", s.repo(name), "--identity", s.file("key.txt"), "--data-dir", p.out}
	}}
}

// What an operator does without lifeboat, as shell lines in the folder of the
// services. zstd may use both cores; what is stored is synced, as ours is.
const (
	saveByHand = `rm -f hand/snap.db && "$ETCD37/etcdctl" snapshot save hand/snap.db --endpoints "$ENDPOINT" >/dev/null 2>&1 &&
		zstd -q -T0 -c hand/snap.db | "$AGE" -r "$RECIPIENT" > hand/db.zst.age && sync hand/db.zst.age`
	restoreByHand = `"$AGE" -d -i key.txt hand/db.zst.age | zstd -q -d -f -o hand/back.db &&
		"$ETCD37/etcdutl" snapshot restore hand/back.db --data-dir "$OUT" >/dev/null 2>&1`
	putByHand = `curl -sS --fail --aws-sigv4 "aws:amz:$REGION:s3" --user "$S3USER" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -T hand/db.zst.age "$OBJECT"`
	getByHand = `curl -sS --fail --aws-sigv4 "aws:amz:$REGION:s3" --user "$S3USER" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -o hand/db.zst.age "$OBJECT"`
)

// byHand runs shell lines with what they need in their environment.
func byHand(name, lines string) contender {
	return contender{name: name, missing: "the shell", argv: func(p paths) []string {
		s := p.services
		if s == nil {
			return []string{"sh"}
		}
		return []string{
			"env", "-C", s.dir, "ETCD37=" + p.etcd37, "AGE=" + p.age, "ENDPOINT=" + s.endpoint, "RECIPIENT=" + s.recipient, "OUT=" + p.out,
			"REGION=" + s3Region, "S3USER=" + s3Key + ":" + s3Secret, "OBJECT=" + s.s3URL + "/" + s3Bucket + "/by-hand",
			"bash", "-euo", "pipefail", "-c", lines,
		}
	}}
}

// checkStored tells what a backup takes in the repository, beside one made by
// hand.
func checkStored(_ context.Context, r *runner, _ row) error {
	var ours, backups int64
	err := filepath.WalkDir(r.paths.services.repo(repoDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasPrefix(d.Name(), "db.zst") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			ours, backups = ours+info.Size(), backups+1
		}
		return err
	})
	if err != nil {
		return err
	}
	hand, err := os.Stat(r.paths.services.file("hand/db.zst.age"))
	if err != nil {
		return err
	}
	if backups == 0 || ours/backups < hand.Size()/10 {
		return fmt.Errorf("%d backups take %s: that can't be all", backups, size(ours))
	}
	fmt.Fprintf(r.talk, "stored: ours %s, by hand %s\n", size(ours/backups), size(hand.Size()))
	return nil
}

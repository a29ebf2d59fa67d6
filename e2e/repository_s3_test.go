//go:build e2e

package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
)

// onS3 prepares a run of lifeboat that may use the server.
func onS3(s *s3server.Server, args ...string) *exec.Cmd {
	cmd := lifeboatCommand(args...)
	cmd.Env = append(cmd.Env, s.Env()...)
	return cmd
}

func s3Repo(s *s3server.Server, options string) string {
	return fmt.Sprintf("s3://%s/etcd?endpoint=%s&region=%s&path-style=true%s", s3server.Bucket, s.Endpoint(), s3server.Region, options)
}

// mustRun runs a command that must end well.
func mustRun(t testing.TB, cmd *exec.Cmd) outcome {
	t.Helper()
	o := finish(t, cmd)
	if o.code != 0 {
		t.Fatalf("%v: exit %d\n%s%s", cmd.Args[1:], o.code, o.stdout, o.stderr)
	}
	return o
}

// The whole story of a repository in a bucket, encrypted.
func TestRepositoryOnS3(t *testing.T) {
	s := s3server.Start(t, s3server.Options{TLS: true})
	repo := s3Repo(s, "&ca-file="+s.CAFile())
	e := filledEtcd(t, etcd36, 12)
	dir := t.TempDir()
	key := filepath.Join(dir, "key.txt")
	recipient := strings.TrimSpace(lifeboat(t, "keygen", key).stdout)
	mustRun(t, onS3(s, "init", "--repo", repo))
	mustRun(t, onS3(s, "check", "--repo", repo, "--endpoints", e.client))
	mustRun(t, onS3(s, "save", "--repo", repo, "--cluster", "c", "--endpoints", e.client, "--recipient", recipient))
	mustRun(t, onS3(s, "verify", "--repo", repo, "--identity", key))
	mustRun(t, onS3(s, "list", "--repo", repo, "--max-age", "1h"))
	before := e.v3Dump()
	e.Kill()
	data := filepath.Join(dir, "data")
	mustRun(t, onS3(s, "restore", "--repo", repo, "--identity", key, "--data-dir", data))
	back := start(t, etcd36, data)
	if diff := diffLines(back.v3Dump().lines(), before.lines()); diff != "" {
		t.Error(diff)
	}

	wrong := onS3(s, "list", "--repo", repo)
	wrong.Env = append(wrong.Env, "AWS_SECRET_ACCESS_KEY=wrong")
	if o := finish(t, wrong); o.code != 1 || !strings.Contains(o.stderr, "key") {
		t.Errorf("a wrong secret key: exit %d\n%s", o.code, o.stderr)
	}
	if o := finish(t, onS3(s, "list", "--repo", strings.Replace(repo, s3server.Bucket, "backsup", 1))); o.code != 1 || !strings.Contains(o.stderr, "backsup") {
		t.Errorf("a mistyped bucket: exit %d\n%s", o.code, o.stderr)
	}
	s.Kill()
	if o := finish(t, onS3(s, "list", "--repo", repo)); o.code != 4 {
		t.Errorf("a server that is gone: exit %d\n%s", o.code, o.stderr)
	}
}

// A server that dies while a save uploads: if it comes back soon the save goes
// on, and whatever becomes of it, what is listed is whole.
func TestS3ServerKilledInMidUpload(t *testing.T) {
	s := s3server.Start(t, s3server.Options{})
	repo := s3Repo(s, "")
	e := filledEtcd(t, etcd37, 40)
	mustRun(t, onS3(s, "init", "--repo", repo))
	slow := s3Repo(s, "&limit-upload=16MiB") // about 2.5 s
	saved := 0
	for _, delay := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second} {
		cmd := onS3(s, "save", "--repo", slow, "--cluster", "c", "--endpoints", e.client)
		ended := make(chan outcome, 1)
		go func() { ended <- finish(t, cmd) }()
		time.Sleep(delay)
		s.Kill()
		time.Sleep(time.Second)
		s.Restart()
		o := <-ended
		t.Logf("killed after %v: exit %d %s", delay, o.code, o.stderr)
		if o.code == 0 {
			saved++
		} else if !strings.Contains(o.stderr, "s3://") {
			t.Errorf("the error does not name the store: %s", o.stderr)
		}
	}
	mustRun(t, onS3(s, "save", "--repo", repo, "--cluster", "c", "--endpoints", e.client))
	o := mustRun(t, onS3(s, "verify", "--repo", repo, "--all", "--level", "digest", "-o", "json"))
	if got := strings.Count(o.stdout, `"path"`); got != saved+1 {
		t.Errorf("%d backups are listed, %d were reported as saved", got, saved+1)
	}
}

// A save killed in mid-upload leaves pieces that a later prune removes.
func TestSaveToS3SurvivesSIGKILL(t *testing.T) {
	s := s3server.Start(t, s3server.Options{})
	repo := s3Repo(s, "")
	e := filledEtcd(t, etcd37, 20)
	mustRun(t, onS3(s, "init", "--repo", repo))
	for range soak(t, 10) {
		cmd := onS3(s, "save", "--repo", s3Repo(s, "&limit-upload=32MiB"), "--cluster", "c", "--endpoints", e.client)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	mustRun(t, onS3(s, "save", "--repo", repo, "--cluster", "c", "--endpoints", e.client))
	mustRun(t, onS3(s, "verify", "--repo", repo, "--all", "--level", "digest"))
	mustRun(t, onS3(s, "prune", "--repo", repo, "--keep-last", "1"))
}

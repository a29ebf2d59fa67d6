package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// services are what the rows of a repository work on: an etcd with the
// snapshot's data, an S3 server, a repository in each place, a key pair.
type services struct {
	dir       string // of all of it
	etcd      *exec.Cmd
	s3        *exec.Cmd
	endpoint  string // of etcd
	s3URL     string
	recipient string
}

// What the S3 server lets in.
const (
	s3Key    = "lifeboat-bench"
	s3Secret = "not-a-secret-but-long-enough"
	s3Region = "us-east-1"
	s3Bucket = "backups"
)

var s3Env = []string{
	"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_REGION=" + s3Region,
	"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull, "AWS_EC2_METADATA_DISABLED=true",
}

// repo is the repository of that name.
func (s *services) repo(name string) string {
	if name == repoS3 {
		return fmt.Sprintf("s3://%s/repo?endpoint=%s&region=%s&path-style=true", s3Bucket, s.s3URL, s3Region)
	}
	return filepath.Join(s.dir, name)
}

func (s *services) file(name string) string { return filepath.Join(s.dir, name) }

// startServices prepares them in work, with one backup in each repository, and
// one made by hand.
func startServices(ctx context.Context, p *paths, work string) (stop func() error, err error) {
	s := &services{dir: filepath.Join(work, "services")}
	p.services = s
	stop = func() error { return errors.Join(halt(s.etcd), halt(s.s3), os.RemoveAll(s.dir)) }
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	if err := os.MkdirAll(s.file("s3"), 0o755); err != nil {
		return nil, err
	}
	if err := s.startEtcd(ctx, *p); err != nil {
		return nil, err
	}
	if err := s.startS3(*p); err != nil {
		return nil, err
	}
	return stop, s.fill(ctx, *p)
}

// startEtcd restores the snapshot and boots it.
func (s *services) startEtcd(ctx context.Context, p paths) error {
	data := s.file("etcd")
	if err := output(ctx, nil, io.Discard, p.lifeboat, "snapshot", "restore", p.file(snapshotName), "--data-dir", data); err != nil {
		return err
	}
	urls, err := freeURLs(2)
	if err != nil {
		return err
	}
	s.endpoint = urls[0]
	s.etcd = exec.Command(filepath.Join(p.etcd37, "etcd"), "--data-dir", data, "--quota-backend-bytes", "8000000000",
		"--listen-client-urls", urls[0], "--advertise-client-urls", urls[0], "--listen-peer-urls", urls[1],
		"--log-level", "error")
	return s.boot(s.etcd, urls[0]+"/health")
}

func (s *services) startS3(p paths) error {
	urls, err := freeURLs(1)
	if err != nil {
		return err
	}
	s.s3URL = urls[0]
	s.s3 = exec.Command(p.versitygw, "--quiet", "--port", strings.TrimPrefix(s.s3URL, "http://"), "--health", "/health", "--region", s3Region,
		"posix", s.file("s3"))
	s.s3.Env = []string{"ROOT_ACCESS_KEY_ID=" + s3Key, "ROOT_SECRET_ACCESS_KEY=" + s3Secret, "HOME=" + s.dir}
	if err := os.Mkdir(filepath.Join(s.file("s3"), s3Bucket), 0o755); err != nil {
		return err
	}
	return s.boot(s.s3, s.s3URL+"/health")
}

const bootPatience = 2 * time.Minute

// boot starts a server and waits until it says that it is healthy.
func (s *services) boot(cmd *exec.Cmd, health string) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(bootPatience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(health)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("%s: not healthy within %v", cmd.Path, bootPatience)
}

// halt stops a server that was started.
func halt(cmd *exec.Cmd) error {
	if cmd == nil || cmd.Process == nil {
		return nil
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	hard := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer hard.Stop()
	_ = cmd.Wait() // it ends by our signal
	return nil
}

// freeURLs are loopback URLs on ports that the kernel picked just now.
func freeURLs(n int) ([]string, error) {
	var urls []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		urls = append(urls, "http://127.0.0.1:"+strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return urls, nil
}

// fill makes the key pair and the backups that the restores take.
func (s *services) fill(ctx context.Context, p paths) error {
	var public bytes.Buffer
	if err := output(ctx, nil, &public, p.lifeboat, "keygen", s.file("key.txt")); err != nil {
		return err
	}
	s.recipient = strings.TrimSpace(public.String())
	for _, name := range []string{repoDir, repoS3} {
		if err := output(ctx, s3Env, io.Discard, p.lifeboat, "init", "--repo", s.repo(name)); err != nil {
			return err
		}
		c := saveTo(name)
		argv := c.argv(p)
		if err := output(ctx, c.env, io.Discard, argv[0], argv[1:]...); err != nil {
			return err
		}
	}
	if err := os.Mkdir(s.file("hand"), 0o755); err != nil {
		return err
	}
	hand := byHand("", saveByHand+` && `+putByHand).argv(p)
	return output(ctx, nil, io.Discard, hand[0], hand[1:]...)
}

// output runs a command that must end well.
func output(ctx context.Context, env []string, stdout io.Writer, argv0 string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv0, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(stderr.String(), 10))
	}
	return nil
}

//go:build e2e

package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

// etcd is a running etcd 3.4 with its v2 API on.
type etcd struct {
	cmd *exec.Cmd
	url string
	log string
}

const patience = 30 * time.Second

// startEtcd boots Debian's etcd 3.4 on a dir, new or not.
func startEtcd(t *testing.T, dir string, flags ...string) *etcd {
	t.Helper()
	binary, err := exec.LookPath("etcd")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip("no etcd installed")
	}
	client, peer := "http://"+freeAddress(t), "http://"+freeAddress(t)
	args := append([]string{"--enable-v2", "--name", "m1", "--data-dir", dir,
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "m1=" + peer, "--heartbeat-interval", "10", "--election-timeout", "100",
	}, flags...)
	log, err := os.Create(filepath.Join(t.TempDir(), "etcd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e := &etcd{cmd: exec.Command(binary, args...), url: client, log: log.Name()}
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.stop(t) })
	e.waitHealthy(t)
	return e
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (e *etcd) waitHealthy(t *testing.T) {
	t.Helper()
	wait(t, "etcd to be healthy and know its version: see "+e.log, func() bool {
		health, err := fetch(e.url + "/health")
		if err != nil || !strings.Contains(health, `"true"`) {
			return false
		}
		version, err := fetch(e.url + "/version")
		return err == nil && strings.Contains(version, `"etcdcluster":"3.4`)
	})
}

// wait gives up with the test after patience, with the last lines of a log if
// what names one.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s%s", patience, what, lastLines(what))
		}
	}
}

func lastLines(what string) string {
	_, name, ok := strings.Cut(what, ": see ")
	if !ok {
		return ""
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return "\n" + string(data[max(0, len(data)-4000):])
}

func fetch(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func (e *etcd) stop(t *testing.T) { e.end(t, syscall.SIGTERM) }

func (e *etcd) kill(t *testing.T) { e.end(t, syscall.SIGKILL) }

func (e *etcd) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if e.cmd.ProcessState != nil {
		return
	}
	if err := e.cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := e.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}

// serve boots our server on a dir, on a port of its own.
func serve(t *testing.T, dir string, opts server.Options) (url string, s *server.Server) {
	t.Helper()
	s, err := server.Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		closeServer(t, s)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	url = "http://" + l.Addr().String()
	wait(t, "our server to publish its URL", func() bool {
		list, err := fetch(url + "/v2/members")
		return err == nil && strings.Contains(list, url)
	})
	return url, s
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// etcd wants its dirs for itself
	err := filepath.WalkDir(to, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o700)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// seed is a dir that an etcd 3.4 made and left.
func seed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "seed")
	e := startEtcd(t, dir)
	e.stop(t)
	return dir
}

func storeIndex(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url + "/v2/keys/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("%s: %s", url, resp.Status))
	}
	return resp.Header.Get("X-Etcd-Index")
}

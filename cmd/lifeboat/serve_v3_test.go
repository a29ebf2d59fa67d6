package main

import (
	"bufio"
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// startServeV3 serves v3 data on a port that the kernel picks.
func startServeV3(t *testing.T, args ...string) (serveV3Report, *exec.Cmd) {
	t.Helper()
	cmd := exec.Command("lifeboat", append([]string{"serve", "-o", "json", "--listen", "127.0.0.1:0"}, args...)...)
	var talk strings.Builder
	cmd.Stderr = &talk
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var report serveV3Report
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&report); err != nil {
		_ = cmd.Wait()
		t.Fatalf("%v: %v\n%s", cmd, err, &talk)
	}
	return report, cmd
}

func dialV3(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestServeV3Clone(t *testing.T) {
	for name, args := range map[string][]string{
		"3.5.33":       nil,
		"3.4.23-mixed": {"--v3"},
	} {
		t.Run(name, func(t *testing.T) {
			report, cmd := startServeV3(t, append(args, "--data-dir", fixture.DataDir(t, name), "--clone")...)
			if report.Mode != "clone" || !strings.Contains(report.Engine, "built in") || len(report.Steps) == 0 {
				t.Errorf("report %+v", report)
			}
			client := dialV3(t, report.URL)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := client.Get(ctx, "leased")
			if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "yes" {
				t.Errorf("got %v, %v", got, err)
			}
			if _, err := client.Put(ctx, "a", "b"); err != nil {
				t.Error(err)
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestServeV3Refuses(t *testing.T) {
	dir := fixture.DataDir(t, "3.5.33")
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"in place, older": {nil, exitFailed, "would upgrade or change it for good\nTo serve a copy, add --clone"},
		"read-only":       {[]string{"--read-only"}, exitUsage, "use --clone"},
		"v2 flag":         {[]string{"--clone", "--snapshot-count", "5"}, exitUsage, "are for v2 data"},
		"no such etcd":    {[]string{"--clone", "--etcd-binary", "/none/etcd"}, exitFailed, "/none/etcd"},
		"no etcd":         {[]string{"--clone", "--etcd-binary", "/bin/true"}, exitFailed, "is no etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stderr := runLifeboat(t, append([]string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

// A dir that serve made is served again, and so is a restore of it.
func TestServeV3Creates(t *testing.T) {
	dir := t.TempDir()
	data, restored := dir+"/data", dir+"/restored"
	put := func(args ...string) {
		t.Helper()
		report, cmd := startServeV3(t, args...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := dialV3(t, report.URL).Put(ctx, "a", "b"); err != nil {
			t.Error(err)
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
	put("--create", "--v3", "--data-dir", data)
	put("--create", "--v3", "--data-dir", data)
	if out, err := exec.Command("lifeboat", "restore", data, "--data-dir", restored).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	put("--data-dir", restored)
}

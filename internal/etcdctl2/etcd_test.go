//go:build e2e

package etcdctl2_test

import (
	"bytes"
	"context"
	"encoding/json"
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
	"testing"
	"time"
)

// v2Patience bounds every wait of the v2 tests.
const v2Patience = 30 * time.Second

// lookTool finds a program that a test needs. Without it the test is skipped,
// but for CI, where it fails.
func lookTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// startEtcdV2 starts etcd 3.4 with the v2 API on a new data dir, and returns
// its client URL.
func startEtcdV2(t *testing.T) string {
	t.Helper()
	etcd := lookTool(t, "etcd")
	client, peer := freeURL(t), freeURL(t)
	dir := t.TempDir()
	talk, err := os.Create(filepath.Join(dir, "etcd.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(etcd, "--enable-v2", "--name", "m", "--data-dir", filepath.Join(dir, "m"),
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "m="+peer)
	cmd.Env = plainEnviron()
	cmd.Stdout, cmd.Stderr = talk, talk
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		talk.Close()
	})
	waitFor(t, "etcd at "+client, func() error { return settled(client, "3.4.0") })
	return client
}

// settled is nil once the server commits, and has written all that it writes
// of itself: the member's URLs, and this cluster version. The failed delete that it asks for leaves no trace in the store.
func settled(server, version string) error {
	req, err := http.NewRequest(http.MethodDelete, server+"/v2/keys/no-such-key", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		return errors.New(resp.Status)
	}
	var list struct {
		Members []struct{ ClientURLs []string }
	}
	if err := getJSON(server+"/v2/members", &list); err != nil {
		return err
	}
	if len(list.Members) != 1 || len(list.Members[0].ClientURLs) == 0 {
		return fmt.Errorf("members are %v", list.Members)
	}
	var running struct{ Etcdcluster string }
	if err := getJSON(server+"/version", &running); err != nil {
		return err
	}
	if running.Etcdcluster != version {
		return fmt.Errorf("cluster version is %s", running.Etcdcluster)
	}
	return nil
}

func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// plainEnviron is the environment without what etcd, its clients and their
// proxies would take from it.
func plainEnviron() []string {
	var plain []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "ETCD") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			plain = append(plain, v)
		}
	}
	return plain
}

// waitFor asks until the answer is nil.
func waitFor(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(v2Patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func getJSON(url string, into any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return json.Unmarshal(body, into)
}

// watchers is how many watch the server's keys.
func watchers(t *testing.T, server string) int {
	t.Helper()
	var stats struct{ Watchers int }
	if err := getJSON(server+"/v2/stats/store", &stats); err != nil {
		t.Fatal(err)
	}
	return stats.Watchers
}

// etcdIndex is the index that the server's store stands at.
func etcdIndex(t *testing.T, server string) uint64 {
	t.Helper()
	resp, err := http.Get(server + "/v2/keys/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	index, err := strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// v2Client is a program that takes etcdctl's command lines.
type v2Client struct {
	name string
	argv []string
	env  []string
}

func etcdctlClient(t *testing.T) v2Client {
	return v2Client{name: "etcdctl", argv: []string{lookTool(t, "etcdctl")}, env: []string{"ETCDCTL_API=2"}}
}

func lifeboatClient(t *testing.T) v2Client {
	return v2Client{name: "lifeboat", argv: []string{lookTool(t, "lifeboat"), "v2"}}
}

// command is one run of the client against server.
func (c v2Client) command(ctx context.Context, server string, args ...string) *exec.Cmd {
	argv := append(append([]string{}, c.argv...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(append(plainEnviron(), c.env...), "ETCDCTL_ENDPOINTS="+server)
	return cmd
}

// outcome is all that a run of a client shows.
type outcome struct {
	code           int
	stdout, stderr string
}

func (o outcome) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s\n", o.code, o.stdout, o.stderr)
}

// run runs the client to its end.
func (c v2Client) run(t *testing.T, server, stdin string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), v2Patience)
	defer cancel()
	cmd := c.command(ctx, server, args...)
	cmd.Stdin = strings.NewReader(stdin)
	shown := finish(t, cmd, cmd.Run)
	if ctx.Err() != nil {
		t.Errorf("%s: still at it after %v", cmd, v2Patience)
	}
	return shown
}

// finish collects the output of a command that run brings to its end.
func finish(t *testing.T, cmd *exec.Cmd, run func() error) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return outcome{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// watch runs a client that watches, has fire change something once it does,
// and interrupts it as soon as its output has the text until, if not empty;
// else it waits for its end.
func (c v2Client) watch(t *testing.T, server, until string, fire func(), args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), v2Patience)
	defer cancel()
	cmd := c.command(ctx, server, args...)
	stdout, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	before := watchers(t, server)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a watcher", func() error {
		if watchers(t, server) == before {
			return errors.New("none yet")
		}
		return nil
	})
	fire()
	if until != "" {
		interruptAt(t, cmd, stdout.Name(), until)
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return outcome{code: cmd.ProcessState.ExitCode(), stdout: readText(t, stdout.Name()), stderr: stderr.String()}
}

func interruptAt(t *testing.T, cmd *exec.Cmd, file, until string) {
	t.Helper()
	waitFor(t, "the output of "+cmd.String(), func() error {
		if text := readText(t, file); !strings.Contains(text, until) {
			return fmt.Errorf("%q has no %q", text, until)
		}
		return nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

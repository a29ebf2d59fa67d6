//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// bootTimeout is how long an etcd may take to become healthy.
	bootTimeout = 30 * time.Second
	// stopTimeout is how long it may take to end after SIGTERM.
	stopTimeout = 20 * time.Second
	// launches bounds the attempts when another process takes a port first.
	launches = 5
)

// etcd is a running server of some release.
type etcd struct {
	t       testing.TB
	release release
	name    string
	cluster string // as --initial-cluster wants it
	dir     string
	client  string // URL
	peer    string // URL
	flags   []string
	conn    *clientv3.Client // nil until it is needed
	proc    *process
}

// start boots an etcd on the data dir, which it makes if need be, and waits
// until it is healthy.
func start(t testing.TB, r release, dir string, flags ...string) *etcd {
	t.Helper()
	e, err := boot(t, r, dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// boot is [start] for an etcd that may refuse; the error ends with what the
// etcd had to say.
func boot(t testing.TB, r release, dir string, flags ...string) (*etcd, error) {
	t.Helper()
	e := &etcd{t: t, release: r, name: "m1", dir: dir, flags: flags}
	return e, retryPorts(func() error {
		ports := freePorts(t, 2)
		e.client, e.peer = loopback(ports[0]), loopback(ports[1])
		e.cluster = e.name + "=" + e.peer
		return e.Restart()
	})
}

// retryPorts repeats a launch that lost its ports to another process.
func retryPorts(launch func() error) error {
	var err error
	for range launches {
		if err = launch(); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	return err
}

// Restart launches the etcd again, on the same dir and ports.
func (e *etcd) Restart() error {
	e.t.Helper()
	if err := e.launch(); err != nil {
		return err
	}
	return e.waitHealthy()
}

// Plain launches the etcd again with these flags alone, not those given to
// [start]: so an operator runs it after --force-new-cluster.
func (e *etcd) Plain(flags ...string) {
	e.t.Helper()
	e.flags = flags
	if err := e.Restart(); err != nil {
		e.t.Fatal(err)
	}
}

func (e *etcd) launch() error {
	e.t.Helper()
	args := append([]string{
		"--name", e.name,
		"--data-dir", e.dir,
		"--listen-client-urls", e.client,
		"--advertise-client-urls", e.client,
		"--listen-peer-urls", e.peer,
		"--initial-advertise-peer-urls", e.peer,
		"--initial-cluster", e.cluster,
		"--heartbeat-interval", "50",
		"--election-timeout", "500",
	}, e.release.flags()...)
	cmd := exec.Command(e.release.path(e.t, "etcd"), append(args, e.flags...)...)
	proc, err := startProcess(e.t, cmd)
	e.proc = proc
	return err
}

func (e *etcd) waitHealthy() error {
	deadline := time.Now().Add(bootTimeout)
	for time.Now().Before(deadline) {
		if e.proc.ended() {
			return fmt.Errorf("etcd %s on %s ended: %v\n%s", e.release, e.dir, e.proc.err, e.proc.tail())
		}
		if e.healthy() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	e.Kill()
	return fmt.Errorf("etcd %s on %s: not healthy within %v\n%s", e.release, e.dir, bootTimeout, e.proc.tail())
}

func (e *etcd) healthy() bool {
	c := http.Client{Timeout: 2 * time.Second}
	resp, err := c.Get(e.client + "/health")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// settle gives a sole 2.3 member the time to log what it has answered: it does
// so in this order, and a kill in between loses the write (etcd 3.4.21 and 3.5.5
// mended that). Others log first.
func (e *etcd) settle() {
	if e.release == etcd23 {
		time.Sleep(500 * time.Millisecond)
	}
}

// Kill ends the etcd with SIGKILL, as a power cut would.
func (e *etcd) Kill() { e.proc.kill() }

// Stop ends the etcd with SIGTERM.
func (e *etcd) Stop() {
	e.t.Helper()
	if err := e.proc.stop(); err != nil {
		e.t.Fatalf("etcd %s on %s: %v\n%s", e.release, e.dir, err, e.proc.tail())
	}
}

// etcdctl runs the release's own client on the server, with the API of that
// number (2 or 3), and returns its stdout.
func (e *etcd) etcdctl(api string, args ...string) string {
	e.t.Helper()
	cmd := exec.Command(e.release.path(e.t, "etcdctl"), append([]string{"--endpoints", e.client}, args...)...)
	cmd.Env = append(cleanEnv(), "ETCDCTL_API="+api)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("etcdctl %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// process is a child that ends with the test at the latest.
type process struct {
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

func startProcess(t testing.TB, cmd *exec.Cmd) (*process, error) {
	t.Helper()
	p := &process{cmd: cmd, log: &logBuffer{}, done: make(chan struct{})}
	if cmd.Env == nil {
		cmd.Env = cleanEnv()
	}
	cmd.Stderr = p.log
	if cmd.Stdout == nil {
		cmd.Stdout = p.log
	}
	dieWithTest(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	// The process may have ended by itself; only that it has is of interest.
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("still running %v after SIGTERM", stopTimeout)
	}
}

// tail is the end of what the process printed.
func (p *process) tail() string {
	const lines = 60
	all := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// logBuffer collects output that is read while it grows.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// cleanEnv is our environment without anything that etcd or its clients read.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ETCD") {
			env = append(env, kv)
		}
	}
	return env
}

// freePorts asks the kernel for loopback ports that nobody holds now.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func loopback(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

// newDataDir names a data dir that does not exist yet.
func newDataDir(t testing.TB) string { return filepath.Join(t.TempDir(), "data") }

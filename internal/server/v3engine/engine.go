package v3engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// Options of [Start]; the zero value boots with the built-in etcd, reachable by
// this process alone.
type Options struct {
	Binary string // an etcd to run instead of the built-in one
	WALDir string // where the segments are, if not in the dir
	Listen string // host:port for clients; empty: a socket in a private folder
	TLS    TLS    // of what listens on Listen
	// Member is the name of the sole member that the dir is restarted as. Empty:
	// it becomes a new cluster of one, whoever belonged to it (etcd's
	// --force-new-cluster), and what it did not know to be committed is dropped.
	Member string
	// Create starts a new cluster of one, in a dir that is absent or empty.
	Create bool
	// NoSync leaves out fsync, for a dir that is thrown away.
	NoSync  bool
	Timeout time.Duration // for the boot; default: a minute
}

// TLS names the files to serve HTTPS with.
type TLS struct {
	CertFile, KeyFile string
	ClientCAFile      string // clients have to show a certificate of these authorities
}

const memberName = "lifeboat"

// newPeerURL is what a new cluster's member advertises. Nobody listens there:
// it has no peers.
const newPeerURL = "http://127.0.0.1:2380"

const (
	defaultBootTimeout = time.Minute
	stopTimeout        = 15 * time.Second // then it is killed
)

// Server is a running etcd.
type Server struct {
	Engine Engine

	cmd     *exec.Cmd
	stdin   io.Closer // its end tells the built-in etcd that we are gone
	tail    *tail
	exited  chan struct{}
	waitErr error
	workDir *atomicfile.TempDir // holds the sockets
	listen  string
	tls     TLS
}

// The sockets' names. etcd up to 3.5 takes no path in a unix URL: host and port
// name a file in its working directory.
const (
	clientSocket = "client:1"
	peerSocket   = "peer:1"
)

// Start boots the data dir, and returns once it answers. It writes into the dir.
// The error is a [*RefusedError] when etcd gave up.
func Start(ctx context.Context, dir string, o Options) (*Server, error) {
	engine, err := FindEngine(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	return engine.start(ctx, dir, o)
}

func (e Engine) start(ctx context.Context, dir string, o Options) (*Server, error) {
	dir, o, err := absolute(dir, o)
	if err != nil {
		return nil, err
	}
	s := &Server{Engine: e, tail: &tail{}, exited: make(chan struct{}), tls: o.TLS}
	if s.listen, err = pickPort(o.Listen); err != nil {
		return nil, err
	}
	if s.workDir, err = makeWorkDir(); err != nil {
		return nil, err
	}
	if err := s.run(dir, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", e, err), s.workDir.Remove())
	}
	if err := s.await(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// maxSocketPath is what fits into an address everywhere, bytes (macOS: 104 with
// the end).
const maxSocketPath = 100

// makeWorkDir is in TMPDIR, unless a socket there would have too long a path.
func makeWorkDir() (*atomicfile.TempDir, error) {
	dir, err := atomicfile.NewTempDir("", "etcd")
	if err != nil || len(filepath.Join(dir.Path, clientSocket)) <= maxSocketPath {
		return dir, err
	}
	if err := dir.Remove(); err != nil {
		return nil, err
	}
	return atomicfile.NewTempDir("/tmp", "etcd")
}

// absolute makes the paths hold in the process's own working dir.
func absolute(dir string, o Options) (string, Options, error) {
	dir, err := filepath.Abs(dir)
	for _, path := range []*string{&o.WALDir, &o.TLS.CertFile, &o.TLS.KeyFile, &o.TLS.ClientCAFile} {
		if *path != "" && err == nil {
			*path, err = filepath.Abs(*path)
		}
	}
	return dir, o, err
}

// run starts the process.
func (s *Server) run(dir string, o Options) error {
	cmd := s.Engine.command(s.args(dir, o))
	cmd.Dir = s.workDir.Path
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = s.tail, s.tail
	endWithParent(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.stdin = cmd, stdin
	go func() {
		s.waitErr = cmd.Wait()
		close(s.exited)
	}()
	return nil
}

// environment is what an etcd needs of ours: no ETCD_* that would change what
// it does, no proxies.
func environment() []string {
	env := []string{engineGuard + "=1", "ETCD_UNSUPPORTED_ARCH=" + runtime.GOARCH}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// args are flags that etcd 3.4 and later have, and the built-in one knows.
func (s *Server) args(dir string, o Options) []string {
	url := s.URL()
	args := []string{
		"--name=" + cmp.Or(o.Member, memberName), "--data-dir=" + dir,
		"--listen-client-urls=" + url, "--advertise-client-urls=" + url,
		"--listen-peer-urls=unix://" + peerSocket,
		"--quota-backend-bytes=-1", // a quota is the operator's flag, not the dir's
		"--logger=zap", "--log-outputs=stderr", "--log-level=warn",
	}
	switch {
	case o.Create:
		args = append(args, "--initial-advertise-peer-urls="+newPeerURL, "--initial-cluster="+memberName+"="+newPeerURL)
	case o.Member == "":
		args = append(args, "--force-new-cluster")
	}
	if s.listen == "" {
		args = append(args, "--enable-grpc-gateway=false")
	}
	if o.NoSync {
		args = append(args, "--unsafe-no-fsync")
	}
	if o.WALDir != "" {
		args = append(args, "--wal-dir="+o.WALDir)
	}
	return append(args, o.TLS.args()...)
}

func (t TLS) args() []string {
	if t.CertFile == "" {
		return nil
	}
	args := []string{"--cert-file=" + t.CertFile, "--key-file=" + t.KeyFile}
	if t.ClientCAFile != "" {
		args = append(args, "--client-cert-auth", "--trusted-ca-file="+t.ClientCAFile)
	}
	return args
}

// pickPort puts a free port in the place of port 0. etcd would not say which
// one it got.
func pickPort(listen string) (string, error) {
	if listen == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil || port != "0" {
		return listen, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// URL is where clients find the server. The socket's is of use to etcd only.
func (s *Server) URL() string {
	switch {
	case s.listen == "":
		return "unix://" + clientSocket
	case s.tls.CertFile != "":
		return "https://" + s.listen
	}
	return "http://" + s.listen
}

// Dial connects to a server that listens on its socket.
func (s *Server) Dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{"http://localhost"},
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.connect(ctx)
		})},
	})
}

// connect makes a connection to where the server listens.
func (s *Server) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	if s.listen == "" {
		return d.DialContext(ctx, "unix", filepath.Join(s.workDir.Path, clientSocket))
	}
	return d.DialContext(ctx, "tcp", s.listen)
}

// await returns when the server answers, or will not.
func (s *Server) await(ctx context.Context, o Options) error {
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = defaultBootTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := s.probe(bounded)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return s.refused()
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return s.hangs(timeout, err)
		case <-time.After(probeInterval):
		}
	}
}

const (
	probeInterval = 50 * time.Millisecond
	probeTimeout  = 2 * time.Second
)

// probe asks for a read through raft, where it can: from then on everything
// that the log holds is applied. A refusal that will stay is an answer, too.
func (s *Server) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := s.connect(ctx) // gRPC would wait a second after a failure
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil || s.listen != "" {
		return err
	}
	client, err := s.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Get(ctx, "\x00", clientv3.WithCountOnly())
	if err != nil && mayPass(err) {
		return err
	}
	return nil
}

// Exited is closed when etcd ended; Err says why.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Err is why etcd ended by itself.
func (s *Server) Err() error { return s.refused() }

// Close ends etcd in good order, so that its backend holds all it has applied.
func (s *Server) Close() error {
	return errors.Join(s.stop(), s.workDir.Remove())
}

func (s *Server) stop() error {
	select {
	case <-s.exited:
		return nil
	default:
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if err := s.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	err := s.cmd.Process.Kill()
	<-s.exited
	return errors.Join(fmt.Errorf("%s did not stop within %s and was killed", s.Engine, stopTimeout), err)
}

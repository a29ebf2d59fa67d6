// Package s3server runs a real S3 server for tests: versitygw, on a port of the
// loopback that the kernel picks, over a temporary dir.
//
// Start with [Start]. The server is built by e2e/build.sh when it is first
// needed, which takes a minute; where it can't be built the test is skipped.
package s3server

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
)

// Bucket is there on every server.
const Bucket = "backups"

// What the server lets in, and says about itself.
const (
	AccessKey = "lifeboat-test"
	SecretKey = "not-a-secret-but-long-enough"
	Region    = "us-east-1"
)

const (
	healthPath  = "/healthz"
	bootTimeout = 30 * time.Second
	stopTimeout = 10 * time.Second
	launches    = 5 // attempts, when another process takes the port first
)

// Options of a server; the zero value is a plain one.
type Options struct {
	Lock bool // Bucket is made with object lock, and so with versions
	TLS  bool // with a certificate of its own; see CAFile
}

// Server is a running server. It ends with its test.
type Server struct {
	t      testing.TB
	o      Options
	binary string
	dir    string
	port   int
	proc   *process // nil when it does not run
	client *awss3.Client
}

// Start builds the server if need be, runs it and makes Bucket.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, o: o, binary: binary(t), dir: t.TempDir()}
	for _, dir := range []string{"root", "versions"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if o.TLS {
		s.makeCertificate()
	}
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	if err := s.firstBoot(); err != nil {
		t.Fatal(err)
	}
	s.MakeBucket(Bucket)
	return s
}

// firstBoot picks a port, and another one if the first was taken meanwhile.
func (s *Server) firstBoot() (err error) {
	for range launches {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.boot(); err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
	return err
}

// Endpoint is the server's URL.
func (s *Server) Endpoint() string {
	if s.o.TLS {
		return fmt.Sprintf("https://localhost:%d", s.port)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", s.port)
}

// Address is its host and port.
func (s *Server) Address() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// CAFile holds the authority of its certificate; "" without TLS.
func (s *Server) CAFile() string {
	if !s.o.TLS {
		return ""
	}
	return filepath.Join(s.dir, "cert.pem")
}

// Env lets a child process in, and keeps it from what else the machine knows
// of AWS. It goes behind os.Environ.
func (s *Server) Env() []string {
	var env []string
	for name, value := range environment {
		env = append(env, name+"="+value)
	}
	return env
}

// Setenv lets the test itself in.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	for name, value := range environment {
		t.Setenv(name, value)
	}
}

var environment = map[string]string{
	"AWS_ACCESS_KEY_ID":           AccessKey,
	"AWS_SECRET_ACCESS_KEY":       SecretKey,
	"AWS_SESSION_TOKEN":           "",
	"AWS_REGION":                  Region,
	"AWS_PROFILE":                 "",
	"AWS_ENDPOINT_URL":            "",
	"AWS_ENDPOINT_URL_S3":         "",
	"AWS_CA_BUNDLE":               "",
	"AWS_CONFIG_FILE":             os.DevNull,
	"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	"AWS_EC2_METADATA_DISABLED":   "true",
}

// Client is the SDK's own, for what a test arranges behind the back of the
// code that it tests.
func (s *Server) Client() *awss3.Client {
	if s.client == nil {
		s.client = awss3.New(awss3.Options{
			BaseEndpoint: aws.String(s.Endpoint()),
			Region:       Region,
			UsePathStyle: true,
			Credentials:  credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
			HTTPClient:   s.httpClient(),
		})
	}
	return s.client
}

// MakeBucket makes a bucket more.
func (s *Server) MakeBucket(name string) {
	s.t.Helper()
	_, err := s.Client().CreateBucket(context.Background(), &awss3.CreateBucketInput{
		Bucket:                     &name,
		ObjectLockEnabledForBucket: aws.Bool(s.o.Lock),
	})
	if err != nil {
		s.t.Fatalf("make bucket %s: %v\n%s", name, err, s.proc.tail())
	}
}

// Dir is where the server keeps what it has.
func (s *Server) Dir() string { return s.dir }

// Kill ends the server as a power cut would.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Stop ends the server in good order.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Freeze stops the server in its tracks: it takes connections and says nothing.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.proc.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("%v: %v", sig, err)
	}
}

// Restart runs the server again, on the same port with the same objects. It
// returns when the server answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
	if err := s.boot(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) boot() error {
	args := []string{"--quiet", "--keep-alive", "--port", s.Address(), "--health", healthPath, "--region", Region}
	if s.o.TLS {
		args = append(args, "--cert", filepath.Join(s.dir, "cert.pem"), "--key", filepath.Join(s.dir, "key.pem"))
	}
	args = append(args, "posix", "--versioning-dir", filepath.Join(s.dir, "versions"), filepath.Join(s.dir, "root"))
	cmd := exec.Command(s.binary, args...)
	cmd.Env = []string{"ROOT_ACCESS_KEY_ID=" + AccessKey, "ROOT_SECRET_ACCESS_KEY=" + SecretKey, "HOME=" + s.dir}
	proc, err := startProcess(cmd)
	if err != nil {
		return err
	}
	s.proc = proc
	return s.waitHealthy()
}

func (s *Server) waitHealthy() error {
	client := s.httpClient()
	for deadline := time.Now().Add(bootTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s.proc.ended() {
			return fmt.Errorf("versitygw ended: %v\n%s", s.proc.err, s.proc.tail())
		}
		resp, err := client.Get(s.Endpoint() + healthPath)
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("versitygw: not healthy within %v\n%s", bootTimeout, s.proc.tail())
}

func (s *Server) end(sig syscall.Signal) {
	if s.proc != nil {
		s.proc.end(sig)
		s.proc = nil
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// process is a child that ends with the test at the latest.
type process struct {
	cmd  *exec.Cmd
	log  logBuffer
	done chan struct{}
	err  error // of Wait; valid once done is closed
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	dieWithTest(cmd)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// end signals the process, kills it if that does not help, and waits for it.
func (p *process) end(sig syscall.Signal) {
	if err := p.cmd.Process.Signal(sig); errors.Is(err, os.ErrProcessDone) {
		<-p.done
		return
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.done
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of what the process said.
func (p *process) tail() string {
	if p == nil {
		return ""
	}
	return p.log.tail()
}

const logKept = 4 << 10 // bytes

// logBuffer keeps the end of what is written to it.
type logBuffer struct {
	mu  sync.Mutex
	buf []byte
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if len(b.buf) > 2*logKept {
		b.buf = bytes.Clone(b.buf[len(b.buf)-logKept:])
	}
	return len(p), nil
}

func (b *logBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}

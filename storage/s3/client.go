package s3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"golang.org/x/sys/unix"
)

const defaultRegion = "us-east-1"

func (s *Store) connect(ctx context.Context) error {
	cfg, err := s.config(ctx)
	if err != nil {
		return err
	}
	s.client = awss3.NewFromConfig(cfg, func(o *awss3.Options) {
		o.UsePathStyle = s.o.PathStyle
		o.HTTPClient = &httpClient{cfg.HTTPClient, &s.answered}
		o.Retryer = newRetryer(s.limits, &s.answered)
		o.DisableLogOutputChecksumValidationSkipped = true
		if s.o.Endpoint != "" {
			o.BaseEndpoint = &s.o.Endpoint
		}
	})
	patient := &httpClient{cfg.HTTPClient.(*awshttp.BuildableClient).WithTransportOptions(s.dialing(s.limits.patience)), &s.answered}
	s.patient = func(o *awss3.Options) { o.HTTPClient = patient }
	s.amazon = s.client.Options().BaseEndpoint == nil
	s.sums = cfg.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired
	return nil
}

func (s *Store) config(ctx context.Context) (aws.Config, error) {
	roots, err := s.roots()
	if err != nil {
		return aws.Config{}, err
	}
	client := awshttp.NewBuildableClient().WithTransportOptions(s.dialing(s.limits.stall), func(t *http.Transport) {
		t.TLSClientConfig.RootCAs = roots
	})
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithDefaultRegion(defaultRegion),
		config.WithLogger(logging.Nop{}),
	}
	if s.o.Region != "" {
		options = append(options, config.WithRegion(s.o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, fmt.Errorf("configuration of the SDK: %w", err)
	}
	cfg.Credentials = namedCredentials{cfg.Credentials}
	return cfg, nil
}

// roots are the authorities of the system and those of CAFile.
func (s *Store) roots() (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if s.o.CAFile == "" {
		return roots, nil
	}
	pem, err := os.ReadFile(s.o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca-file: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca-file %s: no certificate in PEM form in it", s.o.CAFile)
	}
	return roots, nil
}

// dialing makes connections that notice a server that went silent. They speak
// HTTP/1.1, so that parts sent side by side have a connection each.
func (s *Store) dialing(stall time.Duration) func(*http.Transport) {
	dialer := &net.Dialer{Timeout: s.limits.dial, Control: sendLate}
	return func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &stallConn{Conn: conn, limit: stall}, nil
		}
		t.TLSHandshakeTimeout = s.limits.dial
		t.ForceAttemptHTTP2 = false
	}
}

// sendLate has the kernel take no more than a little beyond what is under way,
// so that the end of a Write is near that of its transport: else an answer could
// seem late while megabytes still wait for a slow line. Kernels that can't are
// no error.
func sendLate(_, _ string, conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10)
	})
}

// stallConn fails once nothing has moved in either direction for a time: the
// kernel alone would wait for a quarter of an hour on unacknowledged bytes.
type stallConn struct {
	net.Conn
	limit   time.Duration
	stalled atomic.Bool
}

// stallError is a timeout to net/http.
type stallError struct{ limit time.Duration }

func (e *stallError) Error() string   { return fmt.Sprintf("it was silent for %v", e.limit) }
func (e *stallError) Timeout() bool   { return true }
func (e *stallError) Temporary() bool { return true }

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, c.name(err)
	}
	n, err := c.Conn.Read(p)
	return n, c.name(err)
}

// Write sends in pieces, since each byte sent moves the deadline, also that of
// a Read that waits for the answer.
func (c *stallConn) Write(p []byte) (n int, err error) {
	const piece = 64 << 10
	for err == nil && n < len(p) {
		if err = c.SetDeadline(time.Now().Add(c.limit)); err != nil {
			break
		}
		var sent int
		sent, err = c.Conn.Write(p[n:min(n+piece, len(p))])
		n += sent
	}
	return n, c.name(err)
}

// name replaces the error of a deadline, and what follows when the other
// direction has met it first.
func (c *stallConn) name(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.stalled.Store(true)
	}
	if err != nil && c.stalled.Load() {
		return &stallError{c.limit}
	}
	return err
}

// httpClient remembers whether the server has ever answered, and recognises the
// answer of a port that wants TLS.
type httpClient struct {
	inner    awss3.HTTPClient
	answered *atomic.Bool
}

func (c *httpClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.inner.Do(r)
	if err != nil {
		return nil, err
	}
	c.answered.Store(true)
	if r.URL.Scheme == "http" && resp.StatusCode == http.StatusBadRequest && wantsTLS(resp) {
		resp.Body.Close()
		return nil, errWantsTLS
	}
	return resp, nil
}

// wantsTLS looks for the words of Go's and nginx's server in the first bytes of
// the body, and leaves the body as it was.
func wantsTLS(resp *http.Response) bool {
	if strings.Contains(resp.Header.Get("Content-Type"), "xml") {
		return false
	}
	start, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(start), &rest{resp.Body, err}), resp.Body}
	return bytes.Contains(start, []byte("HTTPS server")) || bytes.Contains(start, []byte("HTTPS port"))
}

// rest is what follows bytes read ahead, whose reading ended with err.
type rest struct {
	r   io.Reader
	err error
}

func (r *rest) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.r.Read(p)
}

// newRetryer tries longer once the server has answered: then it is worth
// waiting for, as when it is restarted. No quota of retries is shared between
// requests: it would give up the more parts, the more are under way.
func newRetryer(l limits, answered *atomic.Bool) aws.Retryer {
	standard := retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = l.tries
		o.MaxBackoff = l.backoff
		o.RateLimiter = ratelimit.None
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(hopeful)}, o.Retryables...)
	})
	return &retryer{standard, l.early, answered}
}

type retryer struct {
	*retry.Standard
	early    int
	answered *atomic.Bool
}

func (r *retryer) MaxAttempts() int {
	if !r.answered.Load() {
		return min(r.early, r.Standard.MaxAttempts())
	}
	return r.Standard.MaxAttempts()
}

// hopeful answers what the SDK would wrongly repeat or give up.
func hopeful(err error) aws.Ternary {
	var authority *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, errWantsTLS), errors.As(err, &authority), errors.As(err, &record):
		return aws.FalseTernary
	case errors.Is(err, io.ErrUnexpectedEOF):
		return aws.TrueTernary
	}
	switch code(err) {
	case "ConditionalRequestConflict", "OperationAborted", "BadDigest",
		"XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody",
		"ExistingObjectIsDirectory": // versitygw, when a Delete removes the folder just now
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// namedCredentials tells errors of the chain of credentials from those of
// requests.
type namedCredentials struct{ aws.CredentialsProvider }

type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

func (c namedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	keys, err := c.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return keys, &credentialsError{err}
	}
	return keys, nil
}

package s3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// kinds are the errors that callers branch on.
var kinds = []error{storage.ErrNotExist, storage.ErrExist, storage.ErrDenied, storage.ErrUnreachable, storage.ErrRetained}

// wantError checks what an error says, and which one it is of kinds; nil is
// none of them. It must never hold a secret.
func wantError(t *testing.T, err error, kind error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, k := range kinds {
		if errors.Is(err, k) != (k == kind) {
			t.Errorf("%v: is it %q? %v", err, k, errors.Is(err, k))
		}
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v: want %q in it", err, word)
		}
	}
	for _, secret := range []string{s3server.SecretKey, "wrong-secret", "session-token"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%v: it holds a secret", err)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q: more than one line", err)
	}
}

// saying is a server that answers every request alike.
func saying(t *testing.T, status int, header map[string]string, body string) Options {
	t.Helper()
	setKeys(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, body)
		}
	}))
	t.Cleanup(server.Close)
	return Options{Bucket: "b", Prefix: "p", Endpoint: server.URL, PathStyle: true}
}

func setKeys(t *testing.T) {
	new(s3server.Server).Setenv(t)
	t.Setenv("AWS_SESSION_TOKEN", "session-token")
}

func failure(code, message string) string {
	return "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>" + message + "</Message><RequestId>R1</RequestId></Error>"
}

func TestWhatServersSay(t *testing.T) {
	xml := map[string]string{"Content-Type": "application/xml"}
	long := strings.Repeat("<p>Welcome to this web server</p>", 100)
	for _, test := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		kind   error
		words  []string
	}{
		{"wrong region, by header", 301, map[string]string{"X-Amz-Bucket-Region": "eu-west-1"},
			failure("PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint."),
			nil, []string{"the bucket is in eu-west-1, not in us-east-1: give region=eu-west-1"}},
		{"wrong region, by message", 400, xml,
			failure("AuthorizationHeaderMalformed", "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'"),
			nil, []string{"give region=eu-west-1"}},
		{"wrong region, not told", 301, xml, failure("PermanentRedirect", "Elsewhere."), nil, []string{"not in the region us-east-1 or not at this endpoint"}},
		{"no bucket", 404, xml, failure("NoSuchBucket", "The specified bucket does not exist"), nil, []string{"there is no bucket b"}},
		{"clock", 403, map[string]string{"Date": time.Now().Add(17 * time.Minute).UTC().Format(http.TimeFormat)},
			failure("RequestTimeTooSkewed", "The difference is too large."),
			storage.ErrDenied, []string{"this machine's clock is 17m behind the server's"}},
		{"clock ahead", 403, map[string]string{"Date": time.Now().Add(-26 * time.Hour).UTC().Format(http.TimeFormat)},
			failure("RequestTimeTooSkewed", "The difference is too large."),
			storage.ErrDenied, []string{"this machine's clock is 26h0m ahead of the server's"}},
		{"unknown key", 403, xml, failure("InvalidAccessKeyId", "It does not exist in our records."), storage.ErrDenied, []string{"does not know the access key", "AWS_ACCESS_KEY_ID"}},
		{"wrong secret", 403, xml, failure("SignatureDoesNotMatch", "It does not match."), storage.ErrDenied, []string{"does not fit the access key", "AWS_SECRET_ACCESS_KEY"}},
		{"expired", 400, xml, failure("ExpiredToken", "The provided token has expired."), storage.ErrDenied, []string{"get new keys"}},
		{"denied", 403, xml, failure("AccessDenied", "Access Denied"), storage.ErrDenied, []string{"may not s3:ListBucket there", "open s3://b/p", "request R1"}},
		{"busy", 503, xml, failure("SlowDown", "Please reduce your request rate."), storage.ErrUnreachable, []string{"can't do it now: SlowDown"}},
		{"broken", 500, nil, "", storage.ErrUnreachable, []string{"can't do it now"}},
		{"gateway", 502, map[string]string{"Content-Type": "text/html"}, "<html><body>Bad Gateway</body></html>", storage.ErrUnreachable, nil},
		{"web page", 200, map[string]string{"Content-Type": "text/html"}, "<html><body>" + long + "</body></html>", nil, []string{"no S3 server", "check the endpoint"}},
		{"web page that is missing", 404, map[string]string{"Content-Type": "text/html"}, "<html><body>404</body></html>", nil, []string{"no bucket b, or no S3 server"}},
		{"plain text", 200, nil, "hello", nil, []string{"no S3 server"}},
		{"nothing", 200, nil, "", nil, []string{"no S3 server"}},
		{"port that wants TLS, Go", 400, nil, "Client sent an HTTP request to an HTTPS server.\n", storage.ErrUnreachable, []string{"give endpoint=https://"}},
		{"port that wants TLS, nginx", 400, map[string]string{"Content-Type": "text/html"},
			"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>", storage.ErrUnreachable, []string{"give endpoint=https://"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := open(t.Context(), saying(t, test.status, test.header, test.body), quick())
			wantError(t, err, test.kind, test.words...)
		})
	}
}

// TestWhatOperationsSay names what was attempted, on what, and the right that
// is missing.
func TestWhatOperationsSay(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	m.set(refuse(1000, 403, "AccessDenied", func(*http.Request) bool { return true }), nil)
	var list error
	for _, list = range s.List(t.Context(), "x") {
	}
	_, sweep := s.Sweep(t.Context(), "x", time.Now())
	_, stat := s.Stat(t.Context(), "a")
	_, get := read(s, "a", storage.Range{})
	for _, test := range []struct {
		err   error
		words []string
	}{
		{put(s, "a", nil, storage.PutOptions{}), []string{"put s3://backups/p/a: access denied", "may not s3:PutObject"}},
		{put(s, "a", noise(20<<20), storage.PutOptions{}), []string{"put s3://backups/p/a: access denied", "may not s3:PutObject"}},
		{get, []string{"get s3://backups/p/a", "s3:GetObject"}},
		{stat, []string{"stat s3://backups/p/a", "s3:GetObject"}},
		{list, []string{"list s3://backups/p/x", "s3:ListBucket"}},
		{s.Delete(t.Context(), "a"), []string{"delete s3://backups/p/a", "s3:DeleteObject"}},
		{sweep, []string{"sweep s3://backups/p/x", "s3:AbortMultipartUpload"}},
	} {
		wantError(t, test.err, storage.ErrDenied, test.words...)
	}
}

// TestRealServer has versitygw say what is wrong.
func TestRealServer(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	for _, test := range []struct {
		name   string
		env    map[string]string
		change func(*Options)
		kind   error
		words  []string
	}{
		{"no bucket", nil, func(o *Options) { o.Bucket = "elsewhere" }, nil, []string{"there is no bucket elsewhere"}},
		{"wrong region", nil, func(o *Options) { o.Region = "eu-central-1" }, nil, []string{"give region=us-east-1"}},
		{"wrong secret", map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, nil, storage.ErrDenied, []string{"does not fit the access key"}},
		{"wrong key", map[string]string{"AWS_ACCESS_KEY_ID": "nobody"}, nil, storage.ErrDenied, []string{"does not know the access key"}},
		{"no keys", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, nil, storage.ErrDenied, []string{"no credentials found in AWS_ACCESS_KEY_ID", "~/.aws/credentials"}},
		{"https to http", nil, func(o *Options) { o.Endpoint = "https://" + server.Address() }, storage.ErrUnreachable, []string{"give endpoint=http://"}},
		{"bucket in the host", nil, func(o *Options) {
			o.PathStyle, o.Endpoint = false, strings.Replace(o.Endpoint, "127.0.0.1", "s3.invalid", 1)
		}, storage.ErrUnreachable, []string{"s3.invalid"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server.Setenv(t)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			o := on(server, "p")
			if test.change != nil {
				test.change(&o)
			}
			_, err := open(t.Context(), o, quick())
			wantError(t, err, test.kind, test.words...)
		})
	}
}

func TestTLS(t *testing.T) {
	server := s3server.Start(t, s3server.Options{TLS: true})
	open := func(t *testing.T, change func(*Options)) error {
		o := on(server, "p")
		change(&o)
		_, err := open(t.Context(), o, quick())
		return err
	}
	t.Run("unknown authority", func(t *testing.T) {
		server.Setenv(t)
		began := time.Now()
		err := open(t, func(o *Options) { o.CAFile = "" })
		wantError(t, err, storage.ErrUnreachable, "give ca-file=")
		if took := time.Since(began); took > time.Second {
			t.Errorf("tried for %v, in vain", took)
		}
	})
	t.Run("authority by the environment", func(t *testing.T) {
		server.Setenv(t)
		t.Setenv("AWS_CA_BUNDLE", server.CAFile())
		if err := open(t, func(o *Options) { o.CAFile = "" }); err != nil {
			t.Error(err)
		}
	})
	t.Run("http to https", func(t *testing.T) {
		server.Setenv(t)
		err := open(t, func(o *Options) { o.Endpoint = "http://" + server.Address() })
		wantError(t, err, storage.ErrUnreachable, "give endpoint=https://")
	})
	t.Run("no file", func(t *testing.T) {
		server.Setenv(t)
		err := open(t, func(o *Options) { o.CAFile = filepath.Join(t.TempDir(), "none.pem") })
		wantError(t, err, nil, "ca-file", "none.pem")
	})
	t.Run("no certificate in it", func(t *testing.T) {
		server.Setenv(t)
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := open(t, func(o *Options) { o.CAFile = file })
		wantError(t, err, nil, "no certificate in PEM form")
	})
}

func TestUnreachable(t *testing.T) {
	setKeys(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, test := range []struct{ name, address, want string }{
		{"nobody listens", closed.Addr().String(), "connection refused"},
		{"nobody answers", silent.Addr().String(), "it was silent for 2s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Bucket: "b", Endpoint: "http://" + test.address, PathStyle: true}
			began := time.Now()
			_, err := open(t.Context(), o, quick())
			wantError(t, err, storage.ErrUnreachable, test.want, "http://"+test.address)
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("the caller gives up", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := open(ctx, Options{Bucket: "b", Endpoint: "http://" + silent.Addr().String(), PathStyle: true}, quick())
		wantError(t, err, nil, "open s3://b")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want it to be the context's", err)
		}
	})
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		name string
		o    Options
		want string // "" for fine
	}{
		{"bucket alone", Options{Bucket: "b"}, ""},
		{"everything", Options{
			Bucket: "b", Prefix: "/p/", Endpoint: "https://s3.example.com:9000", Region: "eu-west-1", PathStyle: true, CAFile: "ca.pem",
			SSE: SSEKMS, KMSKey: "k", StorageClass: "STANDARD_IA", ObjectLock: Compliance, LockFor: time.Hour, PartSize: 5 << 20, Concurrency: 1,
		}, ""},
		{"no bucket", Options{}, "no bucket"},
		{"bucket with a slash", Options{Bucket: "b/p"}, "slash"},
		{"sse", Options{Bucket: "b", SSE: "aes"}, "AES256"},
		{"kms-key without sse", Options{Bucket: "b", KMSKey: "k"}, "sse=aws:kms"},
		{"object lock", Options{Bucket: "b", ObjectLock: "strict"}, "governance"},
		{"lock without a mode", Options{Bucket: "b", LockFor: time.Hour}, "object-lock="},
		{"lock in the past", Options{Bucket: "b", ObjectLock: Governance, LockFor: -1}, "to come"},
		{"small parts", Options{Bucket: "b", PartSize: 1 << 20}, "part size"},
		{"concurrency", Options{Bucket: "b", Concurrency: -1}, "concurrency"},
		{"endpoint without a scheme", Options{Bucket: "b", Endpoint: "localhost:9000"}, "want a URL"},
		{"keys in the endpoint", Options{Bucket: "b", Endpoint: "https://key:wrong-secret@example.com"}, "AWS_ACCESS_KEY_ID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.o.Validate()
			if test.want == "" && err == nil {
				return
			}
			if test.want == "" {
				t.Fatal(err)
			}
			wantError(t, err, nil, test.want)
		})
	}
}

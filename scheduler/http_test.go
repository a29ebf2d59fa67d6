package scheduler

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeController is a daemon that does nothing.
type fakeController struct {
	status    Status
	runs      []RunRecord
	triggered []string
	err       error // of Trigger
	stands    chan struct{}
}

func (c *fakeController) Status() Status {
	if c.stands != nil {
		<-c.stands
	}
	return c.status
}

func (c *fakeController) Runs(job string) []RunRecord {
	var runs []RunRecord
	for _, r := range c.runs {
		if job == "" || r.Job == job {
			runs = append(runs, r)
		}
	}
	return runs
}

func (c *fakeController) Backups(_ context.Context, job string) ([]RepositoryBackups, error) {
	if job != "nightly" {
		return nil, ErrNoJob
	}
	return []RepositoryBackups{{Name: "disk", Backups: []BackupRef{{ID: "newest"}}}, {Name: "bucket", Error: "it does not answer", Backups: []BackupRef{}}}, nil
}

func (c *fakeController) Trigger(job string) (string, error) {
	if c.err != nil {
		return "", c.err
	}
	if name, _, _ := strings.Cut(job, "/"); name != "nightly" {
		return "", ErrNoJob
	}
	c.triggered = append(c.triggered, job)
	return "run-1", nil
}

// aDaemon has one job with a drill, led by itself, that has failed twice.
func aDaemon(now time.Time) *fakeController {
	run, leader := aRun(), true
	ref := &BackupRef{
		ID: "20261120T030000Z-4k2m9x", Time: now.Add(-time.Hour), Revision: 42, PlainBytes: 4096, StoredBytes: 1024,
		Level: LevelBoot, Proven: now.Add(-time.Minute), Seconds: 3,
	}
	return &fakeController{
		runs: []RunRecord{run},
		status: Status{
			Tool: "lifeboat 0.1.0", Host: "node-1", Started: now, ConfigLoaded: now, Config: "/etc/lifeboat/lifeboat.yaml",
			Jobs: []JobStatus{{
				Name: "nightly", Cluster: "production", Timezone: "UTC", Leader: &leader,
				RunsStatus: RunsStatus{
					Schedule: "@hourly", Next: now.Add(time.Minute), Last: &run, LastSuccess: &run, FailuresInRow: 2,
					Skipped: 3, Missed: 4, CaughtUp: 1, Successes: 7, Failures: map[Cause]int64{CauseEndpoint: 2},
				},
				Drill:        &RunsStatus{Schedule: "@weekly", Next: now.Add(time.Hour)},
				Repositories: []RepositoryStatus{{Name: "disk", Checked: now, Backups: 9, Newest: ref, NewestProven: ref}},
			}},
		},
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func loopback() HTTPConfig { return HTTPConfig{Listen: "127.0.0.1:8378"} }

func request(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost:8378"+path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAPI(t *testing.T) {
	tests := []struct {
		method, path string
		code         int
		want         string // in the body
	}{
		{"GET", "/healthz", 200, `{"ok":true}`},
		{"HEAD", "/healthz", 200, ""},
		{"GET", "/readyz", 200, `{"ok":true}`},
		{"GET", "/metrics", 200, "lifeboat_failures_in_row"},
		{"GET", "/api/v1/status", 200, `"host":"node-1"`},
		{"GET", "/api/v1/jobs", 200, `{"jobs":[{"name":"nightly"`},
		{"GET", "/api/v1/jobs/nightly", 200, `"failures_in_row":2`},
		{"GET", "/api/v1/jobs/daily", 404, `{"error":"there is no job of that name","status":404}`},
		{"GET", "/api/v1/jobs/nightly/runs", 200, `{"runs":[{"id":"20261120T030000Z-000001"`},
		{"GET", "/api/v1/jobs/daily/runs", 404, `"status":404`},
		{"GET", "/api/v1/jobs/nightly/backups", 200, `{"repositories":[{"name":"disk","backups":[{"id":"newest"`},
		{"GET", "/api/v1/jobs/nightly/backups", 200, `{"name":"bucket","error":"it does not answer","backups":[]}`},
		{"GET", "/api/v1/jobs/daily/backups", 404, `"status":404`},
		{"GET", "/api/v1/runs", 200, `{"runs":[{`},
		{"POST", "/api/v1/jobs/nightly/run", 202, `{"run_id":"run-1"}`},
		{"POST", "/api/v1/jobs/nightly/drill/run", 202, `{"run_id":"run-1"}`},
		{"POST", "/api/v1/jobs/daily/run", 404, `"status":404`},
		{"GET", "/api/v1/jobs/nightly/run", 405, `{"error":"method not allowed: want POST","status":405}`},
		{"POST", "/api/v1/status", 405, `want GET, HEAD`},
		{"DELETE", "/metrics", 405, `"status":405`},
		{"GET", "/", 404, `{"error":"not found","status":404}`},
		{"GET", "/api/v2/status", 404, `"status":404`},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.path, func(t *testing.T) {
			w := request(newHandler(loopback(), aDaemon(time.Now()), quiet()), tt.method, tt.path)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.code, tt.want)
			}
			if got := w.Header().Get("Content-Type"); tt.path != "/metrics" && got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

func TestAPITrigger(t *testing.T) {
	c := aDaemon(time.Now())
	h := newHandler(loopback(), c, quiet())
	request(h, "POST", "/api/v1/jobs/nightly/run")
	request(h, "POST", "/api/v1/jobs/nightly/drill/run")
	if got := strings.Join(c.triggered, " "); got != "nightly nightly/drill" {
		t.Errorf("asked for %q", got)
	}
	for err, code := range map[error]int{ErrStopping: 503, errors.New("disk full"): 500} {
		c.err = err
		if w := request(h, "POST", "/api/v1/jobs/nightly/run"); w.Code != code || !strings.Contains(w.Body.String(), err.Error()) {
			t.Errorf("%d %s, want %d", w.Code, w.Body, code)
		}
	}
}

func TestAPIToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	writeTestFile(t, file, []byte("s3cr3t\n"))
	cfg := loopback()
	cfg.Token = Secret{File: file}
	h := newHandler(cfg, aDaemon(time.Now()), quiet())
	paths := []string{"/metrics", "/api/v1/status", "/api/v1/jobs", "/api/v1/jobs/nightly", "/api/v1/jobs/nightly/runs", "/api/v1/runs"}
	for _, header := range []string{"", "Bearer", "Bearer x", "Basic s3cr3t", "s3cr3t"} {
		for _, path := range paths {
			if w := request(h, "GET", path, "Authorization", header); w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q: %d", path, header, w.Code)
			}
		}
		if w := request(h, "POST", "/api/v1/jobs/nightly/run", "Authorization", header); w.Code != 401 {
			t.Errorf("trigger with %q: %d", header, w.Code)
		}
	}
	if w := request(h, "GET", "/metrics", "Authorization", "bearer s3cr3t"); w.Code != 200 {
		t.Errorf("with the token: %d", w.Code)
	}
	if w := request(h, "GET", "/healthz"); w.Code != 200 {
		t.Errorf("health without the token: %d", w.Code)
	}
	writeTestFile(t, file, []byte("other"))
	if w := request(h, "GET", "/metrics", "Authorization", "Bearer other"); w.Code != 200 {
		t.Errorf("with the new token: %d", w.Code)
	}
	// No token is not the same as an empty one.
	writeTestFile(t, file, nil)
	if w := request(h, "GET", "/metrics", "Authorization", "Bearer "); w.Code != 500 {
		t.Errorf("with an empty token file: %d", w.Code)
	}
}

// A web page can't reach the API through a browser, neither by a name of its own
// that leads to loopback nor by a form.
func TestAPIIsNotForWebPages(t *testing.T) {
	tests := map[string]struct {
		listen Address
		host   string
		code   int
	}{
		"localhost":        {"127.0.0.1:8378", "localhost:8378", 200},
		"address":          {"127.0.0.1:8378", "127.0.0.1:8378", 200},
		"IPv6":             {"[::1]:8378", "[::1]:8378", 200},
		"no port":          {"[::1]:8378", "[::1]", 200},
		"forwarded port":   {"127.0.0.1:8378", "localhost:9999", 200},
		"rebound":          {"127.0.0.1:8378", "evil.example.com:8378", 421},
		"rebound, no port": {"localhost:8378", "localhost.evil.example.com", 421},
		"none":             {"127.0.0.1:8378", "", 421},
		"open to all":      {"0.0.0.0:8378", "node-1.example.com:8378", 200},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/api/v1/status", nil)
			r.Host = tt.host
			w := httptest.NewRecorder()
			newHandler(HTTPConfig{Listen: tt.listen}, aDaemon(time.Now()), quiet()).ServeHTTP(w, r)
			if w.Code != tt.code {
				t.Errorf("%d, want %d", w.Code, tt.code)
			}
		})
	}
	c := aDaemon(time.Now())
	h := newHandler(loopback(), c, quiet())
	w := request(h, "POST", "/api/v1/jobs/nightly/run", "Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site")
	if w.Code != 403 || len(c.triggered) > 0 {
		t.Errorf("a form of elsewhere: %d, triggered %q", w.Code, c.triggered)
	}
}

func TestHealth(t *testing.T) {
	now := time.Now()
	tests := map[string]struct {
		change  func(*fakeController)
		healthy bool
		ready   bool
	}{
		"well":       {func(*fakeController) {}, true, true},
		"starting":   {func(c *fakeController) { c.status.ConfigLoaded = time.Time{} }, true, false},
		"not opened": {func(c *fakeController) { c.status.Jobs[0].Repositories[0].Checked = time.Time{} }, true, false},
		"never opened": {func(c *fakeController) {
			c.status.Jobs[0].Repositories[0] = RepositoryStatus{Checked: now, Error: "no"}
		}, true, false},
		"away for a while": {func(c *fakeController) { c.status.Jobs[0].Repositories[0].Error = "no" }, true, true},
		"empty":            {func(c *fakeController) { c.status.Jobs[0].Repositories[0] = RepositoryStatus{Checked: now} }, true, true},
		"stopping":         {func(c *fakeController) { c.status.Stopping = true }, true, false},
		"a little late":    {func(c *fakeController) { c.status.Jobs[0].Next = now.Add(-time.Minute) }, true, true},
		"loop stands":      {func(c *fakeController) { c.status.Jobs[0].Next = now.Add(-time.Hour) }, false, true},
		"drill stands":     {func(c *fakeController) { c.status.Jobs[0].Drill.Next = now.Add(-time.Hour) }, false, true},
		"late, and runs": {func(c *fakeController) {
			c.status.Jobs[0].Next, c.status.Jobs[0].Running = now.Add(-time.Hour), &RunRecord{}
		}, true, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := aDaemon(now)
			tt.change(c)
			h := newHandler(loopback(), c, quiet())
			for path, want := range map[string]bool{"/healthz": tt.healthy, "/readyz": tt.ready} {
				w := request(h, "GET", path)
				if well := w.Code == 200; well != want || !well && w.Code != 503 {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
			}
		})
	}
}

func TestHealthOfDaemonThatStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := aDaemon(time.Now())
		c.stands = make(chan struct{})
		defer close(c.stands)
		if w := request(newHandler(loopback(), c, quiet()), "GET", "/healthz"); w.Code != 503 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// listening starts a server and returns its address, and what stops it.
func listening(t *testing.T, cfg HTTPConfig, log *slog.Logger) (string, func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = Address(l.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, cfg, aDaemon(time.Now()), log) }()
	stop := func() error { cancel(); return <-ended }
	t.Cleanup(cancel)
	return l.Addr().String(), stop
}

func TestServe(t *testing.T) {
	address, stop := listening(t, HTTPConfig{}, quiet())
	resp, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := Serve(t.Context(), HTTPConfig{Listen: Address(address)}, aDaemon(time.Now()), quiet()); err == nil {
		t.Error("served on an address that is taken")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the address is not free: %v", err)
	}
	l.Close()
	if err := Serve(t.Context(), HTTPConfig{Listen: Off}, nil, quiet()); err != nil {
		t.Error(err)
	}
}

func TestServeReloadsCertificate(t *testing.T) {
	dir := t.TempDir()
	files := ServerTLS{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	certificateFor(t, files, "first")
	var log bytes.Buffer
	c, err := newCertificate(files, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		c.looked = time.Time{} // as if a second had passed
		pair, _ := c.get(nil)
		return pair.Leaf.Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Errorf("got %s", got)
	}
	writeTestFile(t, files.Key, []byte("half written"))
	if got := name(); got != "first" || !strings.Contains(log.String(), "the older one stays") {
		t.Errorf("got %s, log %s", got, &log)
	}
	certificateFor(t, files, "the second")
	if got := name(); got != "the second" {
		t.Errorf("got %s", got)
	}
	address, stop := listening(t, HTTPConfig{TLS: files}, quiet())
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "the second" {
		t.Errorf("served %s", got)
	}
	conn.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := serve(t.Context(), freeListener(t), HTTPConfig{TLS: ServerTLS{Cert: "no", Key: "no"}}, nil, quiet()); err == nil {
		t.Error("served without a certificate")
	}
}

func freeListener(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// certificateFor writes a self-signed certificate.
func certificateFor(t *testing.T, files ServerTLS, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	writeTestFile(t, files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// The JSON of the API is a contract.
func TestAPIStatusRoundTrip(t *testing.T) {
	c := aDaemon(time.Now().UTC())
	w := request(newHandler(loopback(), c, quiet()), "GET", "/api/v1/status")
	d := json.NewDecoder(io.LimitReader(w.Body, 1<<20))
	d.DisallowUnknownFields()
	var got Status
	if err := d.Decode(&got); err != nil || got.Jobs[0].Failures[CauseEndpoint] != 2 || got.Jobs[0].Last.Error != aRun().Error {
		t.Errorf("%+v: %v", got, err)
	}
}

func writeTestFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

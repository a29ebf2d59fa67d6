package scheduler

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

func aRun() RunRecord {
	return RunRecord{
		ID: "20261120T030000Z-000001", Job: "nightly", Cluster: "production", Kind: BackupRun, Reason: OnTime, Host: "node-1",
		Started: time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC), Finished: time.Date(2026, 11, 20, 3, 0, 5, 0, time.UTC),
		Result: Failed, Stage: StageSave, Cause: CauseEndpoint, Error: "no endpoint answers:\n  a: connection refused",
	}
}

func TestWebhook(t *testing.T) {
	var got Notification
	var header http.Header
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || json.Unmarshal(body, &got) != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // bad certificates are meant
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	n := &NotifyConfig{Name: "chat", Webhook: &WebhookConfig{
		URL: inline(srv.URL + "/hook"), Timeout: 10 * time.Second, CAFile: ca,
		Headers: map[string]Secret{"Authorization": inline("Bearer abc")},
	}}
	if err := notify(t.Context(), n, Failure, aRun()); err != nil {
		t.Fatal(err)
	}
	if header.Get("Authorization") != "Bearer abc" || header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", header)
	}
	if got.Event != Failure || got.Run.Cause != CauseEndpoint || !strings.Contains(got.Text, "nightly") || !strings.HasSuffix(got.Text, "no endpoint answers: a: connection refused") {
		t.Errorf("got %+v", got)
	}
	n.Webhook.CAFile = ""
	if err := notify(t.Context(), n, Failure, aRun()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority is trusted: %v", err)
	}
}

func inline(text string) Secret { return Secret{Inline: repository.Secret(text)} }

// answers is a transport that answers with one code after the other, and counts.
type answers struct {
	codes []int
	after string // Retry-After
	calls atomic.Int32
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	n := int(a.calls.Add(1)) - 1
	if n >= len(a.codes) || a.codes[n] == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{
		StatusCode: a.codes[n], Body: io.NopCloser(strings.NewReader("no")), Request: r,
		Header: http.Header{"Retry-After": {a.after}},
	}, nil
}

func TestCallTries(t *testing.T) {
	tests := map[string]struct {
		codes []int
		after string
		calls int32
		took  time.Duration
		want  string // of the error; "": none
	}{
		"well":                 {codes: []int{204}, calls: 1},
		"second try":           {codes: []int{503, 200}, calls: 2, took: time.Second},
		"third try":            {codes: []int{0, 408, 200}, calls: 3, took: 3 * time.Second},
		"all fail":             {codes: []int{500, 500, 500, 200}, calls: 3, took: 3 * time.Second, want: "3 tries: the server answers 500"},
		"unreachable":          {calls: 3, took: 3 * time.Second, want: "connection refused"},
		"in vain":              {codes: []int{404, 200}, calls: 1, want: "404 Not Found"},
		"server asks to wait":  {codes: []int{429, 200}, after: "7", calls: 2, took: 7 * time.Second},
		"server asks for more": {codes: []int{429, 200}, after: "9999999999", calls: 2, took: 30 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &answers{codes: tt.codes, after: tt.after}
				c := &caller{client: &http.Client{Transport: a}}
				began := time.Now()
				err := c.call(t.Context(), http.MethodPost, "http://127.0.0.1/x", nil, []byte("{}"))
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if a.calls.Load() != tt.calls || time.Since(began) != tt.took {
					t.Errorf("%d calls in %v, want %d in %v", a.calls.Load(), time.Since(began), tt.calls, tt.took)
				}
			})
		})
	}
}

// Neither the URL nor a header is in an error, whatever the server says.
func TestCallKeepsSecrets(t *testing.T) {
	const secret = "T0000-B0000-XYZ"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/away") {
			w.Header().Set("Location", "http://%zz/"+secret)
			w.WriteHeader(http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, strings.Repeat("-", maxReply-8)+" "+r.URL.Path+r.Header.Get("X-Key"))
	}))
	defer srv.Close()
	webhook := &NotifyConfig{Name: "chat", Webhook: &WebhookConfig{
		URL: inline(srv.URL + "/" + secret), Timeout: time.Second, Headers: map[string]Secret{"X-Key": inline("KEYKEY")},
	}}
	errs := map[string]error{
		"reply":    notify(t.Context(), webhook, Failure, aRun()),
		"ping":     ping(t.Context(), inline(srv.URL+"/"+secret+"/away"), time.Second),
		"no URL":   ping(t.Context(), inline("http://a b/"+secret), time.Second),
		"no host":  ping(t.Context(), inline("http:///"+secret), time.Second),
		"protocol": ping(t.Context(), inline("gopher://x/"+secret), time.Second),
	}
	for name, err := range errs {
		if err == nil || strings.Contains(err.Error(), "T0000") || strings.Contains(err.Error(), "KEYK") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallFollowsNoRedirectElsewhere(t *testing.T) {
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked.Store(true) }))
	defer other.Close()
	var posted atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/found":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/moved":
			http.Redirect(w, r, "/end", http.StatusPermanentRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusPermanentRedirect)
		default:
			if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost && len(body) > 0 {
				posted.Add(1)
			}
		}
	}))
	defer srv.Close()
	for path, well := range map[string]bool{"/elsewhere": false, "/found": false, "/moved": true, "/loop": false} {
		n := &NotifyConfig{Webhook: &WebhookConfig{URL: inline(srv.URL + path), Timeout: 5 * time.Second}}
		if err := notify(t.Context(), n, Success, aRun()); (err == nil) != well {
			t.Errorf("%s: %v", path, err)
		}
	}
	if leaked.Load() || posted.Load() != 1 {
		t.Errorf("leaked %v, posted %d times, want once", leaked.Load(), posted.Load())
	}
}

func TestPing(t *testing.T) {
	var calls atomic.Int32
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.URL.Path == "/hang" {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}
	}))
	defer srv.Close()
	defer close(stop)
	if err := ping(t.Context(), inline(srv.URL), 5*time.Second); err != nil || calls.Load() != 1 {
		t.Errorf("%d calls: %v", calls.Load(), err)
	}
	began := time.Now()
	err := ping(t.Context(), inline(srv.URL+"/hang"), 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "no answer in time") || strings.Contains(err.Error(), "/hang") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNotifyCommand(t *testing.T) {
	dir := t.TempDir()
	n := &NotifyConfig{Name: "pager", Command: &CommandConfig{
		Run: []string{"/bin/sh", "-c", `cat > ` + dir + `/json; echo "$LIFEBOAT_EVENT $LIFEBOAT_JOB $LIFEBOAT_RESULT" > ` + dir + `/env`}, Timeout: time.Minute,
	}}
	run := aRun()
	run.Error = strings.Repeat("long ", 100_000) // more than a pipe holds
	if err := notify(t.Context(), n, Failure, run); err != nil {
		t.Fatal(err)
	}
	var got Notification
	body, _ := os.ReadFile(filepath.Join(dir, "json"))
	if err := json.Unmarshal(body, &got); err != nil || got.Run.Error != run.Error {
		t.Errorf("%d bytes of JSON: %v", len(body), err)
	}
	if env, _ := os.ReadFile(filepath.Join(dir, "env")); string(env) != "failure nightly failure\n" {
		t.Errorf("environment %q", env)
	}
	n.Command.Run = []string{"/bin/sh", "-c", "exit 0"} // reads nothing
	if err := notify(t.Context(), n, Failure, run); err != nil {
		t.Error(err)
	}
	n.Command.Run = []string{"/bin/sh", "-c", "exit 4"}
	if err := notify(t.Context(), n, Failure, run); err == nil || !strings.Contains(err.Error(), "command sh: exit status 4") {
		t.Errorf("got %v", err)
	}
}

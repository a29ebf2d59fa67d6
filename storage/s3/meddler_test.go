package s3

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
)

// meddler stands between a store and a real server, and spoils what passes. Its
// hooks are called by one goroutine at a time.
type meddler struct {
	mu sync.Mutex
	// ask sees each request; if it returns true it has answered.
	ask func(w http.ResponseWriter, r *http.Request) bool
	// answer sees each answer; its error closes the connection instead.
	answer func(resp *http.Response) error
	url    string
}

var errLost = errors.New("the answer is lost")

func meddle(t *testing.T, server *s3server.Server) *meddler {
	t.Helper()
	target, err := url.Parse(server.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	m := &meddler{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host // the signature covers r.Out.Host
			r.Out.Host = r.In.Host
		},
		ModifyResponse: m.onAnswer,
		FlushInterval:  -1, // at once
		ErrorLog:       log.New(io.Discard, "", 0),
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.onAsk(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	front.Listener = smallWindows{front.Listener}
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	front.Start()
	t.Cleanup(front.Close)
	m.url = front.URL
	return m
}

// smallWindows accepts connections that take little before somebody reads, as
// those of a slow line.
type smallWindows struct{ net.Listener }

func (l smallWindows) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(128 << 10)
	}
	return conn, err
}

func (m *meddler) onAsk(w http.ResponseWriter, r *http.Request) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ask != nil && m.ask(w, r)
}

func (m *meddler) onAnswer(resp *http.Response) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer == nil {
		return nil
	}
	return m.answer(resp)
}

// set changes the hooks.
func (m *meddler) set(ask func(http.ResponseWriter, *http.Request) bool, answer func(*http.Response) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ask, m.answer = ask, answer
}

// The requests of S3, by what tells them apart.
func isPut(r *http.Request) bool { return r.Method == http.MethodPut && !r.URL.Query().Has("uploadId") }
func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("partNumber")
}
func isJoin(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}
func isGet(r *http.Request) bool {
	return r.Method == http.MethodGet && !r.URL.Query().Has("list-type") && !r.URL.Query().Has("uploads")
}

// loseFirst loses the first n answers to requests of that kind.
func loseFirst(n int, kind func(*http.Request) bool) func(*http.Response) error {
	return func(resp *http.Response) error {
		if n > 0 && kind(resp.Request) {
			n--
			return errLost
		}
		return nil
	}
}

// refuse answers the first n requests of that kind with an error.
func refuse(n, status int, code string, kind func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if n <= 0 || !kind(r) {
			return false
		}
		n--
		_, _ = io.Copy(io.Discard, r.Body)
		sayError(w, status, code, "a test says so")
		return true
	}
}

func sayError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Amz-Request-Id", "REQ1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+message+"</Message></Error>")
}

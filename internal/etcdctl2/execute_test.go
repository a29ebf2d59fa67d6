package etcdctl2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	client "go.etcd.io/etcd/client/v2"
)

// fakeServer answers as an etcd with one member would, and keeps what it was
// asked.
type fakeServer struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string
	answer func(r *http.Request) (int, string) // for all but /v2/members
}

func newFakeServer(t *testing.T, answer func(r *http.Request) (int, string)) *fakeServer {
	t.Helper()
	f := &fakeServer{answer: answer}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL, body)))
	f.mu.Unlock()
	if r.URL.Path == "/v2/members" {
		fmt.Fprintf(w, `{"members":[{"id":"1","name":"m","peerURLs":["http://p"],"clientURLs":[%q]}]}`, f.URL)
		return
	}
	code, text := f.answer(r)
	w.WriteHeader(code)
	io.WriteString(w, text)
}

const aNode = `{"action":"set","node":{"key":"/k","value":"v"}}`

func always(code int, text string) func(*http.Request) (int, string) {
	return func(*http.Request) (int, string) { return code, text }
}

type shown struct {
	code           int
	stdout, stderr string
}

// typed runs a command line in this process.
func typed(t *testing.T, stdin string, env map[string]string, args ...string) shown {
	t.Helper()
	var out, talk bytes.Buffer
	err := execute(t.Context(), IO{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &talk,
		Getenv: func(name string) string { return env[name] },
	}, "lifeboat v2", args)
	var failure *Failure
	if err != nil && !errors.As(err, &failure) {
		t.Fatal(err)
	}
	s := shown{stdout: out.String(), stderr: talk.String()}
	if failure != nil {
		s.code = failure.Code
	}
	return s
}

func TestEndpointsInOrderOfNames(t *testing.T) {
	server := newFakeServer(t, always(200, aNode))
	dead := "http://127.0.0.1:1"
	host := strings.TrimPrefix(server.URL, "http://")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
	}{
		"flag before variable": {map[string]string{"ETCDCTL_ENDPOINTS": dead}, []string{"--endpoints", server.URL}},
		"new flag before old":  {nil, []string{"--peers", dead, "--endpoint", dead, "--endpoints", server.URL}},
		"variable before old":  {map[string]string{"ETCDCTL_ENDPOINTS": server.URL}, []string{"--endpoint", dead}},
		"endpoint before peer": {map[string]string{"ETCDCTL_ENDPOINT": server.URL}, []string{"--peers", dead}},
		"oldest variable":      {map[string]string{"ETCDCTL_PEERS": server.URL}, nil},
		"peer":                 {nil, []string{"--peer", server.URL}},
		"host and port":        {nil, []string{"--endpoints", host}},
		"one of two is dead":   {nil, []string{"--endpoints", dead + "," + server.URL}},
	} {
		t.Run(name, func(t *testing.T) {
			got := typed(t, "", c.env, append(c.args, "get", "/k")...)
			if want := (shown{0, "v\n", ""}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

func TestNothingIsSentBy(t *testing.T) {
	server := newFakeServer(t, always(200, aNode))
	for _, line := range []string{
		"get", "set", "set /k", "mk /k", "update /k", "mkdir", "rm", "rmdir", "watch", "exec-watch /k",
		"-o yaml set /k v", "set --nosuch /k v", "set --ttl x /k v", "ls --help", "help", "member", "nosuch",
		"user grant u", "role grant r", "role grant --path /x r", "import", "import --snap /no/such/file",
	} {
		typed(t, "", nil, append([]string{"--endpoints", server.URL}, strings.Fields(line)...)...)
		if len(server.asked) > 0 {
			t.Errorf("%s: asked %q", line, server.asked)
			server.asked = nil
		}
	}
}

func TestBadAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		text string
		want string
	}{
		"not JSON":      {200, "<html>", "Error:  client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint\n"},
		"error in HTML": {404, "<html>", "Error:  client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint\n"},
		"empty":         {200, "", "Error:  client: response body is empty\n"},
		"no node":       {200, "{}", "Error:  client: response has no node\n"},
		"an error":      {404, `{"errorCode":100,"message":"Key not found","cause":"/k","index":7}`, "Error:  100: Key not found (/k) [7]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			server := newFakeServer(t, always(c.code, c.text))
			got := typed(t, "", nil, "--endpoints", server.URL, "get", "/k")
			if want := (shown{exitServerError, "", c.want}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// A delete that tells no former value comes from no etcd, and must not crash.
func TestDeleteWithoutPrevNode(t *testing.T) {
	server := newFakeServer(t, always(200, `{"action":"delete","node":{"key":"/k"}}`))
	got := typed(t, "", nil, "--endpoints", server.URL, "rm", "/k")
	if want := (shown{0, "PrevNode.Value: \n", ""}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDebugKeepsTheBody(t *testing.T) {
	server := newFakeServer(t, always(200, aNode))
	got := typed(t, "", nil, "--debug", "--no-sync", "--endpoints", server.URL, "set", "/k", "a b")
	if want := "Cluster-Endpoints: " + server.URL + "\ncURL Command: curl -X PUT " + server.URL + "/v2/keys/k -d \"value=a+b\"\n"; got.stderr != want {
		t.Errorf("stderr %q, want %q", got.stderr, want)
	}
	if want := "PUT /v2/keys/k value=a+b"; len(server.asked) != 1 || server.asked[0] != want {
		t.Errorf("asked %q, want %q", server.asked, want)
	}
}

func TestPassword(t *testing.T) {
	user := ""
	server := newFakeServer(t, func(r *http.Request) (int, string) {
		name, password, _ := r.BasicAuth()
		user = name + "/" + password
		return 200, aNode
	})
	for _, c := range []struct{ flag, stdin, want, stderr string }{
		{"root:pw", "unread", "root/pw", ""},
		{"root:", "unread", "root/", ""},
		{"root", "pw\nrest", "root/pw", "Password: \n"},
		{"root", " pw \r\n", "root/pw", "Password: \n"},
		{"root", "pw", "root/pw", "Password: \n"},
	} {
		got := typed(t, c.stdin, nil, "--endpoints", server.URL, "-u", c.flag, "get", "/k")
		if want := (shown{0, "v\n", c.stderr}); got != want || user != c.want {
			t.Errorf("-u %q: %+v as %q, want %+v as %q", c.flag, got, user, want, c.want)
		}
	}
}

// Only the password's line is read: set may want the rest.
func TestPasswordLeavesTheRest(t *testing.T) {
	rest := strings.NewReader("pw\nvalue")
	line, err := readLine(rest)
	left, _ := io.ReadAll(rest)
	if err != nil || line != "pw" || string(left) != "value" {
		t.Errorf("line %q, left %q, %v", line, left, err)
	}
}

func TestClusterHealth(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		answer string
		want   shown
	}{
		{"text", 200, `{"health":"true"}`, shown{0, "member 1 is healthy: got healthy result from URL\ncluster is healthy\n", ""}},
		{"bool", 200, `{"health":true}`, shown{0, "member 1 is healthy: got healthy result from URL\ncluster is healthy\n", ""}},
		{"ill", 503, `{"health":"false"}`, shown{5, "member 1 is unhealthy: got unhealthy result from URL\ncluster is unavailable\n", ""}},
		{"garbage", 200, `x`, shown{5, "failed to check the health of member 1 on URL: invalid character 'x' looking for beginning of value\n" +
			"member 1 is unreachable: [URL] are all unreachable\ncluster is unavailable\n", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := newFakeServer(t, always(c.code, c.answer))
			got := typed(t, "", nil, "--endpoints", server.URL, "cluster-health")
			got.stdout = strings.ReplaceAll(got.stdout, server.URL, "URL")
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestInterruptEndsWatchWell(t *testing.T) {
	for _, args := range [][]string{{"watch", "/k"}, {"exec-watch", "/k", "--", "true"}} {
		ctx, cancel := context.WithCancel(t.Context())
		server := newFakeServer(t, nil)
		server.answer = func(r *http.Request) (int, string) {
			cancel()
			<-r.Context().Done()
			return 200, ""
		}
		stdio := IO{Stdout: io.Discard, Stderr: io.Discard, Getenv: func(string) string { return "" }}
		if err := execute(ctx, stdio, "lifeboat v2", append([]string{"--endpoints", server.URL}, args...)); err != nil {
			t.Errorf("%s: %v", args[0], err)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestFullDiskIsAnError(t *testing.T) {
	server := newFakeServer(t, always(200, aNode))
	stdio := IO{Stdout: fullDisk{}, Stderr: io.Discard, Getenv: func(string) string { return "" }}
	for _, args := range [][]string{{"get", "/k"}, {"watch", "/k"}, {"ls", "--help"}, {"member", "list"}} {
		err := execute(t.Context(), stdio, "lifeboat v2", append([]string{"--endpoints", server.URL}, args...))
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestIsConnectionError(t *testing.T) {
	refusedDial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{errors.New("x"), false},
		{refusedDial, true},
		{&net.OpError{Op: "read", Err: errors.New("x")}, true},
		{&net.OpError{Op: "write", Err: errors.New("x")}, false},
		{&net.OpError{Op: "write", Err: syscall.ECONNREFUSED}, true},
		{context.DeadlineExceeded, true},
		{context.Canceled, false},
		{client.Error{Code: 100}, false},
		{&client.ClusterError{Errors: []error{refusedDial, refusedDial}}, true},
		{&client.ClusterError{Errors: []error{refusedDial, errors.New("x")}}, false},
	} {
		if got := isConnectionError(c.err); got != c.want {
			t.Errorf("%#v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestImportSetsEveryKey(t *testing.T) {
	server := newFakeServer(t, always(201, aNode))
	snap := filepath.Join(t.TempDir(), "04.snap")
	var children []string
	for i := range 100 {
		children = append(children, fmt.Sprintf(`"k%d":{"Path":"/k%d","Value":"v%d","Children":null}`, i, i, i))
	}
	children = append(children, `"_h":{"Path":"/_h","Value":"hidden","Children":null}`)
	writeFile(t, snap, `{"Root":{"Path":"/","Children":{`+strings.Join(children, ",")+`}}}`)
	got := typed(t, "", nil, "--endpoints", server.URL, "import", "--snap", snap, "-c", "7")
	if want := "starting to import snapshot " + snap + " with 7 clients\nfinished importing 100 keys\n"; got.code != 0 || got.stdout != want {
		t.Errorf("%+v, want %q", got, want)
	}
	asked := strings.Join(server.asked, "\n") + "\n"
	for i := range 100 {
		if want := fmt.Sprintf("PUT /v2/keys/k%d value=v%d\n", i, i); strings.Count(asked, want) != 1 {
			t.Errorf("%q was sent %d times", want, strings.Count(asked, want))
		}
	}
	if strings.Contains(asked, "_h") {
		t.Error("the hidden key was sent")
	}
}

func TestImportEndsAtTheFirstFailure(t *testing.T) {
	server := newFakeServer(t, always(403, `{"errorCode":110,"message":"no","cause":"","index":0}`))
	snap := filepath.Join(t.TempDir(), "04.snap")
	writeFile(t, snap, oldKey)
	got := typed(t, "", nil, "--endpoints", server.URL, "import", "--snap", snap)
	if want := "failed to copy key: /k: 110: no () [0]\n"; got.code != exitBadArgs || !strings.HasSuffix(got.stderr, want) {
		t.Errorf("%+v, want it to end with %q", got, want)
	}
}

func TestImportOfBrokenFileSetsNothing(t *testing.T) {
	server := newFakeServer(t, always(201, aNode))
	snap := filepath.Join(t.TempDir(), "04.snap")
	for name, text := range map[string]string{
		"cut":    oldKey[:len(oldKey)-2],
		"binary": "\x08\x01\x12\x00",
	} {
		writeFile(t, snap, text)
		got := typed(t, "", nil, "--endpoints", server.URL, "import", "--snap", snap)
		if got.code != exitBadArgs || got.stdout != "" || len(server.asked) != 0 {
			t.Errorf("%s: %+v, asked %q", name, got, server.asked)
		}
	}
	writeFile(t, snap, oldKey)
	if got := typed(t, "", nil, "--endpoints", server.URL, "import", "--snap", snap, "--hidden", "/_x"); got.code != exitBadArgs || len(server.asked) != 0 {
		t.Errorf("no such hidden space: %+v, asked %q", got, server.asked)
	}
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// served is `lifeboat serve` in a process of its own.
type served struct {
	serveReport
	cmd    *exec.Cmd
	stderr *strings.Builder
}

// startServe runs it on a port that the kernel picks, until the test ends.
func startServe(t *testing.T, args ...string) *served {
	t.Helper()
	cmd := exec.Command("lifeboat", append([]string{"serve", "-o", "json", "--listen", "127.0.0.1:0"}, args...)...)
	s := &served{cmd: cmd, stderr: new(strings.Builder)}
	cmd.Stderr = s.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&s.serveReport); err != nil {
		_ = cmd.Wait()
		t.Fatalf("%v: %v\n%s", cmd, err, s.stderr)
	}
	return s
}

// end sends the signal and returns the exit code, -1 for a death by it.
func (s *served) end(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // what it says is the exit code
	return s.cmd.ProcessState.ExitCode()
}

// ask returns the answer's status and body.
func (s *served) ask(t *testing.T, method, path, value string) (int, string) {
	t.Helper()
	var body io.Reader
	if value != "" {
		body = strings.NewReader(url.Values{"value": {value}}.Encode())
	}
	req, err := http.NewRequest(method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (s *served) mustPut(t *testing.T, key, value string) {
	t.Helper()
	if code, body := s.ask(t, http.MethodPut, "/v2/keys"+key, value); code/100 != 2 {
		t.Fatalf("PUT %s: %d %s", key, code, body)
	}
}

func TestServeKeepsWhatItAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		s := startServe(t, "--data-dir", dir, "--create")
		if want := int64(i); s.Keys != want {
			t.Errorf("boot %d: %d keys, want %d", i, s.Keys, want)
		}
		s.mustPut(t, "/key"+sig.String(), "x")
		want := 0
		if sig == syscall.SIGKILL {
			want = -1
		}
		if code := s.end(t, sig); code != want {
			t.Errorf("%v: exit code %d, want %d\n%s", sig, code, want, s.stderr)
		}
	}
}

func TestServeTellsWhatItBooted(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7-cluster")
	s := startServe(t, "--data-dir", dir, "--clone")
	if s.Etcd != "2.3" || s.Mode != "clone" || s.MemberID != "d433dfc4c701a375" || s.ClusterID != "4b6896bb6ce73c38" ||
		len(s.RemovedMembers) != 2 || s.DroppedEntries != 1 || s.Keys == 0 || s.Name != "m1" {
		t.Errorf("report %+v", s.serveReport)
	}
	s.end(t, syscall.SIGTERM)
	for _, told := range []string{"removed: 9d3521232313e1b7, e3f0fc768a3d4087", "--keep-uncommitted"} {
		if !strings.Contains(s.stderr.String(), told) {
			t.Errorf("%q is not told:\n%s", told, s.stderr)
		}
	}
}

// A clone leaves the dir and the temporary folder as they were.
func TestServeCloneTouchesNothing(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	t.Setenv("TMPDIR", t.TempDir())
	before := treeState(t, dir)
	s := startServe(t, "--data-dir", dir, "--clone")
	s.mustPut(t, "/new", "x")
	if code := s.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.stderr)
	}
	if after := treeState(t, dir); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestServeReadOnly(t *testing.T) {
	dir := fixture.DataDir(t, "2.3.7")
	before := treeState(t, dir)
	s := startServe(t, "--data-dir", dir, "--read-only")
	if code, body := s.ask(t, http.MethodPut, "/v2/keys/new", "x"); code/100 == 2 || !strings.Contains(body, "read-only") {
		t.Errorf("PUT: %d %s", code, body)
	}
	s.end(t, syscall.SIGTERM)
	if after := treeState(t, dir); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// A dir that a server has open is refused to a second one, by the exit code
// for that, and a copy of it is served.
func TestServeRefusesAnOpenDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := startServe(t, "--data-dir", dir, "--create")
	s.mustPut(t, "/a", "x")
	code, stderr := runLifeboat(t, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	if code != exitLocked || !strings.Contains(stderr, dir) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	live, err := datadir.Files{WAL: filepath.Join(dir, "member", "wal")}.Live()
	if err != nil {
		t.Fatal(err)
	}
	if live == datadir.Running && !strings.Contains(stderr, "--clone") {
		t.Errorf("no hint: %s", stderr)
	}
	clone := startServe(t, "--data-dir", dir, "--clone")
	if code, body := clone.ask(t, http.MethodGet, "/v2/keys/a", ""); code != http.StatusOK {
		t.Errorf("the clone answers %d %s", code, body)
	}
	clone.end(t, syscall.SIGTERM)
	s.end(t, syscall.SIGTERM)
}

// runLifeboat runs a command to its end.
func runLifeboat(t *testing.T, args ...string) (code int, stderr string) {
	t.Helper()
	var talk strings.Builder
	cmd := exec.Command("lifeboat", args...)
	cmd.Stderr = &talk
	_ = cmd.Run() // what it says is the exit code
	return cmd.ProcessState.ExitCode(), talk.String()
}

// treeState lists the files below dir with mode, time and content.
func treeState(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		b.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + " " + fileDigest(t, path, info) + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func fileDigest(t *testing.T, path string, info os.FileInfo) string {
	t.Helper()
	if !info.Mode().IsRegular() {
		return ""
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d bytes, CRC %08x", len(data), crc32.ChecksumIEEE(data))
}

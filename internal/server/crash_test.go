package server_test

import (
	"bufio"
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
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// childDir names, for the process that is to be killed, the dir to serve.
const childDir = "SERVER_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Fprintln(os.Stderr, serveChild(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func serveChild(dir string) error {
	s, err := server.Open(context.Background(), dir, server.Options{SnapshotCount: 300})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	return s.Serve(l)
}

// child is a server in a process of its own.
func child(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("child: %v (%v)", err, cmd.Wait())
	}
	return cmd, strings.TrimSpace(line)
}

// writeUntilGone writes keys one after the other and returns those that were
// acknowledged before the server died.
func writeUntilGone(client *http.Client, base, dir string) []string {
	var acked []string
	for i := 0; ; i++ {
		key := fmt.Sprintf("%s/%d", dir, i)
		req, err := http.NewRequest("PUT", base+"/v2/keys"+key+"?value="+key, nil)
		if err != nil {
			return acked
		}
		resp, err := client.Do(req)
		if err != nil {
			return acked
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusCreated {
			acked = append(acked, key)
		}
	}
}

// killUnderWrites kills a server on the dir while 8 clients write below the
// key, and returns what was acknowledged.
func killUnderWrites(t *testing.T, dir, key string) []string {
	t.Helper()
	cmd, base := child(t, dir)
	var mu sync.Mutex
	var acked []string
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			keys := writeUntilGone(client, base, fmt.Sprintf("%s/writer%d", key, w))
			mu.Lock()
			defer mu.Unlock()
			acked = append(acked, keys...)
		})
	}
	time.Sleep(400 * time.Millisecond)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		t.Fatalf("child was to be killed: %v", err)
	}
	writers.Wait()
	return acked
}

func TestKilledServerLosesNothingAcknowledged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := server.Create(dir); err != nil {
		t.Fatal(err)
	}
	var acked []string
	for round := range 4 {
		acked = append(acked, killUnderWrites(t, dir, fmt.Sprint("/round", round))...)
		checkAcknowledged(t, dir, acked)
	}
	if len(acked) < 100 {
		t.Errorf("only %d writes were acknowledged", len(acked))
	}
	checkLog(t, filepath.Join(dir, "member", "wal"))
}

func checkAcknowledged(t *testing.T, dir string, acked []string) {
	t.Helper()
	s := open(t, dir, server.Options{ReadOnly: true})
	defer closeServer(t, s)
	for _, key := range acked {
		got := ask(s.Handler(), "GET", "/v2/keys"+key, "")
		if !strings.Contains(got.body, fmt.Sprintf(`"value":%q`, key)) {
			t.Errorf("%s was acknowledged: %s", key, got.body)
		}
	}
}

func checkLog(t *testing.T, dir string) {
	t.Helper()
	report, err := walcodec.Verify(context.Background(), os.DirFS(dir), walcodec.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Err(); err != nil {
		t.Error(err)
	}
}

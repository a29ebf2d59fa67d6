//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// lifeboatPath is the binary under test, built by TestMain.
var lifeboatPath string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "lifeboat-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Other users run it too.
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	lifeboatPath = filepath.Join(dir, "lifeboat")
	out, err := exec.Command("go", "build", "-o", lifeboatPath, "../cmd/lifeboat").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("build lifeboat: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// outcome is what a run of lifeboat said and how it ended.
type outcome struct {
	stdout, stderr string
	code           int
}

// lifeboatCommand prepares a run of the binary.
func lifeboatCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(lifeboatPath, args...)
	cmd.Env = cleanEnv()
	dieWithTest(cmd)
	return cmd
}

// finish runs the command to its end.
func finish(t testing.TB, cmd *exec.Cmd) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// lifeboat runs the binary and fails the test unless it ends well.
func lifeboat(t testing.TB, args ...string) outcome {
	t.Helper()
	o := finish(t, lifeboatCommand(args...))
	if o.code != 0 {
		t.Fatalf("lifeboat %v: exit %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}
	return o
}

// soak scales the length of a campaign by LIFEBOAT_SOAK.
func soak(t testing.TB, n int) int {
	t.Helper()
	text := os.Getenv("LIFEBOAT_SOAK")
	if text == "" {
		return n
	}
	factor, err := strconv.Atoi(text)
	if err != nil || factor < 1 {
		t.Fatalf("LIFEBOAT_SOAK=%s: want a number from 1 up", text)
	}
	return n * factor
}

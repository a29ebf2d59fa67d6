package scheduler

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a hook that runs a script.
func shell(script string, timeout time.Duration) HookConfig {
	return HookConfig{Command: []string{"/bin/sh", "-c", script}, Timeout: timeout}
}

// noOrphan fails if the process whose id is in a file is still there after a
// moment.
func noOrphan(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if !runs(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d of the hook is still there", pid)
}

// runs tells whether a process is there and no zombie: where nobody takes in
// orphans, they stay as such.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func TestHookEnvironment(t *testing.T) {
	t.Setenv("TEST_PLAIN", "kept")
	t.Setenv("TEST_ACCESS_KEY", "never")
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	t.Setenv("TEST_SOURCE", "from-env")
	file := filepath.Join(t.TempDir(), "out")
	h := shell(`echo "$TEST_PLAIN,$TEST_ACCESS_KEY,$NOTIFY_SOCKET,$LIFEBOAT_JOB,$MODE,$API_TOKEN" > "$OUT"`, time.Minute)
	h.Environment = map[string]Secret{
		"MODE": {Inline: "backup"}, "OUT": {Inline: "unused"}, "API_TOKEN": {Env: "TEST_SOURCE"},
	}
	h.Environment["OUT"] = Secret{Env: "TEST_OUT"}
	t.Setenv("TEST_OUT", file)
	if err := runHook(t.Context(), h, []string{"LIFEBOAT_JOB=nightly"}); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(file)
	if want := "kept,,,nightly,backup,from-env\n"; string(got) != want {
		t.Errorf("the hook saw %q, want %q", got, want)
	}
}

func TestHookErrors(t *testing.T) {
	t.Setenv("TEST_SECRET", "s3cr3t\nsecond line")
	secret := map[string]Secret{"PASS": {Env: "TEST_SECRET"}, "TOKEN": {Inline: "inl1ne"}, "MODE": {Inline: "fast"}}
	tests := map[string]struct {
		hook HookConfig
		want []string
		not  []string
	}{
		"exit code":          {shell("echo out; echo err >&2; exit 3", time.Minute), []string{"hook sh: exit status 3", `"out\nerr"`}, nil},
		"no program":         {HookConfig{Timeout: time.Minute}, []string{"no program is named"}, nil},
		"missing":            {HookConfig{Command: []string{"/nowhere/at-all"}, Timeout: time.Minute}, []string{"hook at-all", "no such file"}, nil},
		"missing secret":     {HookConfig{Command: []string{"true"}, Timeout: time.Minute, Environment: map[string]Secret{"A": {Env: "TEST_NOT_SET"}}}, []string{"environment variable A", "TEST_NOT_SET"}, nil},
		"secrets":            {HookConfig{Command: []string{"/bin/sh", "-c", `echo "$PASS $TOKEN $MODE"; exit 1`}, Timeout: time.Minute, Environment: secret}, []string{"***", "fast"}, []string{"s3cr3t", "second", "inl1ne"}},
		"no bytes of others": {shell(`printf '\377\000x'; exit 1`, time.Minute), []string{`"??x"`}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := runHook(t.Context(), tt.hook, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: want %q in it", err, want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(err.Error(), not) {
					t.Errorf("%v: has %q in it", err, not)
				}
			}
		})
	}
}

// A hook that ignores SIGTERM, with a child that does too, is gone when its time
// is over.
func TestHookHangs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	h := shell(`trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $! > `+file+`; while :; do sleep 0.1; done`, 300*time.Millisecond)
	began := time.Now()
	err := runHook(t.Context(), h, nil)
	if !errors.Is(err, errTimeout) {
		t.Errorf("got %v, want %v", err, errTimeout)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	noOrphan(t, file)
}

// A child in the background that keeps the output open is ended with the hook,
// and one that left the group is not waited for.
func TestHookLeavesChildren(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	began := time.Now()
	if err := runHook(t.Context(), shell(`sleep 300 & echo $! > `+file, time.Minute), nil); err != nil {
		t.Error(err)
	}
	noOrphan(t, file)
	if runtime.GOOS == "linux" { // has setsid
		if err := runHook(t.Context(), shell(`setsid sleep 15 & sleep 0.2; exit 0`, time.Minute), nil); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A flood of output stops neither hook nor daemon, and only its end is kept,
// with no half of a secret.
func TestHookFloods(t *testing.T) {
	t.Setenv("TEST_SECRET", "abc"+strings.Repeat("-", 400)+"fgh")
	h := shell(`i=0; while [ $i -lt 200 ]; do printf '%s%s' "$PASS" "$PASS"; i=$((i+1)); done; head -c 30000000 /dev/zero; i=0; while [ $i -lt 40 ]; do printf '%s' "$PASS"; i=$((i+1)); done; printf the-end; exit 1`, time.Minute)
	h.Environment = map[string]Secret{"PASS": {Env: "TEST_SECRET"}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := runHook(t.Context(), h, nil)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "the-end") {
		t.Fatalf("%v: want the end of the output", err)
	}
	if len(err.Error()) > 2*keepOutput || strings.Contains(err.Error(), "abc") || strings.Contains(err.Error(), "fgh") {
		t.Errorf("%d bytes of error: %.300s", len(err.Error()), err)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("allocated %d bytes for 30 MB of output", grown)
	}
}

func TestHookStopsWithTheDaemon(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	err := runHook(ctx, shell("sleep 300", time.Minute), nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it canceled", err)
	}
	if err := runHook(ctx, shell("exit 0", time.Minute), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a hook started after the stop: %v", err)
	}
}

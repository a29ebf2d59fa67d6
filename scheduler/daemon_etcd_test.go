package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A daemon as it is started, on a real etcd: backups come, are verified and
// pruned; what goes wrong is told by its cause.
func TestDaemonOnEtcd(t *testing.T) {
	url, dir := startEtcd(t), t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf(`
state-dir: state
repositories:
  r: {url: backups, create: true, retention: {last: 2}}
clusters:
  c: {endpoints: %q}
  gone: {endpoints: "http://127.0.0.1:1", dial-timeout: 1s, command-timeout: 1s}
jobs:
  j: {cluster: c, repositories: r, schedule: "@every 1s", verify: {level: structure}, lead: {elect: true, ttl: 2s}, hooks: {after: [{command: [sh, -c, %q]}]}}
  k: {cluster: gone, repositories: r, schedule: on-demand, retries: 0}
`, url, fmt.Sprintf("env > %[1]s/hook.new && mv %[1]s/hook.new %[1]s/hook", dir))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	var log testLog
	d := New(cfg, Options{Tool: "lifeboat test", Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		if t.Failed() {
			t.Log(string(log.text))
		}
	}()
	eventually(t, "four backups", func() bool { return d.Status().Jobs[0].Successes >= 4 })
	eventually(t, "the repository was looked at", func() bool {
		r := d.Status().Jobs[0].Repositories[0]
		return r.NewestProven != nil && r.NewestProven.Level == LevelStructure && r.Backups <= 3
	})
	if _, err := d.Trigger("k"); err != nil {
		t.Error(err)
	}
	eventually(t, "the job without etcd fails", func() bool { return d.Status().Jobs[1].FailuresInRow == 1 })
	if last := d.Status().Jobs[1].Last; last.Cause != CauseEndpoint || last.Stage != StageSave {
		t.Errorf("without etcd: %+v", last)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	checkHook(t, filepath.Join(dir, "hook"), d.Runs("j")[0])
	for _, rec := range d.Runs("j") {
		if rec.Result != Succeeded {
			t.Errorf("run %+v", rec)
		}
	}
}

// checkHook wants that the last hook was told of the last run.
func checkHook(t *testing.T, file string, last RunRecord) {
	t.Helper()
	env, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := last.Repositories[0]
	for _, want := range []string{
		"LIFEBOAT_RUN=" + last.ID, "LIFEBOAT_REPOSITORY=r", "LIFEBOAT_RESULT=success", "LIFEBOAT_CAUSE=", "LIFEBOAT_BACKUP_ID=" + out.BackupID,
		"LIFEBOAT_VERIFIED=structure", fmt.Sprint("LIFEBOAT_PLAIN_BYTES=", out.PlainBytes), fmt.Sprint("LIFEBOAT_STORED_BYTES=", out.StoredBytes),
		fmt.Sprint("LIFEBOAT_REVISION=", out.Revision),
	} {
		if !strings.Contains("\n"+string(env), "\n"+want+"\n") {
			t.Errorf("want %s of\n%s", want, env)
		}
	}
}

// testLog keeps what is logged.
type testLog struct{ text []byte }

func (l *testLog) Write(p []byte) (int, error) {
	l.text = append(l.text, p...)
	return len(p), nil
}

//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// slotLabel is where a backup says which slot of its schedule it is of.
const slotLabel = "lifeboat.slot"

// daemonConfig is that of a daemon among others, with a state dir of its own.
func daemonConfig(t testing.TB, repo string, members []*etcd, every time.Duration) string {
	t.Helper()
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.client)
	}
	path := filepath.Join(t.TempDir(), "lifeboat.yaml")
	text := fmt.Sprintf(`
state-dir: state
stop-timeout: 10s
http:
  listen: "off"
repositories:
  disk:
    url: %s
clusters:
  prod:
    endpoints: [%s]
    dial-timeout: 1s
    command-timeout: 2s
jobs:
  often:
    cluster: prod
    repositories: disk
    schedule: "@every %v"
    verify:
      level: digest
    retention:
      last: 1000
    lead:
      elect: true
      ttl: 2s
`, repo, strings.Join(endpoints, ", "), every)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Three daemons on a cluster of three take turns, though one after the other is
// killed, and a member too: no slot is lost, and none saved twice.
func TestDaemonsElectOneThatRuns(t *testing.T) {
	members := startCluster(t, etcd37, 3)
	if err := members[0].put("a", "b"); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(t.TempDir(), "repo")
	lifeboat(t, "init", "--repo", repo)
	// Longer than a dead leader keeps its place, also while etcd elects one anew,
	// which has taken 16 s on a loaded machine.
	const every = 20 * time.Second
	var configs []string
	daemons := make([]*process, 3)
	launch := func(i int) {
		p, err := startProcess(t, lifeboatCommand("run", "--config", configs[i]))
		if err != nil {
			t.Fatal(err)
		}
		daemons[i] = p
	}
	for i := range daemons {
		configs = append(configs, daemonConfig(t, repo, members, every))
		launch(i)
	}
	time.Sleep(2 * every)
	for round := range soak(t, 3) {
		i := round % len(daemons)
		daemons[i].kill()
		if round == 1 {
			members[1].Kill()
		}
		time.Sleep(every + every/2)
		launch(i)
		if round == 2 {
			if err := members[1].Restart(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(every)
	}
	time.Sleep(2 * every)
	for _, d := range daemons {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
	l, _ := listSound(t, openRepo(t, repo))
	checkSlots(t, l.Backups, every, daemons)
}

// checkSlots wants one backup of every slot between the first and the last.
func checkSlots(t testing.TB, backups []*repository.Backup, every time.Duration, daemons []*process) {
	t.Helper()
	var slots []time.Time
	for _, b := range backups {
		slot, err := time.Parse(time.RFC3339, b.Manifest.Labels[slotLabel])
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, slot)
	}
	slices.SortFunc(slots, time.Time.Compare)
	t.Logf("%d slots saved", len(slots))
	if len(slots) < 8 {
		t.Errorf("only %d slots: the test shows nothing", len(slots))
	}
	wrong := false
	for i, slot := range slots[1:] {
		switch gap := slot.Sub(slots[i]); {
		case gap == 0:
			wrong = true
			t.Errorf("slot %s was saved twice", slot)
		case gap != every:
			wrong = true
			t.Errorf("between %s and %s slots were lost", slots[i], slot)
		}
	}
	for i, d := range daemons {
		if wrong {
			t.Logf("daemon %d:\n%s", i, d.tail())
		}
	}
}

// The story of the README from an empty folder: write the example, start, see
// backups come, kill the daemon and the cluster, restore.
func TestDaemonFromAnEmptyFolder(t *testing.T) {
	e := start(t, etcd36, newDataDir(t))
	if err := e.put("a", "b"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "lifeboat.yaml")
	text := lifeboat(t, "config", "example", "--starter").stdout
	text = strings.Replace(text, "http://127.0.0.1:2379", e.client, 1) + "\nhttp:\n  listen: 127.0.0.1:" + fmt.Sprint(freePorts(t, 1)[0]) + "\nstop-timeout: 3s\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon, err := startProcess(t, lifeboatCommand("run", "--config", config))
	if err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(dir, "backups")
	waitForBackups(t, repo, 1)
	lifeboat(t, "trigger", "often", "--config", config)
	daemon.kill()
	if daemon, err = startProcess(t, lifeboatCommand("run", "--config", config)); err != nil {
		t.Fatal(err)
	}
	if err := e.put("c", "d"); err != nil {
		t.Fatal(err)
	}
	want := e.v3Dump()
	waitForBackups(t, repo, len(listRepo(t, repo).Backups)+2)
	e.Kill()
	if err := os.RemoveAll(e.dir); err != nil {
		t.Fatal(err)
	}
	time.Sleep(6 * time.Second) // a run that fails
	if err := daemon.stop(); err != nil {
		t.Error(err)
	}
	lifeboat(t, "list", "--repo", repo, "--max-age", "1h")
	restored := filepath.Join(dir, "restored")
	lifeboat(t, "restore", "--repo", repo, "latest", "--data-dir", restored)
	if diff := diffLines(start(t, etcd36, restored).v3Dump().lines(), want.lines()); diff != "" {
		t.Error(diff)
	}
}

// waitForBackups waits until a repository holds so many.
func waitForBackups(t testing.TB, repo string, n int) {
	t.Helper()
	for range 300 {
		if _, err := os.Stat(filepath.Join(repo, "lifeboat.json")); err == nil && len(listRepo(t, repo).Backups) >= n {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s does not come to hold %d backups", repo, n)
}

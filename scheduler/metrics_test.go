package scheduler

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// exposed is what /metrics says of the daemon.
func exposed(t *testing.T, c Controller) string {
	t.Helper()
	w := request(newHandler(loopback(), c, quiet()), "GET", "/metrics")
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := exposed(t, aDaemon(time.Now()))
		now := time.Now().Unix()
		backup := `{backup_job="nightly",cluster="production",repository="disk"}`
		proof := `{backup_job="nightly",cluster="production",level="boot",repository="disk"}`
		run := `{backup_job="nightly",cluster="production",kind="backup"}`
		for _, want := range []string{
			"lifeboat_backup_age_seconds" + backup + " 3600",
			fmt.Sprintf("lifeboat_backup_timestamp_seconds%s %s", backup, float(now-3600)),
			"lifeboat_backup_size_bytes" + backup + " 4096",
			"lifeboat_backup_stored_bytes" + backup + " 1024",
			"lifeboat_backup_revision" + backup + " 42",
			"lifeboat_backup_duration_seconds" + backup + " 3",
			"lifeboat_backups" + backup + " 9",
			"lifeboat_repository_up" + backup + " 1",
			fmt.Sprintf("lifeboat_backup_proof_timestamp_seconds%s %s", proof, float(now-60)),
			"lifeboat_failures_in_row" + run + " 2",
			"lifeboat_skipped_runs_total" + run + " 3",
			"lifeboat_missed_runs_total" + run + " 4",
			"lifeboat_caught_up_runs_total" + run + " 1",
			"lifeboat_last_run_duration_seconds" + run + " 5",
			"lifeboat_running" + run + " 0",
			fmt.Sprintf("lifeboat_next_run_timestamp_seconds%s %s", run, float(now+60)),
			`lifeboat_runs_total{backup_job="nightly",cause="",cluster="production",kind="backup",result="success"} 7`,
			`lifeboat_runs_total{backup_job="nightly",cause="endpoint",cluster="production",kind="backup",result="failure"} 2`,
			`lifeboat_runs_total{backup_job="nightly",cause="disk",cluster="production",kind="backup",result="failure"} 0`,
			`lifeboat_runs_total{backup_job="nightly",cause="",cluster="production",kind="drill",result="success"} 0`,
			`lifeboat_leader{backup_job="nightly",cluster="production"} 1`,
			`version="0.1.0"`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s", want)
			}
		}
		if t.Failed() {
			t.Log(text)
		}
	})
}

// float writes a number as the text format does.
func float(n int64) string { return fmt.Sprint(float64(n)) }

// What has not been yet has no value, so that no alert takes 1970 for an answer.
func TestMetricsOfNothing(t *testing.T) {
	c := &fakeController{status: Status{Jobs: []JobStatus{{Name: "n", Cluster: "c", Repositories: []RepositoryStatus{{Name: "r"}}}}}}
	text := exposed(t, c)
	for _, not := range []string{"lifeboat_backup", "lifeboat_last_", "lifeboat_next_", "lifeboat_leader", "lifeboat_repository", "lifeboat_config_loaded"} {
		if strings.Contains(text, "\n"+not) {
			t.Errorf("has %s", not)
		}
	}
	if !strings.Contains(text, `lifeboat_failures_in_row{backup_job="n",cluster="c",kind="backup"} 0`) {
		t.Error("no failures_in_row")
	}
}

func TestMetricsFollowConventions(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(exposed(t, aDaemon(time.Now())))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// docs/daemon.md lists each metric with its type and labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(lifeboat_[a-z_]+)` \\| (\\w+) \\| ([^|]*) \\| ([^|]*) \\|$").FindAllStringSubmatch(string(doc), -1)
	var got, want []string
	for _, row := range rows {
		got = append(got, strings.Join([]string{row[1], row[2], strings.ReplaceAll(row[3], "`", "")}, " "))
	}
	for _, m := range Metrics() {
		want = append(want, strings.Join([]string{m.Name, m.Type, strings.Join(m.Labels, ", ")}, " "))
		if !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: its help is no sentence", m.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("documented:\n%s\nare:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// All metrics that the daemon may show are in the list, and are shown once there
// is something to show.
func TestMetricsAreComplete(t *testing.T) {
	text := exposed(t, aDaemon(time.Now()))
	for _, m := range Metrics() {
		if !strings.Contains(text, "\n# TYPE "+m.Name+" "+m.Type+"\n") {
			t.Errorf("%s is not shown", m.Name)
		}
	}
	if got, want := strings.Count(text, "\n# TYPE lifeboat_"), len(Metrics()); got != want {
		t.Errorf("%d metrics are shown, want %d", got, want)
	}
}

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

// watchedDaemon is a daemon with a job, and all who hear of it.
type watchedDaemon struct {
	t        testing.TB
	etcd     *etcd
	endpoint string
	certs    *authority
	dir      string
	repo     string // "": a folder in dir
	timeout  string // of a run; "": 30s
	config   string
	address  string // of its HTTP server
	proc     *process
	receiver *receiver
}

func (d *watchedDaemon) path(file string) string { return filepath.Join(d.dir, file) }

func (d *watchedDaemon) copyFile(from, to string) {
	d.t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *watchedDaemon) remove(file string) {
	d.t.Helper()
	if err := os.Remove(file); err != nil {
		d.t.Fatal(err)
	}
}

// start runs the daemon with a new repository, and waits until it is ready.
func (d *watchedDaemon) start() {
	d.t.Helper()
	if d.repo == "" {
		d.repo = d.path("repo")
	}
	lifeboat(d.t, "init", "--repo", d.repo)
	d.copyFile(d.certs.ca, d.path("ca.crt"))
	d.receiver = newReceiver(d.t)
	d.config = d.path("lifeboat.yaml")
	err := retryPorts(func() error {
		d.address = fmt.Sprintf("127.0.0.1:%d", freePorts(d.t, 1)[0])
		if err := os.WriteFile(d.config, []byte(d.configuration()), 0o600); err != nil {
			return err
		}
		proc, err := startProcess(d.t, lifeboatCommand("run", "--config", d.config))
		if err != nil {
			return err
		}
		d.proc = proc
		return d.waitReady()
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *watchedDaemon) configuration() string {
	if d.timeout == "" {
		d.timeout = "30s"
	}
	return fmt.Sprintf(`
state-dir: state
stop-timeout: 10s
http:
  listen: %s
log:
  format: json
repositories:
  store:
    url: "%s"
clusters:
  prod:
    endpoints: ["%s"]
    tls:
      cacert: ca.crt
      cert: %s
      key: %s
    dial-timeout: 3s
    command-timeout: 3s
    include: [lifeboat.yaml]
jobs:
  nightly:
    cluster: prod
    repositories: store
    schedule: on-demand
    timeout: %s
    retries: 1
    retention:
      last: 100
    hooks:
      before:
        - command: [sh, -c, 'test ! -e %s || { trap "" TERM; echo waiting for a lock; sleep 300; }']
          timeout: 2s
    ping:
      url: %[8]s/ok
      fail-url: %[8]s/fail
notify:
  chat:
    on: [failure, recovery]
    webhook:
      url: %[8]s/chat
`, d.address, d.repo, d.endpoint, filepath.Join(d.certs.dir, "client.crt"), d.certs.key, d.timeout, d.path("hang"), d.receiver.url)
}

func (d *watchedDaemon) waitReady() error {
	for deadline := time.Now().Add(bootTimeout); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if d.proc.ended() {
			return fmt.Errorf("the daemon ended: %v\n%s", d.proc.err, d.proc.tail())
		}
		if status, _ := d.get("/readyz"); status == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("the daemon is not ready within %v\n%s", bootTimeout, d.proc.tail())
}

// get asks the daemon; the status is 0 if it does not answer.
func (d *watchedDaemon) get(path string) (status int, body string) {
	client := http.Client{Timeout: callTimeout}
	resp, err := client.Get("http://" + d.address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// run asks for a run and waits for its end.
func (d *watchedDaemon) run() (scheduler.JobStatus, scheduler.RunRecord) {
	d.t.Helper()
	said := strings.Fields(lifeboat(d.t, "trigger", "nightly", "--config", d.config).stdout)
	id := said[len(said)-1]
	var job scheduler.JobStatus
	persist(d.t, "run "+id, func() error {
		status, body := d.get("/api/v1/jobs/nightly")
		job = scheduler.JobStatus{}
		if err := json.Unmarshal([]byte(body), &job); err != nil {
			return fmt.Errorf("%d %s: %w", status, body, err)
		}
		if job.Last == nil || job.Last.ID != id {
			return fmt.Errorf("has not ended: %s", body)
		}
		return nil
	})
	return job, *job.Last
}

// mustSave wants a run to make a backup, so that there are n.
func (d *watchedDaemon) mustSave(n int) {
	d.t.Helper()
	job, run := d.run()
	if run.Result != scheduler.Succeeded || job.FailuresInRow != 0 || job.Successes != int64(n) {
		d.t.Fatalf("run %+v, %d failures in a row", run, job.FailuresInRow)
	}
	d.receiver.wantPing("/ok")
	if n > 1 {
		d.mustTell("the webhook", d.receiver.wantEvent(scheduler.Recovery, run), []string{"nightly", "well again"})
	}
	d.mustMeasure(`lifeboat_failures_in_row{backup_job="nightly",cluster="prod",kind="backup"} 0`)
	d.mustMeasure(fmt.Sprintf(`lifeboat_runs_total{backup_job="nightly",cause="",cluster="prod",kind="backup",result="success"} %d`, n))
	d.mustMeasure(`lifeboat_repository_up{backup_job="nightly",cluster="prod",repository="store"} 1`)
	d.mustMeasure(fmt.Sprintf(`lifeboat_backups{backup_job="nightly",cluster="prod",repository="store"} %d`, n))
	d.mustHold(n)
}

// mustHold wants n backups in the repository, and no rest of another.
func (d *watchedDaemon) mustHold(n int) {
	d.t.Helper()
	if l := listRepo(d.t, d.repo); len(l.Backups) != n || len(l.Unfinished) > 0 {
		d.t.Errorf("%d backups, want %d, and %d unfinished", len(l.Backups), n, len(l.Unfinished))
	}
}

// mustFail wants a run to fail and to say why to everybody.
func (d *watchedDaemon) mustFail(f fault) {
	d.t.Helper()
	job, run := d.run()
	d.t.Logf("%s: %s: %s (%.1f s)", run.Stage, run.Cause, run.Error, run.Seconds())
	if run.Result != scheduler.Failed || run.Stage != f.stage || run.Cause != f.cause || job.FailuresInRow != 1 || job.Failures[f.cause] != 1 {
		d.t.Errorf("run %+v of job %+v, want it to fail at %s for %s", run, job, f.stage, f.cause)
	}
	d.mustTell("the API", run.Error, f.reason)
	d.mustTell("the log", d.logged(run.ID, f.cause), f.reason)
	d.mustMeasure(`lifeboat_failures_in_row{backup_job="nightly",cluster="prod",kind="backup"} 1`)
	d.mustMeasure(fmt.Sprintf(`lifeboat_runs_total{backup_job="nightly",cause="%s",cluster="prod",kind="backup",result="failure"} 1`, f.cause))
	if f.store {
		d.mustMeasure(`lifeboat_repository_up{backup_job="nightly",cluster="prod",repository="store"} 0`)
	}
	d.receiver.wantPing("/fail")
	d.mustTell("the webhook", d.receiver.wantEvent(scheduler.Failure, run), f.reason)
}

// mustTell wants a text to name all of a reason.
func (d *watchedDaemon) mustTell(who, text string, reason []string) {
	d.t.Helper()
	for _, part := range reason {
		if !strings.Contains(text, part) {
			d.t.Errorf("%s says %q: want %q in it", who, text, part)
		}
	}
}

// logged is the error that the log has of a run, in one line under the cause.
func (d *watchedDaemon) logged(run string, cause scheduler.Cause) (text string) {
	d.t.Helper()
	persist(d.t, "the failure in the log", func() error {
		var all []string
		for _, e := range d.errors() {
			if e.Run == run && e.Job == "nightly" && e.Cause == cause {
				all = append(all, e.Error)
			}
		}
		text = strings.Join(all, "\n")
		if len(all) != 1 {
			return fmt.Errorf("%d lines tell of it:\n%s", len(all), d.proc.tail())
		}
		return nil
	})
	return text
}

// logEntry is what a line of the log has of a run.
type logEntry struct {
	Level, Run, Job, Error string
	Cause                  scheduler.Cause
}

// errors are those in the log, in which all has to be JSON.
func (d *watchedDaemon) errors() []logEntry {
	d.t.Helper()
	var all []logEntry
	for line := range strings.Lines(d.proc.log.String()) {
		var e logEntry
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			d.t.Fatalf("log line %q: %v", line, err)
		}
		if e.Level == "ERROR" {
			all = append(all, e)
		}
	}
	return all
}

// mustMeasure wants a line among the metrics, soon.
func (d *watchedDaemon) mustMeasure(line string) {
	d.t.Helper()
	persist(d.t, line, func() error {
		_, body := d.get("/metrics")
		lines := strings.Split(body, "\n")
		if slices.Contains(lines, line) {
			return nil
		}
		name, _, _ := strings.Cut(line, "{")
		return fmt.Errorf("%q", slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, name) }))
	})
}

// receiver is told of runs.
type receiver struct {
	t     testing.TB
	url   string
	heard chan call
}

// call is one of the dead man's switch (/ok, /fail) or of the webhook (/chat).
type call struct {
	path string
	body scheduler.Notification // of a webhook
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{t: t, heard: make(chan call, 100)}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	c := call{path: req.URL.Path}
	if req.Method == http.MethodPost {
		if err := json.NewDecoder(req.Body).Decode(&c.body); err != nil {
			r.t.Errorf("POST %s: %v", c.path, err)
		}
	}
	r.heard <- c
}

// next is the next call.
func (r *receiver) next() call {
	r.t.Helper()
	select {
	case c := <-r.heard:
		return c
	case <-time.After(callTimeout):
		r.t.Fatal("nobody was told")
		return call{}
	}
}

// wantPing wants the next call to be that of the dead man's switch.
func (r *receiver) wantPing(path string) {
	r.t.Helper()
	if c := r.next(); c.path != path {
		r.t.Errorf("call of %s, want %s", c.path, path)
	}
}

// wantEvent wants the next call to be the webhook's of a run, and returns the
// line for people.
func (r *receiver) wantEvent(event scheduler.Event, run scheduler.RunRecord) string {
	r.t.Helper()
	c := r.next()
	if c.path != "/chat" || c.body.Event != event || c.body.Run.ID != run.ID || c.body.Run.Cause != run.Cause || c.body.Run.Error != run.Error {
		r.t.Errorf("%s was told %+v, want %s of %+v", c.path, c.body, event, run)
	}
	if strings.Contains(c.body.Text, "\n") {
		r.t.Errorf("the text is more than one line: %q", c.body.Text)
	}
	return c.body.Text
}

// wantNothing wants nobody to have called since.
func (r *receiver) wantNothing() {
	r.t.Helper()
	select {
	case c := <-r.heard:
		r.t.Errorf("%s was told %+v too", c.path, c.body)
	default:
	}
}

package scheduler

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metric is a metric that the daemon has.
type Metric struct {
	Name   string
	Type   string // gauge or counter
	Labels []string
	Help   string
}

// Labels of metrics. It is not "job", which Prometheus itself gives to all that
// it scrapes, so that ours would be renamed.
var (
	noLabels     []string
	jobLabels    = []string{"cluster", "backup_job"}
	kindLabels   = []string{"cluster", "backup_job", "kind"}
	runLabels    = []string{"cluster", "backup_job", "kind", "result", "cause"}
	backupLabels = []string{"cluster", "backup_job", "repository"}
	proofLabels  = []string{"cluster", "backup_job", "repository", "level"}
)

// The metrics.
var (
	metricBuild        = gauge("build_info", "Always 1; what runs here is in the labels.", []string{"version", "goversion"})
	metricConfigLoaded = gauge("config_loaded_timestamp_seconds", "When the configuration took effect that is in force.", noLabels)
	metricConfigFailed = gauge("config_rejected", "1 if the configuration file was changed and is wrong, so that the older one stays in force.", noLabels)

	metricBackupTime     = gauge("backup_timestamp_seconds", "When the newest backup was begun.", backupLabels)
	metricBackupAge      = gauge("backup_age_seconds", "How long ago the newest backup was begun.", backupLabels)
	metricBackupPlain    = gauge("backup_size_bytes", "Size of the newest backup as etcd wrote it.", backupLabels)
	metricBackupStored   = gauge("backup_stored_bytes", "Size of the newest backup as it is stored, compressed and encrypted.", backupLabels)
	metricBackupRevision = gauge("backup_revision", "Revision of the newest backup.", backupLabels)
	metricBackupDuration = gauge("backup_duration_seconds", "How long the newest backup took.", backupLabels)
	metricBackups        = gauge("backups", "How many backups of the cluster there are.", backupLabels)
	metricProvenTime     = gauge("backup_proven_timestamp_seconds", "When the newest backup was begun that a proof has passed.", proofLabels)
	metricProofTime      = gauge("backup_proof_timestamp_seconds", "When the newest passed proof of that backup was made.", proofLabels)
	metricRepositoryUp   = gauge("repository_up", "1 if the repository could be looked at the last time.", backupLabels)
	metricRepositoryTime = gauge("repository_checked_timestamp_seconds", "When the repository was last looked at.", backupLabels)

	metricRuns        = counter("runs_total", "Runs that ended, by result and by the cause of failure.", runLabels)
	metricRunning     = gauge("running", "1 while a run is under way.", kindLabels)
	metricLastRun     = gauge("last_run_timestamp_seconds", "When the last run ended, well or not.", kindLabels)
	metricLastSuccess = gauge("last_success_timestamp_seconds", "When the last run ended that went well.", kindLabels)
	metricLastTook    = gauge("last_run_duration_seconds", "How long the last run took.", kindLabels)
	metricFailures    = gauge("failures_in_row", "How many runs have failed since the last that went well.", kindLabels)
	metricNext        = gauge("next_run_timestamp_seconds", "When the next run starts.", kindLabels)
	metricSkipped     = counter("skipped_runs_total", "Runs that did not start because the one before still ran.", kindLabels)
	metricMissed      = counter("missed_runs_total", "Runs that did not start because the daemon was down.", kindLabels)
	metricCaughtUp    = counter("caught_up_runs_total", "Late runs that stand for missed ones.", kindLabels)
	metricLeader      = gauge("leader", "1 if this daemon runs the job, 0 if another does.", jobLabels)
	metricLeaderError = gauge("leader_unknown", "1 if nobody can tell which daemon runs the job.", jobLabels)
)

// metrics are all of them, in the order of the documentation.
func metrics() []*metric {
	return []*metric{
		metricBuild, metricConfigLoaded, metricConfigFailed,
		metricBackupTime, metricBackupAge, metricBackupPlain, metricBackupStored, metricBackupRevision,
		metricBackupDuration, metricBackups, metricProvenTime, metricProofTime, metricRepositoryUp, metricRepositoryTime,
		metricRuns, metricRunning, metricLastRun, metricLastSuccess, metricLastTook, metricFailures, metricNext,
		metricSkipped, metricMissed, metricCaughtUp, metricLeader, metricLeaderError,
	}
}

// Metrics are the metrics of the daemon, beside those of its process and of the
// Go runtime.
func Metrics() []Metric {
	var all []Metric
	for _, m := range metrics() {
		all = append(all, m.Metric)
	}
	return all
}

// metric is a metric and how the library knows it.
type metric struct {
	Metric
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels []string) *metric {
	return newMetric(name, help, "gauge", prometheus.GaugeValue, labels)
}

func counter(name, help string, labels []string) *metric {
	return newMetric(name, help, "counter", prometheus.CounterValue, labels)
}

func newMetric(name, help, word string, kind prometheus.ValueType, labels []string) *metric {
	name = "lifeboat_" + name
	return &metric{
		Metric: Metric{Name: name, Type: word, Labels: labels, Help: help},
		desc:   prometheus.NewDesc(name, help, labels, nil),
		kind:   kind,
	}
}

// collector makes metrics of the daemon's status, anew for each scrape.
type collector struct {
	controller Controller
	goVersion  string
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics() {
		ch <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(ch chan<- prometheus.Metric) {
	out := samples(ch)
	s := c.controller.Status()
	out.number(metricBuild, 1, strings.TrimPrefix(s.Tool, "lifeboat "), c.goVersion)
	out.time(metricConfigLoaded, s.ConfigLoaded)
	out.truth(metricConfigFailed, s.ConfigError != "")
	for _, j := range s.Jobs {
		out.job(j, time.Now())
	}
}

// samples takes what is measured.
type samples chan<- prometheus.Metric

func (s samples) number(m *metric, value float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
}

// time leaves out what has not been yet: 1970 would be an answer.
func (s samples) time(m *metric, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.number(m, float64(t.UnixMilli())/1000, labels...)
	}
}

func (s samples) truth(m *metric, yes bool, labels ...string) {
	if yes {
		s.number(m, 1, labels...)
	} else {
		s.number(m, 0, labels...)
	}
}

func (s samples) job(j JobStatus, now time.Time) {
	s.runs(j.RunsStatus, j.Cluster, j.Name, string(BackupRun))
	if j.Drill != nil {
		s.runs(*j.Drill, j.Cluster, j.Name, string(DrillRun))
	}
	for _, r := range j.Repositories {
		s.repository(r, now, j.Cluster, j.Name, r.Name)
	}
	if j.Leader != nil {
		s.truth(metricLeader, *j.Leader, j.Cluster, j.Name)
		s.truth(metricLeaderError, j.LeaderError != "", j.Cluster, j.Name)
	}
}

func (s samples) runs(r RunsStatus, labels ...string) {
	s.truth(metricRunning, r.Running != nil, labels...)
	if r.Last != nil {
		s.time(metricLastRun, r.Last.Finished, labels...)
		s.number(metricLastTook, r.Last.Seconds(), labels...)
	}
	if r.LastSuccess != nil {
		s.time(metricLastSuccess, r.LastSuccess.Finished, labels...)
	}
	s.number(metricFailures, float64(r.FailuresInRow), labels...)
	s.time(metricNext, r.Next, labels...)
	s.number(metricSkipped, float64(r.Skipped), labels...)
	s.number(metricMissed, float64(r.Missed), labels...)
	s.number(metricCaughtUp, float64(r.CaughtUp), labels...)

	s.number(metricRuns, float64(r.Successes), slices.Concat(labels, []string{string(Succeeded), ""})...)
	for _, cause := range Causes() { // the zeros too: an increase needs a begin
		s.number(metricRuns, float64(r.Failures[cause]), slices.Concat(labels, []string{string(Failed), string(cause)})...)
	}
}

func (s samples) repository(r RepositoryStatus, now time.Time, labels ...string) {
	if !r.Checked.IsZero() {
		s.truth(metricRepositoryUp, r.Error == "", labels...)
		s.time(metricRepositoryTime, r.Checked, labels...)
	}
	if r.Error == "" && !r.Checked.IsZero() {
		s.number(metricBackups, float64(r.Backups), labels...)
	}
	if b := r.Newest; b != nil {
		s.time(metricBackupTime, b.Time, labels...)
		s.number(metricBackupAge, now.Sub(b.Time).Seconds(), labels...)
		s.number(metricBackupPlain, float64(b.PlainBytes), labels...)
		s.number(metricBackupStored, float64(b.StoredBytes), labels...)
		if b.Revision > 0 {
			s.number(metricBackupRevision, float64(b.Revision), labels...)
		}
		s.number(metricBackupDuration, b.Seconds, labels...)
	}
	if b := r.NewestProven; b != nil {
		level := slices.Concat(labels, []string{string(b.Level)})
		s.time(metricProvenTime, b.Time, level...)
		s.time(metricProofTime, b.Proven, level...)
	}
}

// newRegistry holds the daemon's metrics and those of its process.
func newRegistry(c Controller, goVersion string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collector{c, goVersion},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return r
}

func metricsHandler(c Controller, goVersion string) http.Handler {
	return promhttp.HandlerFor(newRegistry(c, goVersion), promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

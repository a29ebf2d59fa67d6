package scheduler

import (
	"context"
	"errors"
	"time"
)

// Errors of a [Controller] to branch on.
var (
	ErrNoJob    = errors.New("no such job")
	ErrStopping = errors.New("the daemon is stopping")
)

// Status is what the daemon tells of itself. Its JSON, and that of all that is
// in it, is a stable contract: names stay, new ones may come.
type Status struct {
	Tool    string    `json:"tool"` // with its version
	Host    string    `json:"host"`
	Started time.Time `json:"started"` // when the daemon started

	Config       string    `json:"config"`                 // path of the file
	ConfigLoaded time.Time `json:"config_loaded"`          // when it took effect
	ConfigError  string    `json:"config_error,omitempty"` // why a newer file did not, and this one stays

	Stopping bool        `json:"stopping"` // no run starts any more
	Jobs     []JobStatus `json:"jobs"`     // by name
}

// JobStatus is how a job does.
type JobStatus struct {
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	Timezone string `json:"timezone"`
	RunsStatus
	Drill *RunsStatus `json:"drill,omitempty"` // nil: it has none

	// Leader tells whether this daemon is the one that runs the job; nil where
	// there is no election.
	Leader       *bool              `json:"leader,omitempty"`
	LeaderError  string             `json:"leader_error,omitempty"` // why nobody can tell who is
	Repositories []RepositoryStatus `json:"repositories"`           // in the order of the configuration
}

// RunsStatus is how the runs of a schedule do: a job's, or those of its drill.
type RunsStatus struct {
	Schedule    string     `json:"schedule"`               // as written, or "on-demand"
	Next        time.Time  `json:"next,omitzero"`          // when the next run starts; zero: nobody knows
	Queued      string     `json:"queued,omitempty"`       // id of the run that was asked for and waits
	Running     *RunRecord `json:"running,omitempty"`      // the run under way, as far as it is
	Last        *RunRecord `json:"last,omitempty"`         // the newest that ended, in success or failure
	LastSuccess *RunRecord `json:"last_success,omitempty"` // the newest that ended well
	// FailuresInRow is how many runs have failed since the last good one.
	FailuresInRow int `json:"failures_in_row"`

	Skipped   int64 `json:"skipped"`   // slots that came while a run still ran
	Missed    int64 `json:"missed"`    // slots that passed while the daemon was down, without a run of their own
	CaughtUp  int64 `json:"caught_up"` // late runs that stand for missed slots
	Elsewhere int64 `json:"elsewhere"` // slots that another daemon ran

	// Totals since the state was begun, which survive restarts. Failures are by
	// cause.
	Successes int64           `json:"successes"`
	Failures  map[Cause]int64 `json:"failures"`
}

// RepositoryStatus is what is known of a job's backups in one repository.
type RepositoryStatus struct {
	Name         string     `json:"name"`
	Checked      time.Time  `json:"checked,omitzero"`        // when the repository was last looked at
	Error        string     `json:"error,omitempty"`         // why it could not be looked at then
	Backups      int        `json:"backups"`                 // of the cluster, when it was looked at
	Newest       *BackupRef `json:"newest,omitempty"`        // newest backup of the cluster
	NewestProven *BackupRef `json:"newest_proven,omitempty"` // newest that a proof passed and none found damaged
}

// RepositoryBackups are the backups of a job's cluster in one repository.
type RepositoryBackups struct {
	Name    string      `json:"name"`
	Error   string      `json:"error,omitempty"` // why they could not be listed
	Backups []BackupRef `json:"backups"`         // the newest first
}

// BackupRef names a backup.
type BackupRef struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"` // when the backup was begun: nothing later is sure to be in it
	Revision    int64     `json:"revision,omitempty"`
	PlainBytes  int64     `json:"plain_bytes"`
	StoredBytes int64     `json:"stored_bytes"`
	Level       Level     `json:"level,omitempty"`        // of its newest passed proof
	Proven      time.Time `json:"proven,omitzero"`        // when that proof was made
	Seconds     float64   `json:"seconds,omitempty"`      // that the backup took
	EtcdVersion string    `json:"etcd_version,omitempty"` // that it is of
}

// RunKind is what a run does.
type RunKind string

// The kinds of runs.
const (
	BackupRun RunKind = "backup"
	DrillRun  RunKind = "drill"
)

// Result is how a run ended.
type Result string

// The results.
const (
	Succeeded Result = "success"
	Failed    Result = "failure"
	Skipped   Result = "skipped" // another daemon ran it
)

// Cause is why a run failed, in one word.
type Cause string

// The causes. There are no others.
const (
	CauseEndpoint Cause = "endpoint" // etcd did not answer, or not with what was asked
	CauseStore    Cause = "store"    // the repository did not answer, or refused
	CauseVerify   Cause = "verify"   // the backup is there, and could not be verified
	CausePrune    Cause = "prune"    // the backup is there, and old ones could not be removed
	CauseHook     Cause = "hook"     // a hook failed
	CauseTimeout  Cause = "timeout"  // it took longer than it may
	CauseConfig   Cause = "config"   // a secret, key or certificate of the configuration could not be read
	CauseDamage   Cause = "damage"   // something is not what it was
	CauseKey      Cause = "key"      // it is encrypted, and the key is missing or wrong
	CauseDisk     Cause = "disk"     // a disk is full or failing
	CauseStopped  Cause = "stopped"  // the daemon was stopped meanwhile, or died
	CauseInternal Cause = "internal" // a fault of lifeboat's own, or none of the above
)

// Causes are all of them.
func Causes() []Cause {
	return []Cause{
		CauseEndpoint, CauseStore, CauseVerify, CausePrune, CauseHook, CauseTimeout,
		CauseConfig, CauseDamage, CauseKey, CauseDisk, CauseStopped, CauseInternal,
	}
}

// Stage is what a run was doing.
type Stage string

// The stages, in their order.
const (
	StageLead   Stage = "lead" // asking who runs it
	StageBefore Stage = "hook-before"
	StageOpen   Stage = "open" // opening the repository
	StageSave   Stage = "save"
	StageVerify Stage = "verify"
	StagePrune  Stage = "prune"
	StageAfter  Stage = "hook-after"
)

// RunRecord is one run: of a job, or of its drill.
type RunRecord struct {
	ID      string    `json:"id"`
	Job     string    `json:"job"`
	Cluster string    `json:"cluster"`
	Kind    RunKind   `json:"kind"`
	Reason  Reason    `json:"reason"`          // why it started
	Slot    time.Time `json:"slot,omitzero"`   // that it is of; zero: somebody asked for it
	Missed  int       `json:"missed,omitzero"` // earlier slots that it stands for too
	Host    string    `json:"host"`            // that ran it

	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"` // zero: it is under way
	Result   Result    `json:"result,omitempty"`  // "": it is under way

	// Stage and Cause are those of the first failure, and Error is the text of
	// all of them; empty if there was none. While it is under way, Stage is
	// where it is.
	Stage Stage  `json:"stage,omitempty"`
	Cause Cause  `json:"cause,omitempty"`
	Error string `json:"error,omitempty"`

	Warnings     []string            `json:"warnings,omitempty"`
	Repositories []RepositoryOutcome `json:"repositories"` // in the order of the configuration
}

// Seconds is how long the run took, 0 while it is under way.
func (r RunRecord) Seconds() float64 {
	if r.Finished.IsZero() {
		return 0
	}
	return r.Finished.Sub(r.Started).Seconds()
}

// RepositoryOutcome is what became of a run in one of the job's repositories.
// What was reached stands there even if a later step failed.
type RepositoryOutcome struct {
	Name        string  `json:"name"`
	BackupID    string  `json:"backup_id,omitempty"` // committed, or that the drill verified; "": there is none
	PlainBytes  int64   `json:"plain_bytes"`
	StoredBytes int64   `json:"stored_bytes"`
	Revision    int64   `json:"revision,omitempty"`
	SaveSeconds float64 `json:"save_seconds,omitempty"`

	Verified      Level   `json:"verified,omitempty"` // the level that it was proven at; "": it was not
	VerifySeconds float64 `json:"verify_seconds,omitempty"`
	Drilled       []Drill `json:"drilled,omitempty"` // what a drill verified

	Pruned      int   `json:"pruned"`       // backups that were removed
	PrunedBytes int64 `json:"pruned_bytes"` // stored bytes that were freed

	Result Result `json:"result,omitempty"` // "": it has not ended
	Stage  Stage  `json:"stage,omitempty"`  // of the first failure
	Cause  Cause  `json:"cause,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Drill is one verification of a drill.
type Drill struct {
	BackupID string  `json:"backup_id"`
	Pick     Pick    `json:"pick"` // why it was this one
	Level    Level   `json:"level"`
	Passed   bool    `json:"passed"`
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"` // why it has not passed
}

// Controller is the daemon as its HTTP server sees it. Its methods may be called
// at once and don't wait for runs.
type Controller interface {
	// Status is how all does now. It is the caller's own copy.
	Status() Status
	// Runs are the last runs of a job and of its drill, the newest first, with
	// the one under way; of all jobs if the name is empty. There are up to 100
	// of each. An unknown job has none.
	Runs(job string) []RunRecord
	// Backups lists the backups of a job's cluster in each of the job's
	// repositories, as they are now. It fails with ErrNoJob.
	Backups(ctx context.Context, job string) ([]RepositoryBackups, error)
	// Trigger asks for a run of a job now, or once the run under way has ended;
	// "NAME/drill" is the job's drill. If one waits already it is that one's id.
	// It fails with ErrNoJob or ErrStopping.
	Trigger(job string) (runID string, err error)
}

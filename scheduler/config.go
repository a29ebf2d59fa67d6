package scheduler

import (
	"log/slog"
	"time"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/repository"
)

// Config is what the daemon's configuration file says. It comes from
// [LoadConfig] or [ParseConfig], which fill in defaults, check it and remember
// where each value stands.
//
// In the tags of its structs stands the key of each value in the file, and:
//   - required: it has to be there.
//   - path: a file or folder; relative ones are below the folder that the
//     configuration file is in.
//   - location: the same, if it is no URL.
//   - raw: "${NAME}" in it is not taken for an attempt to have it replaced.
//   - list: it has to be a list, even of one. Other lists of words may be
//     written as one word.
//   - inline: the value of a Secret may stand in the file.
type Config struct {
	StateDir    string        `yaml:"state-dir,path"`   // where the daemon keeps what outlives it
	ScratchDir  string        `yaml:"scratch-dir,path"` // for copies that are thrown away; "": the system's
	StopTimeout time.Duration `yaml:"stop-timeout"`     // how long runs may take to end when the daemon is stopped

	Repositories map[string]*RepositoryConfig `yaml:"repositories,required"`
	Clusters     map[string]*ClusterConfig    `yaml:"clusters,required"`
	Jobs         map[string]*JobConfig        `yaml:"jobs,required"`
	Notify       map[string]*NotifyConfig     `yaml:"notify"`
	HTTP         HTTPConfig                   `yaml:"http"`
	Log          LogConfig                    `yaml:"log"`

	file   string
	places map[string]place // of each value in the file, by its path
}

// RepositoryConfig is a repository: where it is and whom it is encrypted for.
type RepositoryConfig struct {
	Name string `yaml:"-"`

	URL string    `yaml:"url,location"` // as --repo; empty: S3
	S3  *S3Config `yaml:"s3"`           // nil: URL

	LimitUpload   Size `yaml:"limit-upload"`   // bytes a second; 0: none
	LimitDownload Size `yaml:"limit-download"` // bytes a second; 0: none
	Create        bool `yaml:"create"`         // make a repository if the place is empty

	Recipients     []string `yaml:"recipients"` // age or SSH public keys
	RecipientsFile []string `yaml:"recipients-file,path"`
	Passphrase     Secret   `yaml:"passphrase"` // instead of recipients; opens as well
	Plaintext      bool     `yaml:"plaintext"`  // don't encrypt, though earlier backups are
	IdentityFile   []string `yaml:"identity-file,path"`

	Retention *RetentionConfig `yaml:"retention"` // for jobs that have none of their own; nil: nothing is pruned
}

// Encrypted tells whether backups in the repository are encrypted.
func (r *RepositoryConfig) Encrypted() bool {
	return len(r.Recipients) > 0 || len(r.RecipientsFile) > 0 || !r.Passphrase.IsZero()
}

// Readable tells whether the daemon can open the backups in the repository.
func (r *RepositoryConfig) Readable() bool {
	return !r.Encrypted() || len(r.IdentityFile) > 0 || !r.Passphrase.IsZero()
}

// S3Config is a bucket, as the parameters of an s3:// URL have it.
type S3Config struct {
	Bucket       string `yaml:"bucket,required"`
	Prefix       string `yaml:"prefix"`
	Endpoint     string `yaml:"endpoint"`
	Region       string `yaml:"region"`
	PathStyle    bool   `yaml:"path-style"`
	CAFile       string `yaml:"ca-file,path"`
	SSE          SSE    `yaml:"sse"`
	KMSKey       string `yaml:"kms-key"`
	StorageClass string `yaml:"storage-class"`
	ObjectLock   Lock   `yaml:"object-lock"`
	LockDays     int    `yaml:"lock-days"`
}

// ClusterConfig is a cluster: its name in repositories, and how to get at it.
type ClusterConfig struct {
	Name string `yaml:"-"`

	Endpoints      []string      `yaml:"endpoints"`
	TLS            ClientTLS     `yaml:"tls"`
	User           string        `yaml:"user"`
	Password       Secret        `yaml:"password"`
	DialTimeout    time.Duration `yaml:"dial-timeout"`
	CommandTimeout time.Duration `yaml:"command-timeout"` // of one request, but for the snapshot itself
	StallTimeout   time.Duration `yaml:"stall-timeout"`   // when nothing of the snapshot comes for so long, it is given up

	DataDir string `yaml:"data-dir,path"`
	WALDir  string `yaml:"wal-dir,path"` // "": in DataDir

	Include []string `yaml:"include,path"` // files and folders that are saved along
}

// ClientTLS is how the daemon and the members know each other, in etcdctl's
// words.
type ClientTLS struct {
	CACert     string `yaml:"cacert,path"` // "": the system's authorities
	Cert       string `yaml:"cert,path"`
	Key        string `yaml:"key,path"`
	ServerName string `yaml:"server-name"` // that certificates are for; "": the endpoint's host
}

// IsZero tells whether nothing is said of TLS.
func (t ClientTLS) IsZero() bool { return t == ClientTLS{} }

// JobConfig is a job: what is saved where, when, and what is done about it.
type JobConfig struct {
	Name string `yaml:"-"`

	Cluster      string          `yaml:"cluster,required"`
	Kind         repository.Kind `yaml:"kind"` // default: live if the cluster has endpoints
	Repositories []string        `yaml:"repositories,required"`

	Schedule *Schedule      `yaml:"schedule,required"` // nil: on demand only
	Timezone *time.Location `yaml:"timezone"`
	Jitter   time.Duration  `yaml:"jitter"`
	CatchUp  bool           `yaml:"catch-up"`
	Timeout  time.Duration  `yaml:"timeout"` // of a run in all
	Retries  int            `yaml:"retries"` // how often a snapshot that breaks off is begun again

	Labels    map[string]string `yaml:"labels,raw"`
	Retention *RetentionConfig  `yaml:"retention"` // nil: each repository's own
	Verify    VerifyConfig      `yaml:"verify"`
	Drill     *DrillConfig      `yaml:"drill"`
	Hooks     HooksConfig       `yaml:"hooks"`
	Ping      *PingConfig       `yaml:"ping"`
	Notify    []string          `yaml:"notify"` // names; nil: all
	Lead      LeadConfig        `yaml:"lead"`
}

// RetentionConfig says which backups are kept: those that any rule keeps.
// LockFor is no such rule, but what is done with them.
type RetentionConfig struct {
	Last    Count           `yaml:"last"`
	Hourly  Count           `yaml:"hourly"`
	Daily   Count           `yaml:"daily"`
	Weekly  Count           `yaml:"weekly"`
	Monthly Count           `yaml:"monthly"`
	Yearly  Count           `yaml:"yearly"`
	Within  repository.Span `yaml:"within"`

	LockFor repository.Span `yaml:"lock-for"` // from each prune on; zero: locks are left alone
}

// Policy is the retention by the calendar of a time zone.
func (r *RetentionConfig) Policy(zone *time.Location) repository.Policy {
	return repository.Policy{
		Last: int(r.Last), Hourly: int(r.Hourly), Daily: int(r.Daily), Weekly: int(r.Weekly),
		Monthly: int(r.Monthly), Yearly: int(r.Yearly), Within: r.Within, Location: zone,
	}
}

// VerifyConfig is how each backup is verified after it was made.
type VerifyConfig struct {
	Level Level `yaml:"level"`
}

// DrillConfig is a verification of backups on a schedule of its own. Its time
// zone and whether it catches up are the job's.
type DrillConfig struct {
	Schedule *Schedule     `yaml:"schedule,required"` // nil: on demand only
	Jitter   time.Duration `yaml:"jitter"`
	Level    Level         `yaml:"level"`
	Pick     []Pick        `yaml:"pick"`
	Timeout  time.Duration `yaml:"timeout"`
}

// HooksConfig are commands that run around each backup.
type HooksConfig struct {
	Before []HookConfig `yaml:"before"`
	After  []HookConfig `yaml:"after"`
}

// HookConfig is a command.
type HookConfig struct {
	Command     []string          `yaml:"command,required,raw,list"`
	Timeout     time.Duration     `yaml:"timeout"`
	Environment map[string]Secret `yaml:"environment,raw,inline"`
	OnFailure   OnFailure         `yaml:"on-failure"`
}

// PingConfig are URLs of a dead man's switch, which cries when it is not called.
type PingConfig struct {
	URL      Secret        `yaml:"url,inline"`       // called after a backup was committed and verified, in all repositories
	StartURL Secret        `yaml:"start-url,inline"` // called when a run starts
	FailURL  Secret        `yaml:"fail-url,inline"`  // called when a run has failed
	Timeout  time.Duration `yaml:"timeout"`
}

// LeadConfig is how daemons agree on which one of them runs the job.
type LeadConfig struct {
	Elect  bool          `yaml:"elect"`
	Prefix string        `yaml:"prefix"` // of the election's keys in etcd; the job's name follows
	TTL    time.Duration `yaml:"ttl"`    // after which a dead leader's place is free
}

// NotifyConfig is somebody to tell what became of a run.
type NotifyConfig struct {
	Name string `yaml:"-"`

	On      []Event        `yaml:"on"`
	Webhook *WebhookConfig `yaml:"webhook"`
	Command *CommandConfig `yaml:"command"`
}

// WebhookConfig is a URL that gets a POST with JSON.
type WebhookConfig struct {
	URL     Secret            `yaml:"url,required,inline"`
	Headers map[string]Secret `yaml:"headers,inline"`
	CAFile  string            `yaml:"ca-file,path"`
	Timeout time.Duration     `yaml:"timeout"`
}

// CommandConfig is a command that gets the JSON on its standard input.
type CommandConfig struct {
	Run         []string          `yaml:"run,required,raw,list"`
	Timeout     time.Duration     `yaml:"timeout"`
	Environment map[string]Secret `yaml:"environment,raw,inline"`
}

// HTTPConfig is the daemon's own server for metrics, health and its API.
type HTTPConfig struct {
	Listen Address   `yaml:"listen"`
	TLS    ServerTLS `yaml:"tls"`
	Token  Secret    `yaml:"token"` // that requests have to carry, but for /healthz and /readyz
}

// ServerTLS is the server's certificate; both or none.
type ServerTLS struct {
	Cert string `yaml:"cert,path"`
	Key  string `yaml:"key,path"`
}

// LogConfig is how the daemon logs.
type LogConfig struct {
	Format Format     `yaml:"format"`
	Level  slog.Level `yaml:"level"`
}

func (c *Config) setDefaults() {
	c.StateDir = "/var/lib/lifeboat"
	// Less than Kubernetes waits (30 s) and systemd (90 s).
	c.StopTimeout = 25 * time.Second
	c.HTTP.Listen = "127.0.0.1:8378"
	c.Log = LogConfig{Format: Text, Level: slog.LevelInfo}
}

func (c *ClusterConfig) setDefaults() {
	c.DialTimeout = 5 * time.Second
	c.CommandTimeout = 30 * time.Second
	c.StallTimeout = live.DefaultStall
}

func (j *JobConfig) setDefaults() {
	j.Timezone = time.UTC
	j.CatchUp = true
	j.Timeout = 6 * time.Hour
	j.Retries = 2
	j.Verify.Level = LevelDigest
	j.Lead = LeadConfig{Prefix: "lifeboat/leader/", TTL: 15 * time.Second}
}

func (d *DrillConfig) setDefaults() {
	d.Level = LevelBoot
	d.Pick = []Pick{Newest, Random}
	d.Timeout = 6 * time.Hour
}

func (h *HookConfig) setDefaults() {
	h.Timeout = time.Minute
	h.OnFailure = Abort
}

func (p *PingConfig) setDefaults() { p.Timeout = 10 * time.Second }

func (n *NotifyConfig) setDefaults() { n.On = []Event{Failure, Recovery} }

func (w *WebhookConfig) setDefaults() { w.Timeout = 10 * time.Second }

func (c *CommandConfig) setDefaults() { c.Timeout = 30 * time.Second }

// Retention is what decides over a job's backups in one of its repositories,
// nil if nothing is pruned there.
func (c *Config) Retention(j *JobConfig, repository string) *RetentionConfig {
	if j.Retention != nil {
		return j.Retention
	}
	if r := c.Repositories[repository]; r != nil {
		return r.Retention
	}
	return nil
}

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/backup/save"
	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

// Labels that the daemon gives backups beside those of the configuration. By
// them a run that is begun again, here or on another machine, finds what the
// first one has done.
const (
	LabelJob  = "lifeboat.job"
	LabelSlot = "lifeboat.slot" // RFC 3339, in UTC
)

// depot is a repository as a job uses it: of its cluster only.
type depot interface {
	save(ctx context.Context, labels map[string]string, warn func(string)) (BackupRef, error)
	verify(ctx context.Context, id string, level Level) error
	prune(ctx context.Context, keep *RetentionConfig, warn func(string)) (removed int, freed int64, err error)
	list(ctx context.Context) ([]keptBackup, error) // the oldest first
}

// keptBackup is a backup in a depot.
type keptBackup struct {
	BackupRef
	labels map[string]string
}

// task is whose depot it is.
type task struct {
	cluster    *ClusterConfig
	job        *JobConfig
	repository *RepositoryConfig
	scratch    string
	tool       string
	log        *slog.Logger
}

// openDepot opens a repository, or makes it where it may. Everything that the
// configuration names is read anew: keys, passwords, certificates.
func openDepot(ctx context.Context, t task) (depot, error) {
	where, err := t.repository.Location()
	if err != nil {
		return nil, &configError{err}
	}
	store, err := where.Open(ctx, location.Options{Create: t.repository.Create})
	if err != nil {
		return nil, &storeError{err}
	}
	store = toldStore{store}
	var repo *repository.Repository
	if t.repository.Create {
		repo, err = repository.OpenOrInit(ctx, store, repository.InitOptions{Tool: t.tool})
	} else {
		repo, err = repository.Open(ctx, store)
	}
	if err != nil {
		return nil, err
	}
	return &openedDepot{t, repo}, nil
}

type openedDepot struct {
	task
	repo *repository.Repository
}

func (p *openedDepot) save(ctx context.Context, labels map[string]string, warn func(string)) (BackupRef, error) {
	o, err := p.saveOptions(labels, warn)
	if err != nil {
		return BackupRef{}, err
	}
	b, err := p.take(ctx, o)
	if err != nil {
		return BackupRef{}, err
	}
	return newBackupRef(b), nil
}

func (p *openedDepot) saveOptions(labels map[string]string, warn func(string)) (save.Options, error) {
	passphrase, err := p.repository.Passphrase.Read()
	if err != nil {
		return save.Options{}, &configError{fmt.Errorf("passphrase: %w", err)}
	}
	recipients, err := repository.ReadRecipients(repository.RecipientOptions{
		Keys: p.repository.Recipients, Files: p.repository.RecipientsFile, Passphrase: passphrase,
	})
	if err != nil {
		return save.Options{}, &configError{err}
	}
	all := maps.Clone(p.job.Labels)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	return save.Options{
		Recipients: recipients, Labels: all, Plaintext: p.repository.Plaintext,
		Include: p.cluster.Include, Tool: p.tool,
		Info: func(text string) { p.log.Info(text) },
		Warn: warn,
	}, nil
}

func (p *openedDepot) take(ctx context.Context, o save.Options) (*repository.Backup, error) {
	if p.job.Kind == repository.Files {
		return save.Files(ctx, p.repo, p.cluster.Name, p.cluster.DataDir,
			save.FilesOptions{Options: o, WALDir: p.cluster.WALDir, Scratch: p.scratch})
	}
	cfg, err := p.cluster.client()
	if err != nil {
		return nil, err
	}
	return save.Live(ctx, p.repo, p.cluster.Name, cfg, save.LiveOptions{
		Options: o, Timeout: p.cluster.CommandTimeout, Stall: p.cluster.StallTimeout, Tries: p.job.Retries + 1,
	})
}

// How a silent connection to etcd is probed.
const (
	keepAliveTime    = 5 * time.Second
	keepAliveTimeout = 6 * time.Second
)

// client is how to reach the cluster: certificates and password as they are now.
func (c *ClusterConfig) client() (clientv3.Config, error) {
	password, err := c.Password.Read()
	if err != nil {
		return clientv3.Config{}, &configError{fmt.Errorf("password of cluster %s: %w", c.Name, err)}
	}
	spec := &clientv3.ConfigSpec{
		Endpoints: c.Endpoints, DialTimeout: c.DialTimeout,
		KeepAliveTime: keepAliveTime, KeepAliveTimeout: keepAliveTimeout,
		Secure: &clientv3.SecureConfig{
			Cacert: c.TLS.CACert, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName,
			InsecureTransport: !c.usesTLS(),
		},
	}
	if c.User != "" {
		spec.Auth = &clientv3.AuthConfig{Username: c.User, Password: password.Reveal()}
	}
	cfg, err := clientv3.NewClientConfig(spec, zap.NewNop())
	if err != nil {
		return clientv3.Config{}, &configError{fmt.Errorf("TLS of cluster %s by %s: %w", c.Name, strings.Join(c.TLS.files(), ", "), err)}
	}
	cfg.Logger = zap.NewNop()
	return *cfg, nil
}

// files are those that are named.
func (t ClientTLS) files() []string {
	return slices.DeleteFunc([]string{t.CACert, t.Cert, t.Key}, func(file string) bool { return file == "" })
}

func (c *ClusterConfig) usesTLS() bool {
	if !c.TLS.IsZero() {
		return true
	}
	for _, e := range c.Endpoints {
		if strings.HasPrefix(e, "https://") {
			return true
		}
	}
	return false
}

func (p *openedDepot) verify(ctx context.Context, id string, level Level) error {
	b, err := p.repo.Backup(ctx, p.cluster.Name, id)
	if err != nil {
		return err
	}
	o := prove.StoredOptions{Level: repository.Level(level), Scratch: p.scratch, Tool: p.tool}
	if level != LevelDigest {
		if o.Identities, err = p.identities(); err != nil {
			return err
		}
		if _, err := os.Stat(p.scratch); p.scratch != "" && err != nil {
			return &configError{fmt.Errorf("scratch-dir: %w", err)}
		}
	}
	report, err := prove.Stored(ctx, p.repo, b, o)
	if err != nil {
		return err
	}
	return verdict(report)
}

// identities are the keys that open the backups, none if there are none.
func (p *openedDepot) identities() (repository.Identities, error) {
	passphrase, err := p.repository.Passphrase.Read()
	if err != nil {
		return repository.Identities{}, &configError{fmt.Errorf("passphrase: %w", err)}
	}
	ids, err := repository.ReadKeys(repository.KeyOptions{Files: p.repository.IdentityFile, Passphrase: passphrase})
	if err != nil {
		return ids, &configError{err}
	}
	return ids, nil
}

// verdict is what stands against a backup, nil if all has passed.
func verdict(r *prove.Report) error {
	if r.Result == prove.Passed {
		return nil
	}
	for _, c := range r.Checks {
		if c.Result != r.Result {
			continue
		}
		what := c.Detail
		if len(c.Problems) > 0 {
			what = strings.Join(c.Problems[:min(3, len(c.Problems))], "; ")
		}
		return &proofError{r.Result, fmt.Sprintf("%s: %s: %s", r.Result, c.Name, what)}
	}
	return &proofError{r.Result, string(r.Result)}
}

func (p *openedDepot) prune(ctx context.Context, keep *RetentionConfig, warn func(string)) (int, int64, error) {
	now := time.Now()
	plan, err := p.repo.PlanPrune(ctx, p.cluster.Name, keep.Policy(p.job.Timezone), now)
	if err != nil {
		return 0, 0, err
	}
	for _, d := range plan.Damaged {
		warn(fmt.Sprintf("can't be read and is left as it is: %v", d.Err))
	}
	result, err := plan.Apply(ctx, repository.PruneOptions{LockFor: now.Sub(keep.LockFor.Before(now))})
	outcomes := map[repository.Outcome]int{}
	for _, r := range result.Removals {
		outcomes[r.Outcome]++
	}
	p.log.Info("pruned", "removed", outcomes[repository.Removed], "locked", outcomes[repository.Locked], "freed", result.Freed, "locks_extended", result.Extended)
	return outcomes[repository.Removed], result.Freed, err
}

func (p *openedDepot) list(ctx context.Context) ([]keptBackup, error) {
	listing, err := p.repo.List(ctx, p.cluster.Name)
	if errors.Is(err, repository.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var kept []keptBackup
	for _, b := range listing.Backups {
		if b.Pruned == nil {
			kept = append(kept, keptBackup{newBackupRef(b), b.Manifest.Labels})
		}
	}
	return kept, nil
}

func newBackupRef(b *repository.Backup) BackupRef {
	m := b.Manifest
	ref := BackupRef{
		ID: m.ID, Time: m.Started, Revision: m.Revision, EtcdVersion: m.EtcdVersion,
		Seconds: m.Finished.Sub(m.Started).Seconds(),
	}
	ref.PlainBytes, ref.StoredBytes = b.Size()
	if proof := b.Proven(repository.Digest); proof != nil {
		ref.Level, ref.Proven = Level(proof.Level), proof.Time
	}
	return ref
}

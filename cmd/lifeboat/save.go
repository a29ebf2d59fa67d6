package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/backup/save"
	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
)

type saveOptions struct {
	repo       repoFlag
	cluster    string
	dataDir    string
	walDir     string
	scratch    string
	labels     []string
	include    []string
	recipients recipientFlags
	level      string
	identity   []string
	client     clientFlags
	stall      time.Duration
	retries    int
	output     outputFlag
}

func newSaveCommand(e *env) *cobra.Command {
	var o saveOptions
	cmd := &cobra.Command{
		Use:   "save --repo REPO (--endpoints URLS | --data-dir DIR)",
		Short: "Take a backup into a repository",
		Long: `Save takes a backup into a repository: whole, or not at all.

From --endpoints it is a snapshot of the v3 data of a healthy member, streamed:
hashed, compressed, encrypted and stored with no file in between. Every page of
it is followed, so that one that is not whole is noticed at once, and the hash
of its keys is asked of the member.

From --data-dir it is a member's own files, v2 data included: backend, snapshot
and log, of any etcd from 2.3 on. The member may run, be stopped or be dead.
Nothing is written to the dir, and no lock is taken on it.

With --recipient it is encrypted with age for public keys: this machine can't
read it back. --include saves files along, such as certificates and an
encryption configuration.`,
		Example: `  lifeboat save --repo /backup/etcd --cluster prod --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379 \
    --cacert ca.crt --cert client.crt --key client.key --recipient age1…
  lifeboat save --repo s3://backups/etcd --cluster prod --data-dir /var/lib/etcd --include /etc/kubernetes/pki
  lifeboat save --repo /backup/etcd --cluster prod --label before=upgrade --verify boot`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd, e); err != nil {
				return withExit(exitUsage, err)
			}
			ctx, cancel := o.client.limit(cmd)
			defer cancel()
			return storeExit(o.run(ctx, e))
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *saveOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.cluster, "cluster", "", "name of the cluster in the repository (default: its id)")
	f.StringVar(&o.dataDir, "data-dir", "", "save this member's files, instead of a snapshot through --endpoints")
	f.StringVar(&o.walDir, "wal-dir", "", "its WAL dir, if that is elsewhere")
	f.StringVar(&o.scratch, "scratch-dir", "", "where the backend of a running member is copied first (default: $TMPDIR)")
	f.StringArrayVar(&o.labels, "label", nil, "KEY=VALUE to find the backup by; may be repeated")
	f.StringArrayVar(&o.include, "include", nil, "file or folder to save along; may be repeated")
	o.recipients.addFlags(cmd)
	f.StringVar(&o.level, "verify", "", "verify the backup at once: digest, structure or boot")
	f.StringArrayVarP(&o.identity, "identity", "i", nil, "file with the key that opens an encrypted backup, for --verify structure or boot")
	o.client.addFlags(cmd)
	f.DurationVar(&o.stall, "stall-timeout", live.DefaultStall, "give a stream up when nothing comes for so long")
	f.IntVar(&o.retries, "retries", save.DefaultTries-1, "how often a stream that breaks off is started over")
	addOutputFlag(cmd, &o.output)
}

// check looks at what can be checked without the repository.
func (o *saveOptions) check(cmd *cobra.Command, e *env) error {
	if err := o.client.complete(cmd, e); err != nil {
		return err
	}
	switch {
	case o.dataDir != "" && cmd.Flags().Changed("endpoints"):
		return errors.New("--data-dir and --endpoints exclude each other")
	case o.dataDir == "" && (o.walDir != "" || o.scratch != ""):
		return errors.New("--wal-dir and --scratch-dir need --data-dir")
	case o.stall <= 0 || o.retries < 0:
		return errors.New("--stall-timeout has to be above 0, --retries not below")
	}
	if o.level != "" {
		if _, err := repository.ParseLevel(o.level); err != nil {
			return fmt.Errorf("--verify: %w", err)
		}
	}
	_, err := repository.ParseLabels(o.labels)
	return err
}

func (o *saveOptions) run(ctx context.Context, e *env) error {
	recipients, err := o.recipients.read()
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	ids, err := o.verifyKeys(e, recipients)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	repo, err := o.repo.open(ctx, e)
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	b, err := o.save(ctx, e, repo, recipients)
	if err != nil {
		return err
	}
	if err := o.print(e, repo, b); err != nil || o.level == "" {
		return err
	}
	return o.verify(ctx, e, repo, b, ids)
}

// verifyKeys reads the keys that --verify takes, before anything is saved.
func (o *saveOptions) verifyKeys(e *env, recipients repository.Recipients) (repository.Identities, error) {
	level := repository.Level(o.level)
	if level == "" || level == repository.Digest {
		return repository.Identities{}, nil
	}
	keys := identityFlags{files: o.identity, passphraseFile: o.recipients.passphraseFile}
	if len(recipients.Names()) > 0 && !keys.given(e) {
		return repository.Identities{}, withExit(exitUsage,
			fmt.Errorf("--verify %s has to decrypt: give --identity FILE, or --verify digest, which needs no key", level))
	}
	return keys.read(e)
}

func (o *saveOptions) save(ctx context.Context, e *env, repo *repository.Repository, recipients repository.Recipients) (*repository.Backup, error) {
	labels, err := repository.ParseLabels(o.labels)
	if err != nil {
		return nil, err
	}
	bar := newProgress(e.Stderr, "save", 0)
	defer bar.done()
	options := save.Options{
		Recipients: recipients, Labels: labels, Plaintext: o.recipients.plaintext, Include: o.include, Tool: tool(),
		Info:     func(text string) { fmt.Fprintln(e.Stderr, text) },
		Warn:     func(text string) { fmt.Fprintln(e.Stderr, "warning:", text) },
		Total:    bar.total.Store,
		Progress: bar.add,
	}
	if o.dataDir != "" {
		return save.Files(ctx, repo, o.cluster, o.dataDir, save.FilesOptions{Options: options, WALDir: o.walDir, Scratch: o.scratch})
	}
	cfg, err := o.client.config(e)
	if err != nil {
		return nil, fmt.Errorf("save: %w", err)
	}
	return save.Live(ctx, repo, o.cluster, cfg, save.LiveOptions{Options: options, Stall: o.stall, Tries: o.retries + 1})
}

func (o *saveOptions) print(e *env, repo *repository.Repository, b *repository.Backup) error {
	if o.output == outputJSON {
		return printJSON(e.Stdout, newBackupEntry(b))
	}
	m := b.Manifest
	plain, stored := b.Size()
	took := m.Finished.Sub(m.Started).Round(10 * time.Millisecond)
	var text strings.Builder
	fmt.Fprintf(&text, "Saved %s of %s in %s\n", m.ID, m.Cluster, repo)
	fmt.Fprintf(&text, "  %s, %s\n", origin(m), keysLine(m))
	fmt.Fprintf(&text, "  %s stored as %s in %v, %s\n", formatBytes(plain), formatBytes(stored), took, secrecy(m))
	if o.level == "" {
		fmt.Fprintf(&text, "Not verified yet: lifeboat verify --repo %s %s\n", shellWord(o.repo.given(e)), m.ID)
	}
	_, err := e.Stdout.Write([]byte(text.String()))
	return err
}

// secrecy says for whom a backup is encrypted.
func secrecy(m repository.Manifest) string {
	if m.Encryption == "" {
		return "not encrypted"
	}
	return "encrypted for " + strings.Join(m.Recipients, ", ")
}

// verify proves what was just saved.
func (o *saveOptions) verify(ctx context.Context, e *env, repo *repository.Repository, b *repository.Backup, ids repository.Identities) error {
	report, err := verifyStored(ctx, e, repo, b, prove.StoredOptions{Level: repository.Level(o.level), Identities: ids, Tool: tool()})
	if err != nil {
		return err
	}
	if o.output != outputJSON {
		err = printProof(e.Stdout, report)
	}
	return errors.Join(err, verdict(report))
}

// storeExit gives the known errors of a save their exit codes and a way out.
func storeExit(err error) error {
	if errors.Is(err, save.ErrPlaintext) {
		return fmt.Errorf("%w\nGive --recipient, or --plaintext if that is what you want", err)
	}
	if errors.Is(err, live.ErrUnreachable) {
		return withExit(exitUnreachable, connectionHint(err))
	}
	return repoExit(err)
}

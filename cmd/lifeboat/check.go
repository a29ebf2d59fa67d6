package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

type checkOptions struct {
	repo       repoFlag
	cluster    string
	dataDir    string
	walDir     string
	recipients recipientFlags
	identity   []string
	client     clientFlags
	output     outputFlag
}

func newCheckCommand(e *env) *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check --repo REPO [--endpoints URLS | --data-dir DIR]",
		Short: "Prove that backups will work: repository, keys, endpoints",
		Long: `Check tries all that a save and a restore will need, and says how each went:

  repository  it opens; a small object makes a round trip through the store:
              written once only, read, listed, removed, by a clock that is right
  backups     what is there can be read; the newest is verified
  keys        --recipient can be encrypted for; --identity opens the newest backup
  endpoints   one is fit to take a snapshot from, and lets this user begin one
  data dir    it can be read, and is sound as far as its log tells

Nothing stays of it. Exit codes: 0 all went well, 4 something is not reachable,
6 the key does not fit, 3 damage, 1 anything else.`,
		Example: `  lifeboat check --repo s3://backups/etcd --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key
  lifeboat check --repo /backup/etcd --data-dir /var/lib/etcd --identity key.txt`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.client.complete(cmd, e); err != nil {
				return withExit(exitUsage, err)
			}
			return o.run(cmd, e)
		},
	}
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.cluster, "cluster", "", "look at this cluster's backups only")
	f.StringVar(&o.dataDir, "data-dir", "", "look at this member's files, instead of --endpoints")
	f.StringVar(&o.walDir, "wal-dir", "", "its WAL dir, if that is elsewhere")
	o.recipients.addFlags(cmd)
	f.StringArrayVarP(&o.identity, "identity", "i", nil, "file with the key that opens encrypted backups")
	o.client.addFlags(cmd)
	addOutputFlag(cmd, &o.output)
	return cmd
}

// checked is how one check went. Its JSON is described in docs/commands/check.md.
type checked struct {
	Check   string  `json:"check"`
	OK      bool    `json:"ok"`
	Detail  string  `json:"detail"`
	Seconds float64 `json:"seconds"`
	err     error
}

// checks collects them.
type checks struct{ all []checked }

// try makes one check; it tells whether that went well.
func (c *checks) try(name string, do func() (string, error)) bool {
	began := time.Now()
	detail, err := do()
	c.add(name, detail, time.Since(began), err)
	return err == nil
}

func (c *checks) add(name, detail string, took time.Duration, err error) {
	if err != nil {
		detail = err.Error()
	}
	c.all = append(c.all, checked{Check: name, OK: err == nil, Detail: detail, Seconds: took.Seconds(), err: err})
}

func (o *checkOptions) run(cmd *cobra.Command, e *env) error {
	ctx, cancel := o.client.limit(cmd)
	defer cancel()
	var c checks
	o.checkRepository(ctx, e, &c)
	switch {
	case o.dataDir != "":
		c.try("data dir", func() (string, error) { return o.lookAtDir(ctx) })
	case cmd.Flags().Changed("endpoints"):
		o.checkEndpoints(ctx, e, &c)
	}
	var err error
	if o.output == outputJSON {
		err = printJSON(e.Stdout, c.all)
	} else {
		err = c.print(e.Stdout)
	}
	return errors.Join(err, c.verdict())
}

func (c *checks) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tRESULT\tTIME\tFOUND")
	for _, one := range c.all {
		result := "ok"
		if !one.OK {
			result = "FAILED"
		}
		took := time.Duration(one.Seconds * float64(time.Second)).Round(time.Millisecond)
		fmt.Fprintf(table, "%s\t%s\t%v\t%s\n", one.Check, result, took, strings.Join(strings.Fields(one.Detail), " "))
	}
	return table.Flush()
}

// verdict is the error that the checks stand for: that of the first that
// failed.
func (c *checks) verdict() error {
	var names []string
	var first error
	for _, one := range c.all {
		if one.err == nil {
			continue
		}
		names = append(names, one.Check)
		if first == nil {
			first = one.err
		}
	}
	if first == nil {
		return nil
	}
	code := exitFailed
	var exit *exitError
	if errors.As(storeExit(first), &exit) {
		code = exit.code
	}
	return withExit(code, fmt.Errorf("check: failed: %s", strings.Join(names, ", ")))
}

func (o *checkOptions) checkRepository(ctx context.Context, e *env, c *checks) {
	var store storage.Store
	var repo *repository.Repository
	opened := c.try("repository", func() (detail string, err error) {
		if store, err = o.repo.store(ctx, e, location.Options{}); err != nil {
			return "", err
		}
		if repo, err = repository.Open(ctx, store); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s in %s", repo.ID(), repo), nil
	})
	if !opened {
		return
	}
	for _, step := range storage.Probe(ctx, store) {
		c.add("store: "+step.Name, step.Detail, step.Took, step.Err)
	}
	var newest *repository.Backup
	c.try("backups", func() (detail string, err error) {
		newest, detail, err = o.lookAtBackups(ctx, repo)
		return detail, err
	})
	encrypted := newest != nil && newest.Manifest.Encryption != ""
	c.try("encryption", func() (string, error) { return o.encryption(encrypted) })
	if encrypted && o.keys().given(e) {
		c.try("key", func() (string, error) { return o.openNewest(ctx, e, newest) })
	}
}

// lookAtBackups lists them; a repository without any is as good as new.
func (o *checkOptions) lookAtBackups(ctx context.Context, repo *repository.Repository) (*repository.Backup, string, error) {
	listing, err := repo.List(ctx, o.cluster)
	if errors.Is(err, repository.ErrNotExist) || err == nil && len(listing.Backups) == 0 {
		return nil, "none yet", nil
	}
	if err != nil {
		return nil, "", err
	}
	if n := len(listing.Damaged); n > 0 {
		return nil, "", withExit(exitDamage, fmt.Errorf("%s damaged: lifeboat list names all", numbered(n, "object")))
	}
	newest := listing.Backups[len(listing.Backups)-1]
	return newest, fmt.Sprintf("%d; the newest, %s of %s, is %s old; verified: %s", len(listing.Backups), newest.ID(), newest.Cluster(),
		ago(newest.Manifest.Started, time.Now()), verified(newest, time.Now())), nil
}

// encryption says for whom a save would encrypt; after an encrypted backup it
// is refused if for nobody.
func (o *checkOptions) encryption(encrypted bool) (string, error) {
	recipients, err := o.recipients.read()
	if err != nil {
		return "", err
	}
	if names := recipients.Names(); len(names) > 0 {
		return "for " + strings.Join(names, ", "), nil
	}
	if encrypted && !o.recipients.plaintext {
		return "none given: a save would be refused, as the newest backup is encrypted", nil
	}
	return "none: backups would not be encrypted", nil
}

func (o *checkOptions) keys() *identityFlags {
	return &identityFlags{files: o.identity, passphraseFile: o.recipients.passphraseFile}
}

// openNewest reads the beginning of a part.
func (o *checkOptions) openNewest(ctx context.Context, e *env, b *repository.Backup) (string, error) {
	ids, err := o.keys().read(e)
	if err != nil {
		return "", err
	}
	part, err := b.Open(ctx, b.Manifest.Parts[0].Name, ids)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(io.Discard, part, 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return "it opens " + b.ID(), errors.Join(err, part.Close())
}

func (o *checkOptions) checkEndpoints(ctx context.Context, e *env, c *checks) {
	if o.client.secure.Cert != "" {
		c.try("certificate", func() (string, error) { return certificateLife(o.client.secure.Cert, time.Now()) })
	}
	c.try("endpoints", func() (string, error) {
		cfg, err := o.client.config(e)
		if err != nil {
			return "", err
		}
		choice, err := live.Pick(ctx, cfg, cfg.DialTimeout)
		if err != nil {
			return "", err
		}
		size, err := live.Begin(ctx, cfg, choice.Address)
		if live.Denied(err) {
			err = fmt.Errorf("etcd sends a snapshot to a user with the role root only (--user): %w", err)
		}
		return fmt.Sprintf("a snapshot can be taken from %s (etcd %s, %s): %s", choice.Address, choice.Version, formatBytes(size), choice.Why), err
	})
}

// certificateLife says until when the first certificate of a file is good.
func certificateLife(file string, now time.Time) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return "", fmt.Errorf("%s: holds no PEM block", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	text := fmt.Sprintf("%s: good until %s", file, cert.NotAfter.Format(time.RFC3339))
	if now.After(cert.NotAfter) {
		return "", fmt.Errorf("%s: ended %s", file, cert.NotAfter.Format(time.RFC3339))
	}
	return text, nil
}

// lookAtDir reads the dir as a save would.
func (o *checkOptions) lookAtDir(ctx context.Context) (string, error) {
	dir, err := datadir.Inspect(ctx, o.dataDir, datadir.Options{WALDir: o.walDir})
	if err != nil {
		return "", err
	}
	defer dir.Close()
	return fmt.Sprintf("%s: etcd %s, %s, log up to index %d", o.dataDir, dir.Facts.Origin, dir.Live, dir.Log.Last), nil
}

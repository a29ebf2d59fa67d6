package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

// repoFlag is the --repo that every command has that works on a repository.
type repoFlag struct {
	location string
}

const repoVariable = "LIFEBOAT_REPO"

// patience is how long somebody at a terminal waits for a store without a word.
const patience = 10 * time.Second

func (r *repoFlag) addFlag(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&r.location, "repo", "", "the repository: a directory, or s3://BUCKET/PREFIX (default: $"+repoVariable+")")
}

// given is the location as the flag or the environment has it, empty if neither
// does.
func (r *repoFlag) given(e *env) string {
	if r.location != "" {
		return r.location
	}
	return e.Getenv(repoVariable)
}

// open opens the repository.
func (r *repoFlag) open(ctx context.Context, e *env) (*repository.Repository, error) {
	store, err := r.store(ctx, e, location.Options{})
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, store)
	if errors.Is(err, repository.ErrNotRepository) && isEmpty(ctx, store) {
		return nil, fmt.Errorf("%w\nIf a new one is wanted there: lifeboat init --repo %s", err, shellWord(r.given(e)))
	}
	return repo, err
}

// isEmpty tells whether nothing lies in a store, so that init would take it.
func isEmpty(ctx context.Context, store storage.Store) bool {
	for range store.List(ctx, "") {
		return false
	}
	return true
}

// repoGCPercent lets the heap grow by half between collections, not to twice
// what is in use: most of it is buffers that stay.
const repoGCPercent = 50

// store opens what the repository is in.
func (r *repoFlag) store(ctx context.Context, e *env, o location.Options) (storage.Store, error) {
	debug.SetGCPercent(repoGCPercent)
	place, err := r.parse(e)
	if err != nil {
		return nil, withExit(exitUsage, err)
	}
	slow := time.AfterFunc(patience, func() { fmt.Fprintf(e.Stderr, "waiting for %s to answer\n", place) })
	defer slow.Stop()
	return place.Open(ctx, o)
}

func (r *repoFlag) parse(e *env) (location.Location, error) {
	text := r.given(e)
	if text == "" {
		return location.Location{}, errors.New("--repo (or $" + repoVariable + ") is needed: a directory, or s3://BUCKET/PREFIX")
	}
	place, err := location.Parse(text)
	if err != nil {
		return location.Location{}, fmt.Errorf("--repo: %w", err)
	}
	return place, nil
}

// pick is which backup of a repository is meant.
type pickFlags struct {
	cluster string
	before  string
	labels  []string
}

func (p *pickFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.cluster, "cluster", "", "name of the cluster in the repository (default: the only one there)")
	f.StringVar(&p.before, "before", "", "the newest backup that was finished before this time, such as 2026-11-20T03:00:00Z,\n2026-11-20, or 36h (ago)")
	f.StringArrayVar(&p.labels, "label", nil, "only backups with this label, KEY=VALUE; may be repeated")
}

// selector joins the flags with the id that was given, or "latest".
func (p *pickFlags) selector(id string) (repository.Selector, error) {
	s := repository.Selector{Cluster: p.cluster, ID: id}
	var err error
	if s.Labels, err = repository.ParseLabels(p.labels); err != nil {
		return s, err
	}
	if p.before != "" {
		s.Before, err = parseTime(p.before)
	}
	return s, err
}

// identityFlags are the keys that open encrypted backups.
type identityFlags struct {
	files          []string
	passphraseFile string
}

const identityVariable = "LIFEBOAT_IDENTITY"

func (i *identityFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&i.files, "identity", "i", nil, "file with the age identity or SSH key that opens encrypted backups; may be\nrepeated (default: $"+identityVariable+")")
	f.StringVar(&i.passphraseFile, "passphrase-file", "", "file with the passphrase that opens them")
}

// given tells whether there is a key at all.
func (i *identityFlags) given(e *env) bool {
	return len(i.files) > 0 || i.passphraseFile != "" || e.Getenv(identityVariable) != ""
}

// read reads the keys.
func (i *identityFlags) read(e *env) (repository.Identities, error) {
	o := repository.KeyOptions{Files: i.files, Ask: func(file string) (repository.Secret, error) { return askPassphrase(e, file) }}
	if file := e.Getenv(identityVariable); len(o.Files) == 0 && file != "" {
		o.Files = []string{file}
	}
	var err error
	if o.Passphrase, err = readPassphrase(i.passphraseFile); err != nil {
		return repository.Identities{}, err
	}
	return repository.ReadKeys(o)
}

// recipientFlags are whom backups are encrypted for.
type recipientFlags struct {
	keys           []string
	files          []string
	passphraseFile string
	plaintext      bool
}

func (r *recipientFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&r.keys, "recipient", "r", nil, "encrypt for this age or SSH public key; may be repeated")
	f.StringArrayVarP(&r.files, "recipients-file", "R", nil, "encrypt for the public keys in this file; may be repeated")
	f.StringVar(&r.passphraseFile, "passphrase-file", "", "encrypt with the passphrase in this file instead")
	f.BoolVar(&r.plaintext, "plaintext", false, "don't encrypt, though the backups before this one are encrypted")
}

func (r *recipientFlags) read() (repository.Recipients, error) {
	passphrase, err := readPassphrase(r.passphraseFile)
	if err != nil {
		return repository.Recipients{}, err
	}
	return repository.ReadRecipients(repository.RecipientOptions{Keys: r.keys, Files: r.files, Passphrase: passphrase})
}

// askPassphrase asks on the terminal for what opens an encrypted key file.
func askPassphrase(e *env, file string) (repository.Secret, error) {
	f, ok := e.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", fmt.Errorf("%s: is encrypted with a passphrase, and there is no terminal to ask for it", file)
	}
	fmt.Fprintf(e.Stderr, "Passphrase of %s: ", file)
	text, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(e.Stderr)
	return repository.Secret(text), err
}

// repoExit gives the known errors of repositories their exit codes and a way
// out.
func repoExit(err error) error {
	var damage *repository.DamageError
	switch {
	case errors.Is(err, repository.ErrNoKey):
		return withExit(exitWrongKey, fmt.Errorf("%w\nGive the key with --identity FILE, or --passphrase-file FILE", err))
	case errors.Is(err, repository.ErrWrongKey):
		return withExit(exitWrongKey, err)
	case errors.Is(err, repository.ErrPruning):
		return withExit(exitLocked, fmt.Errorf("%w\nTo learn what becomes of it, try again in a minute", err))
	case errors.As(err, &damage):
		return withExit(exitDamage, err)
	case errors.Is(err, storage.ErrUnreachable):
		return withExit(exitUnreachable, err)
	}
	return restoreExit(err)
}

// means tells whether arg is a backup in the repository: if --repo is given, or
// $LIFEBOAT_REPO and there is no such path.
func (r *repoFlag) means(arg string, e *env) bool {
	if r.location != "" {
		return true
	}
	if r.given(e) == "" {
		return false
	}
	_, err := os.Stat(arg)
	return arg == "" || errors.Is(err, fs.ErrNotExist)
}

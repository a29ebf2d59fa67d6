package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Names of objects.
const (
	repositoryKey = "lifeboat.json"
	clustersDir   = "clusters/"
	manifestName  = "manifest.json"
	holdName      = "hold.json"
	proofDir      = "proofs/"
	prunedDir     = "pruned/"
)

// Repository is backups in a store. Its methods may be called at once, from
// this process and others.
type Repository struct {
	store storage.Store
	head  head
}

// head is lifeboat.json.
type head struct {
	Format   int       `json:"format"`
	Requires []string  `json:"requires,omitempty"` // features that a reader must know
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Tool     string    `json:"tool,omitempty"`
}

// InitOptions of an Init; the zero value works.
type InitOptions struct {
	Tool string // that makes it, with its version
}

// Init makes an empty place a repository. It fails with [ErrExists] if it is
// one already, and refuses a place where anything else lies. Of several at
// once exactly one succeeds.
func Init(ctx context.Context, s storage.Store, o InitOptions) (*Repository, error) {
	if err := checkEmpty(ctx, s); err != nil {
		return nil, fmt.Errorf("init %s: %w", s, err)
	}
	h := head{Format: Format, ID: strings.ToLower(rand.Text()), Created: stamp(time.Now()), Tool: o.Tool}
	err := putRecord(ctx, s, repositoryKey, kindRepository, h)
	if errors.Is(err, storage.ErrExist) {
		err = ErrExists
	}
	if err != nil {
		return nil, fmt.Errorf("init %s: %w", s, err)
	}
	return &Repository{store: s, head: h}, nil
}

func checkEmpty(ctx context.Context, s storage.Store) error {
	_, err := s.Stat(ctx, repositoryKey)
	if err == nil {
		return ErrExists
	}
	if !errors.Is(err, storage.ErrNotExist) {
		return err
	}
	found, err := survey(ctx, s)
	switch {
	case err != nil:
		return err
	case found.empty():
		return nil
	}
	if _, err := s.Stat(ctx, repositoryKey); err == nil {
		return ErrExists // made meanwhile
	}
	return fmt.Errorf("the place is not empty: %s", found)
}

// Open opens the repository in s. It fails with [ErrNotRepository] if there is
// none, and with a [*FormatError] if it is of a newer format.
func Open(ctx context.Context, s storage.Store) (*Repository, error) {
	r := &Repository{store: s}
	_, err := getRecord(ctx, s, repositoryKey, kindRepository, &r.head)
	if errors.Is(err, storage.ErrNotExist) {
		err = describeOther(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s, err)
	}
	return r, nil
}

// OpenOrInit opens the repository in s, or makes one if the place is empty. It
// fails as [Open] and [Init] do, but for ErrExists: all of several at once get
// the same repository.
func OpenOrInit(ctx context.Context, s storage.Store, o InitOptions) (*Repository, error) {
	r, err := Open(ctx, s)
	if !errors.Is(err, ErrNotRepository) {
		return r, err
	}
	r, err = Init(ctx, s, o)
	if errors.Is(err, ErrExists) {
		return Open(ctx, s) // somebody else made it meanwhile
	}
	return r, err
}

// describeOther says what a place is that is no repository.
func describeOther(ctx context.Context, s storage.Store) error {
	found, err := survey(ctx, s)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrNotRepository, found)
}

// ID is the random id that the repository got when it was made.
func (r *Repository) ID() string { return r.head.ID }

// Store is where the repository is.
func (r *Repository) Store() storage.Store { return r.store }

// String is the place for people to read, without secrets.
func (r *Repository) String() string { return r.store.String() }

func backupsPrefix(cluster string) string { return clustersDir + cluster + "/backups/" }

func backupPrefix(cluster, id string) string { return backupsPrefix(cluster) + id + "/" }

// stamp is a time as records keep it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

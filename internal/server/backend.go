package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Where the v3 backend keeps up to which entry it saw the log, in big-endian
// (mvcc/kvstore.go, 3.0; etcdserver/cindex, 3.5, which added the term).
const (
	metaBucket         = "meta"
	consistentIndexKey = "consistent_index"
	termKey            = "term"
)

// backendTimeout is how long to wait for another process's lock on the backend.
const backendTimeout = 2 * time.Second

// consistentIndex returns up to which entry the v3 backend saw the log; 0 if
// there is no backend or it never saved that.
func consistentIndex(db string) (uint64, error) {
	if there, err := exists(db); err != nil || !there {
		return 0, err
	}
	b, err := bolt.Open(db, 0o600, &bolt.Options{ReadOnly: true, Timeout: backendTimeout})
	if err != nil {
		return 0, fmt.Errorf("v3 backend %s: %w", db, err)
	}
	var index uint64
	err = b.View(func(tx *bolt.Tx) error {
		if meta := tx.Bucket([]byte(metaBucket)); meta != nil {
			index = bigEndian(meta.Get([]byte(consistentIndexKey)))
		}
		return nil
	})
	return index, errors.Join(err, b.Close())
}

func bigEndian(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// raiseConsistentIndex makes etcd 3 boot from a snapshot at index: its backend
// must have seen the log up to there. A backend that is not there is made.
func raiseConsistentIndex(db string, index, term uint64) error {
	if err := createBackend(db); err != nil {
		return fmt.Errorf("v3 backend %s: %w", db, err)
	}
	b, err := bolt.Open(db, 0o600, &bolt.Options{Timeout: backendTimeout, NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("v3 backend %s: %w", db, err)
	}
	err = b.Update(func(tx *bolt.Tx) error { return raise(tx, index, term) })
	return errors.Join(err, b.Close())
}

func raise(tx *bolt.Tx, index, term uint64) error {
	meta, err := tx.CreateBucketIfNotExists([]byte(metaBucket))
	if err != nil || bigEndian(meta.Get([]byte(consistentIndexKey))) >= index {
		return err
	}
	if meta.Get([]byte(termKey)) != nil {
		if err := meta.Put([]byte(termKey), binary.BigEndian.AppendUint64(nil, term)); err != nil {
			return err
		}
	}
	return meta.Put([]byte(consistentIndexKey), binary.BigEndian.AppendUint64(nil, index))
}

// createBackend makes an empty backend under a temporary name that etcd
// deletes at boot, so that a crash leaves no half of one.
func createBackend(db string) error {
	if there, err := exists(db); err != nil || there {
		return err
	}
	tmp := filepath.Join(filepath.Dir(db), "db.tmp.lifeboat")
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	b, err := bolt.Open(tmp, 0o600, &bolt.Options{Timeout: backendTimeout})
	if err != nil {
		return err
	}
	if err := errors.Join(b.Sync(), b.Close(), os.Rename(tmp, db)); err != nil {
		return err
	}
	return syncDir(filepath.Dir(db))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

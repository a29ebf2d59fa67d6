package main

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// The files of the snapshot dataset.
const (
	snapshotName = "snapshot.db"
	scratchName  = "scratch.db"
)

// generateSnapshot makes the backend of the v3 data into a snapshot.
func generateSnapshot(dir string, scale float64) error {
	v3, err := v3Dir.ready(filepath.Dir(dir), scale, os.Stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	db, err := os.Open(filepath.Join(v3, "member", "snap", "db"))
	if err != nil {
		return err
	}
	defer db.Close()
	if err := writeSnapshot(filepath.Join(dir, scratchName), db, false); err != nil {
		return err
	}
	if _, err := db.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeSnapshot(filepath.Join(dir, snapshotName), db, true)
}

// writeSnapshot copies db to path, with its SHA-256 after it if sealed.
func writeSnapshot(path string, db io.Reader, sealed bool) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(f, io.TeeReader(db, sum))
	if err == nil && sealed {
		_, err = f.Write(sum.Sum(nil))
	}
	return errors.Join(err, f.Close())
}

package backup

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// newVersion is what StepVersion writes: as long as any 2.x.y, so that only
// the number changes.
const newVersion = "3.0.0"

// rewrite says what the copy of the log changes.
func (p *Plan) rewrite() walcodec.RewriteOptions {
	return walcodec.RewriteOptions{
		AfterIndex:   p.fromIndex(),
		KeepSnapshot: p.keepRecord,
		Entry:        p.changeEntry(),
	}
}

// keepRecord keeps the record of the base. Without a base all are kept, unless
// the copy is for a release that would look for a backend to each.
func (p *Plan) keepRecord(s walcodec.Snapshot) bool {
	if base := p.fromIndex(); base != 0 {
		return s.Index == base
	}
	return s.Index == 0 || !p.logAlone() || p.Options.For.Before(datadir.R36)
}

// changeEntry is what the steps do to an entry, nil for nothing.
func (p *Plan) changeEntry() func(walcodec.Entry) (walcodec.Entry, error) {
	switch {
	case p.takes(datadir.StepBlankV2):
		return blankV2
	case p.takes(datadir.StepVersion):
		return raiseVersion
	default:
		return nil
	}
}

func blankV2(e walcodec.Entry) (walcodec.Entry, error) {
	if walcodec.ClassifyEntry(e) == walcodec.V2Request {
		return walcodec.NoOp(e), nil
	}
	return e, nil
}

// raiseVersion changes PUT /0/version 2.x.y. It stays a request of the same
// effect on the v2 index, so that the indexes after it stay what they were.
func raiseVersion(e walcodec.Entry) (walcodec.Entry, error) {
	if walcodec.ClassifyEntry(e) != walcodec.V2Request {
		return e, nil
	}
	r, err := walcodec.ParseRequest(e.Data)
	if err != nil || !datadir.SetsClusterVersion(r) {
		return e, err
	}
	if v, err := datadir.ParseRelease(r.Val); err != nil || !v.Before(datadir.R30) {
		return e, err
	}
	r.Val = newVersion
	e.Data = walcodec.AppendRequest(nil, r)
	return e, nil
}

// Names in the backend. Source: server/storage/schema/bucket.go, etcd 3.7.
var (
	metaBucket         = []byte("meta")
	consistentIndexKey = []byte("consistent_index")
)

// makeBackend writes a backend that holds nothing but the consistent index.
func makeBackend(path string, index uint64) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return fmt.Errorf("make backend: %w", err)
	}
	return putIndex(db, index)
}

// setIndex changes the consistent index of a backend.
func setIndex(path string, index uint64) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("open the copied backend: %w", err)
	}
	return putIndex(db, index)
}

func putIndex(db *bolt.DB, index uint64) error {
	err := db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		return meta.Put(consistentIndexKey, binary.BigEndian.AppendUint64(nil, index))
	})
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write the consistent index: %w", err)
	}
	return nil
}

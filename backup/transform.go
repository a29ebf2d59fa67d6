package backup

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
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
	var changes []func(walcodec.Entry) (walcodec.Entry, error)
	if p.takes(datadir.StepBlankV2) {
		changes = append(changes, blankV2)
	}
	if p.takes(datadir.StepVersion) {
		changes = append(changes, raiseVersion)
	}
	if p.takes(datadir.StepPeerURL) {
		changes = append(changes, p.movePeerURL)
	}
	if len(changes) == 0 {
		return nil
	}
	return func(e walcodec.Entry) (walcodec.Entry, error) {
		var err error
		for _, change := range changes {
			if e, err = change(e); err != nil {
				return e, err
			}
		}
		return e, nil
	}
}

// movePeerURL changes the conf changes that give a member the URL.
func (p *Plan) movePeerURL(e walcodec.Entry) (walcodec.Entry, error) {
	if walcodec.ClassifyEntry(e) != walcodec.ConfChangePayload {
		return e, nil
	}
	cc, err := walcodec.ParseConfChange(e.Data)
	if err != nil {
		return e, err
	}
	quote := func(url string) []byte { return []byte(`"` + url + `"`) }
	context := bytes.ReplaceAll(cc.Context, quote(datadir.ForcedPeerURL), quote(p.newPeerURL()))
	if bytes.Equal(context, cc.Context) {
		return e, nil
	}
	cc.Context = context
	e.Data = walcodec.AppendConfChange(nil, cc)
	return e, nil
}

func (p *Plan) newPeerURL() string { return datadir.FreePeerURL(p.Source.PeerURLs) }

// moveMembers does to a list of members what movePeerURL does to the log.
func (p *Plan) moveMembers(m snapcodec.Membership) snapcodec.Membership {
	m.Members = slices.Clone(m.Members)
	for i := range m.Members {
		urls := slices.Clone(m.Members[i].PeerURLs)
		for j, url := range urls {
			if url == datadir.ForcedPeerURL {
				urls[j] = p.newPeerURL()
			}
		}
		m.Members[i].PeerURLs = urls
	}
	return m
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
	membersBucket      = []byte("members")
	consistentIndexKey = []byte("consistent_index")
)

// makeBackend writes a backend that holds nothing but the consistent index.
func makeBackend(path string, index uint64) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return fmt.Errorf("make backend: %w", err)
	}
	return update(db, func(tx *bolt.Tx) error { return putIndex(tx, index) })
}

// editBackend makes the plan's changes to a copied backend.
func (p *Plan) editBackend(path string) error {
	moved := p.takes(datadir.StepPeerURL)
	if p.Index == 0 && !moved {
		return nil
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
	if err != nil {
		return fmt.Errorf("open the copied backend: %w", err)
	}
	return update(db, func(tx *bolt.Tx) error {
		if moved {
			if err := putMembers(tx, p.moveMembers(p.Source.Backend.Members)); err != nil {
				return err
			}
		}
		if p.Index == 0 {
			return nil
		}
		return putIndex(tx, p.Index)
	})
}

// putMembers writes the members of m over those that are there.
func putMembers(tx *bolt.Tx, m snapcodec.Membership) error {
	bucket := tx.Bucket(membersBucket)
	if bucket == nil {
		return nil
	}
	for _, member := range m.Members {
		key, value := snapcodec.BackendMember(member)
		if err := bucket.Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

func putIndex(tx *bolt.Tx, index uint64) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	return meta.Put(consistentIndexKey, binary.BigEndian.AppendUint64(nil, index))
}

// update changes db in one transaction and closes it.
func update(db *bolt.DB, change func(*bolt.Tx) error) error {
	err := db.Update(change)
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write the backend: %w", err)
	}
	return nil
}

package restore

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Names in the backend. Source: server/storage/schema/bucket.go, etcd 3.7.
var (
	keyBucket     = []byte("key")
	metaBucket    = []byte("meta")
	membersBucket = []byte("members")
	removedBucket = []byte("members_removed")

	consistentIndexKey  = []byte("consistent_index")
	termKey             = []byte("term")
	scheduledCompactKey = []byte("scheduledCompactRev")
)

// editBackend gives a copied backend its new members and place in the log. It
// does not make it durable.
func (p *Plan) editBackend(path string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoSync: true, NoGrowSync: true})
	if err != nil {
		return fmt.Errorf("open the copied backend: %w", err)
	}
	err = db.Update(p.editBuckets)
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("edit the copied backend: %w", err)
	}
	return nil
}

func (p *Plan) editBuckets(tx *bolt.Tx) error {
	if err := p.putMembers(tx); err != nil {
		return err
	}
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if err := meta.Put(consistentIndexKey, binary.BigEndian.AppendUint64(nil, p.Index)); err != nil {
		return err
	}
	if err := meta.Put(termKey, binary.BigEndian.AppendUint64(nil, p.Term)); err != nil {
		return err
	}
	if p.Options.Bump == 0 {
		return nil
	}
	return p.bump(tx, meta)
}

// putMembers replaces all members, the removed ones included.
func (p *Plan) putMembers(tx *bolt.Tx) error {
	for _, name := range [][]byte{membersBucket, removedBucket} {
		if err := empty(tx, name); err != nil {
			return err
		}
	}
	members := tx.Bucket(membersBucket)
	for _, m := range p.Cluster.Members {
		key, value := snapcodec.BackendMember(m)
		if err := members.Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

// empty leaves the bucket there, without an entry.
func empty(tx *bolt.Tx, name []byte) error {
	bucket, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return err
	}
	var keys [][]byte
	err = bucket.ForEach(func(key, _ []byte) error {
		keys = append(keys, append([]byte(nil), key...))
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// bump adds a record without content at the raised revision, and schedules
// compaction up to there, which etcd does when it starts. Source:
// modifyLatestRevision in etcdutl/snapshot/v3_snapshot.go, etcd 3.7.
func (p *Plan) bump(tx *bolt.Tx, meta *bolt.Bucket) error {
	keys, err := tx.CreateBucketIfNotExists(keyBucket)
	if err != nil {
		return err
	}
	latest := snapcodec.Revision{}
	if last, _ := keys.Cursor().Last(); last != nil {
		if latest, _, err = snapcodec.ParseRevision(last); err != nil {
			return err
		}
	}
	raised, err := raise(latest.Main, p.Options.Bump)
	if err != nil {
		return err
	}
	key := snapcodec.AppendRevision(nil, snapcodec.Revision{Main: raised})
	if err := keys.Put(key, []byte{}); err != nil {
		return err
	}
	return meta.Put(scheduledCompactKey, key)
}

// raise adds the bump to a revision, without passing the largest there is.
func raise(revision int64, bump uint64) (int64, error) {
	const largest = 1<<63 - 1
	if bump > largest-uint64(revision) {
		return 0, fmt.Errorf("revision %d can't be raised by %d: that is more than etcd can count", revision, bump)
	}
	return revision + int64(bump), nil
}

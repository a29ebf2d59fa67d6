package snapcodec

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// Status is what "etcdutl snapshot status" prints of a backend.
type Status struct {
	Hash      uint32 // CRC-32C over all buckets
	Revision  int64  // of the last change; 0 when there is none
	TotalKey  int64  // keys alive at that revision
	TotalSize int64  // bytes: see DB.Size
	Version   string // storage version; empty before etcd 3.6
}

// Status sums up the backend with etcdutl 3.7's figures: names, keys and values
// of all buckets hashed in order. All processors take part; memory does not
// grow with the file, and with the number of keys only up to a bound.
// Source: etcdutl/snapshot/v3_snapshot.go, etcd 3.7.
func (db *DB) Status() (Status, error) {
	meta, err := db.Meta()
	if err != nil {
		return Status{}, err
	}
	buckets, err := db.Buckets()
	if err != nil {
		return Status{}, err
	}
	st := Status{TotalSize: db.Size(), Version: meta.StorageVersion}
	for i := range buckets {
		b := &buckets[i]
		st.Hash = crc32.Update(st.Hash, castagnoli, []byte(b.Name))
		if b.Name == "key" {
			err = st.addKeys(b)
		} else {
			err = st.addBucket(b)
		}
		if err != nil {
			return Status{}, err
		}
	}
	return st, nil
}

// addBucket hashes a bucket's entries.
func (st *Status) addBucket(b *Bucket) error {
	s := scan[*hashPart]{bucket: b, make: newHashPart,
		visit: func(h *hashPart, _ int, p *page) error { return h.addAll(p) },
		merge: func(h *hashPart) error { h.mergeInto(&st.Hash); return nil },
	}
	return s.run()
}

// addKeys hashes the key bucket and counts the keys.
func (st *Status) addKeys(b *Bucket) error {
	live := newLiveSet(math.MaxInt64)
	s := scan[*keyPart]{bucket: b, make: newKeyPart,
		visit: func(k *keyPart, _ int, p *page) error {
			if err := k.hash.addAll(p); err != nil {
				return err
			}
			return k.addRecords(live, p)
		},
		merge: func(k *keyPart) error {
			k.hash.mergeInto(&st.Hash)
			return live.merge(k)
		},
	}
	if err := s.run(); err != nil {
		return err
	}
	st.Revision = live.last.Main
	if err := live.finish(b); err != nil {
		return err
	}
	st.TotalKey = live.count
	return nil
}

// hashPart is the CRC-32C of a piece of what is hashed.
type hashPart struct {
	crc    uint32
	length int64 // bytes hashed
}

func newHashPart() *hashPart { return &hashPart{} }

func (h *hashPart) add(b []byte) {
	h.crc = crc32.Update(h.crc, castagnoli, b)
	h.length += int64(len(b))
}

// mergeInto appends the piece to a hash and starts a new piece.
func (h *hashPart) mergeInto(crc *uint32) {
	*crc = crcCombine(*crc, h.crc, h.length)
	*h = hashPart{}
}

// addAll hashes every key and value of a leaf. They usually lie one behind the
// other, and are then hashed at one go.
func (h *hashPart) addAll(p *page) error {
	run := span{}
	for i := range p.count {
		e, err := p.leaf(i)
		if err != nil {
			return err
		}
		h.extend(p, &run, e)
	}
	h.flush(p, &run)
	return nil
}

// extend makes an entry part of the run, hashing the run when it ends here.
func (h *hashPart) extend(p *page, run *span, e leafElement) {
	if run.end != int64(e.key) {
		h.flush(p, run)
		run.off = int64(e.key)
	}
	run.end = int64(e.end)
}

func (h *hashPart) flush(p *page, run *span) {
	h.add(p.data[run.off:run.end])
	*run = span{}
}

// HashKV is the hash of the keyspace at a revision, as etcd's members compare
// it among each other.
type HashKV struct {
	Hash            uint32
	HashRevision    int64
	CompactRevision int64 // -1: never compacted
	CurrentRevision int64
}

// What HashKV refuses. etcd has the same two errors.
var (
	ErrCompacted      = errors.New("revision is compacted")
	ErrFutureRevision = errors.New("revision is not reached yet")
)

// HashKV computes the hash at a revision, or at the current one for 0, as etcd
// 3.7 does: over the changes up to the revision, without those that compaction
// deletes, whether it already has or not. Older versions agree except that
// before 3.4.34 and 3.5.16 a deletion at the very revision that was compacted
// counts when it is still there.
// Source: storage/mvcc/hash.go, kvstore.go and key_index.go, etcd 3.7.
func (db *DB) HashKV(revision int64) (HashKV, error) {
	b, err := db.Bucket("key")
	if err != nil {
		return HashKV{}, err
	}
	h, err := db.hashState(b)
	if err != nil {
		return HashKV{}, err
	}
	switch {
	case revision < 0:
		return HashKV{}, fmt.Errorf("hash at revision %d: not a revision", revision)
	case revision > 0 && revision < h.CompactRevision:
		return HashKV{}, fmt.Errorf("hash at revision %d, compacted at %d: %w", revision, h.CompactRevision, ErrCompacted)
	case revision > h.CurrentRevision:
		return HashKV{}, fmt.Errorf("hash at revision %d, current is %d: %w", revision, h.CurrentRevision, ErrFutureRevision)
	case revision == 0:
		revision = h.CurrentRevision
	}
	h.HashRevision = revision
	return h, h.compute(b)
}

// hashState finds the current and the compacted revision as etcd does when it
// loads the backend (kvstore.go, restore): a compaction that was scheduled
// counts as done, and the current revision is never below it.
func (db *DB) hashState(b *Bucket) (HashKV, error) {
	meta, err := db.Meta()
	if err != nil {
		return HashKV{}, err
	}
	h := HashKV{CompactRevision: max(meta.FinishedCompact, meta.ScheduledCompact)}
	last, err := b.lastRevision()
	if err != nil {
		return HashKV{}, err
	}
	h.CurrentRevision = max(1, last.Main, h.CompactRevision)
	return h, nil
}

// CurrentRevision is the revision that etcd has after loading the backend.
func (db *DB) CurrentRevision() (int64, error) {
	b, err := db.Bucket("key")
	if err != nil {
		return 0, err
	}
	h, err := db.hashState(b)
	return h.CurrentRevision, err
}

// lastRevision reads the last key of the key bucket; zero when it is empty.
func (b *Bucket) lastRevision() (rev Revision, err error) {
	if b == nil {
		return Revision{}, nil
	}
	end := bytes.Repeat([]byte{0xff}, tombstoneLen)
	err = b.leaves(end, func(p *page) error {
		if p.count == 0 {
			return nil
		}
		e, err := p.leaf(p.count - 1)
		if err != nil {
			return err
		}
		rev, _, err = ParseRevision(p.data[e.key:e.value])
		if err != nil {
			return p.damage("%w", err)
		}
		return nil
	})
	return rev, err
}

// compute hashes the bucket. The name of the bucket comes first.
func (h *HashKV) compute(b *Bucket) error {
	h.Hash = crc32.Update(0, castagnoli, []byte("key"))
	if b == nil {
		return nil
	}
	keep, err := h.kept(b)
	if err != nil {
		return err
	}
	s := scan[*keptPart]{bucket: b, make: func() *keptPart { return &keptPart{} },
		visit: func(k *keptPart, part int, p *page) error { return k.add(h, keep, part, p) },
		merge: func(k *keptPart) error {
			k.hash.mergeInto(&h.Hash)
			*k = keptPart{}
			return nil
		},
	}
	return s.run()
}

// kept finds which changes are alive at the hash's revision. Nothing is there
// to find, and the result nil, when no change is old enough to be compacted.
func (h *HashKV) kept(b *Bucket) (*liveSet, error) {
	first, err := b.firstRevision()
	if err != nil || first.Main > h.CompactRevision {
		return nil, err
	}
	live := newLiveSet(h.HashRevision)
	if err := live.scan(b); err != nil {
		return nil, err
	}
	if err := live.finish(b); err != nil {
		return nil, err
	}
	if live.count == 0 {
		return nil, nil // etcd: an empty set keeps everything
	}
	return live, nil
}

// firstRevision is that of the oldest change; zero when there is none.
func (b *Bucket) firstRevision() (rev Revision, err error) {
	err = b.leaves(nil, func(p *page) error {
		if p.count > 0 {
			_, rev, _, err = p.record(0)
		}
		if err != nil {
			return err
		}
		return errStop
	})
	if err == errStop {
		err = nil
	}
	return rev, err
}

// keptPart hashes the changes of a part that HashKV counts.
type keptPart struct {
	hash    hashPart
	started bool
	ordinal uint32 // of the next change
}

func (k *keptPart) add(h *HashKV, keep *liveSet, part int, p *page) error {
	if !k.started && keep != nil {
		k.ordinal = keep.start(part)
	}
	k.started = true
	run := span{}
	for i := range p.count {
		e, rev, tombstone, err := p.record(i)
		if err != nil {
			return err
		}
		if rev.Main > h.HashRevision {
			break
		}
		if h.counts(keep, k.ordinal, rev, tombstone) {
			k.hash.extend(p, &run, e)
		}
		k.ordinal++
	}
	k.hash.flush(p, &run)
	return nil
}

// counts tells whether a change up to the revision enters the hash.
func (h *HashKV) counts(keep *liveSet, ordinal uint32, rev Revision, tombstone bool) bool {
	if rev.Main > h.CompactRevision {
		return true
	}
	if tombstone && rev.Main == h.CompactRevision {
		return false
	}
	return keep == nil || keep.isAlive(ordinal)
}

package v3engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// logLook is what the log of a data dir tells about the backend: what it must
// hold, and what a boot will add to it.
type logLook struct {
	dir     *datadir.Dir
	applied uint64 // the backend's consistent index
	// commit is where a clone of the dir ends: a cluster of its own takes the
	// whole log for committed.
	commit uint64
	puts   int64 // up to commit, those of txns included
	// whole says that the log reaches back to the first write: then the backend
	// holds nothing that the log did not put.
	whole bool
	// mayFail says that a put that is in the log may have been refused: users
	// are checked, or an alarm was raised.
	mayFail bool
	pending pending
}

// pending is what the log holds beyond the backend, up to the commit index.
type pending struct {
	requests  int   // v3 requests
	sure      int64 // writes that each make a revision
	maybe     int64 // requests that make one or none
	compacted int64 // highest revision of a compaction; 0: none
	leases    int   // grants and revokes
	auth      int
	alarms    int
}

// lookAtLog reads the log of a data dir.
func lookAtLog(d *datadir.Dir, facts figures) (*logLook, error) {
	l := &logLook{
		dir: d, commit: max(d.Log.Commit, d.Log.Last), mayFail: facts.authOn || len(facts.alarms) > 0,
		// With a snapshot on record, the keys may have come with it.
		whole: d.Base == nil && d.Log.First <= 1 && d.Facts.V2Data == "" && !d.Log.Recorded,
	}
	if d.Base != nil {
		l.commit = max(l.commit, d.Base.Index)
	}
	if d.Backend != nil {
		l.applied = d.Backend.ConsistentIndex
	}
	err := l.eachRequest(l.commit, func(index uint64, r walcodec.InternalRequest) error {
		l.note(index, r)
		return nil
	})
	return l, err
}

// eachRequest visits the v3 requests up to the index, but for those that a
// later leader wrote over.
func (l *logLook) eachRequest(upTo uint64, fn func(index uint64, r walcodec.InternalRequest) error) error {
	return l.dir.Entries(0, func(_ walcodec.Record, e walcodec.Entry) error {
		if e.Index > upTo || walcodec.ClassifyEntry(e) != walcodec.V3Request {
			return nil
		}
		r, err := walcodec.ParseInternalRequest(e.Data)
		if err != nil {
			return err
		}
		return fn(e.Index, r)
	})
}

func (l *logLook) note(index uint64, r walcodec.InternalRequest) {
	eachPut(r, func(*walcodec.PutRequest) { l.puts++ })
	if r.Op == "auth_enable" || r.Alarm != nil && r.Alarm.Action == 1 {
		l.mayFail = true
	}
	if index <= l.applied {
		return
	}
	p := &l.pending
	p.requests++
	switch {
	case r.Put != nil && l.sure(r):
		p.sure++
	case r.Put != nil, r.DeleteRange != nil, r.Txn != nil, r.Op == "lease_revoke":
		p.maybe++
	case r.Compaction != nil:
		p.compacted = max(p.compacted, r.Compaction.Revision)
	case r.Alarm != nil:
		p.alarms++
	case r.Auth != nil, r.Op == "auth_enable", r.Op == "auth_disable":
		p.auth++
	}
	if r.Lease != nil {
		p.leases++
	}
}

// sure tells a put that nothing can have refused.
func (l *logLook) sure(r walcodec.InternalRequest) bool {
	put := r.Put
	return put != nil && !l.mayFail && r.Username == "" && put.Lease == 0 && !put.IgnoreValue && !put.IgnoreLease
}

// eachPut visits the puts of a request, those of both branches of txns included.
func eachPut(r walcodec.InternalRequest, fn func(*walcodec.PutRequest)) {
	if r.Put != nil {
		fn(r.Put)
	}
	if r.Txn != nil {
		eachTxnPut(r.Txn, fn)
	}
}

func eachTxnPut(t *walcodec.TxnRequest, fn func(*walcodec.PutRequest)) {
	for _, op := range slices.Concat(t.Success, t.Failure) {
		if op.Put != nil {
			fn(op.Put)
		}
		if op.Txn != nil {
			eachTxnPut(op.Txn, fn)
		}
	}
}

// maxPuts is how many puts are compared in one pass, which takes some 30 MiB.
const maxPuts = 1 << 18

// comparison is what a backend was compared with.
type comparison struct {
	records  int64 // puts in the backend
	compared int64 // those that the log says something about
	problems []error
}

// compare looks for values in the backend that the log did not put there, and
// for keys of the log that a backend that was never compacted (compacted < 0)
// lacks. The log up to the index has been applied to the backend; what it holds
// above the revision was written since.
//
// If the log reaches back to the first write, every record is compared. If
// not, a key that the log surely wrote has its newest record compared: it can't
// be older than the log.
func (l *logLook) compare(db *snapcodec.DB, upTo uint64, revision, compacted int64) (comparison, error) {
	var total comparison
	missing := 0
	seed := maphash.MakeSeed()
	parts := uint64(1 + l.puts/maxPuts)
	for part := range parts {
		c := comparer{seed: seed, part: part, parts: parts, revision: revision, whole: l.whole}
		err := l.eachRequest(upTo, func(_ uint64, r walcodec.InternalRequest) error {
			sure := l.sure(r)
			eachPut(r, func(p *walcodec.PutRequest) { c.add(p, sure) })
			return nil
		})
		if err != nil {
			return total, err
		}
		if err := c.run(db); err != nil {
			return total, err
		}
		total.records = c.result.records
		total.compared += c.result.compared
		total.problems = append(total.problems, c.result.problems...)
		missing += c.unseen()
	}
	if compacted < 0 && missing > 0 {
		total.problems = append(total.problems, fmt.Errorf("%d keys that the log wrote are in no revision of the backend", missing))
	}
	return total, nil
}

// comparer compares the part of the keys whose hashes fall to it.
type comparer struct {
	seed        maphash.Seed
	part, parts uint64
	revision    int64
	whole       bool
	written     []uint64  // hashes of keys with the values that were put
	sure        []sureKey // by hash, once sorted
	result      comparison
}

// sureKey is a key that the log wrote, and what the backend holds last of it.
type sureKey struct {
	hash     uint64
	seen     bool // deleted or not
	compared bool
	differs  bool
	revision snapcodec.Revision
}

func (c *comparer) takes(key uint64) bool { return key%c.parts == c.part }

func (c *comparer) add(p *walcodec.PutRequest, sure bool) {
	key := maphash.Bytes(c.seed, p.Key)
	if !c.takes(key) {
		return
	}
	c.written = append(c.written, c.pair(key, p.Value))
	if sure {
		c.sure = append(c.sure, sureKey{hash: key})
	}
}

func (c *comparer) pair(key uint64, value []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.Write(value)
	return h.Sum64() ^ key*0x9e3779b97f4a7c15
}

func (c *comparer) run(db *snapcodec.DB) error {
	slices.Sort(c.written)
	c.written = slices.Compact(c.written)
	slices.SortFunc(c.sure, func(a, b sureKey) int { return cmp.Compare(a.hash, b.hash) })
	c.sure = slices.CompactFunc(c.sure, func(a, b sureKey) bool { return a.hash == b.hash })
	if err := db.Keys(snapcodec.Revision{}, c.record); err != nil && err != errEnough {
		return err
	}
	for _, k := range c.sure {
		if k.compared && !c.whole {
			c.result.compared++
		}
		if k.differs && !c.whole {
			c.problem(db, k.revision)
		}
	}
	return nil
}

// unseen counts the keys that the log wrote and the backend does not know.
func (c *comparer) unseen() int {
	n := 0
	for _, k := range c.sure {
		if !k.seen {
			n++
		}
	}
	return n
}

func (c *comparer) record(r *snapcodec.KeyRecord) error {
	if r.Revision.Main > c.revision {
		return errEnough
	}
	if len(r.Raw) == 0 { // added by snapshot restore --bump-revision
		return nil
	}
	if !r.Tombstone {
		c.result.records++
	}
	kv, err := r.KeyValue()
	if err != nil {
		return err
	}
	hash := maphash.Bytes(c.seed, kv.Key)
	if !c.takes(hash) {
		return nil
	}
	_, written := slices.BinarySearch(c.written, c.pair(hash, kv.Value))
	if i, found := slices.BinarySearchFunc(c.sure, hash, sureKey.compare); found {
		k := &c.sure[i]
		k.seen, k.compared, k.differs, k.revision = true, !r.Tombstone, !r.Tombstone && !written, r.Revision
	}
	if c.whole && !r.Tombstone {
		c.result.compared++
		if !written {
			c.differs(r.Revision, kv.Key)
		}
	}
	return nil
}

func (k sureKey) compare(hash uint64) int { return cmp.Compare(k.hash, hash) }

// problem names the key of a revision.
func (c *comparer) problem(db *snapcodec.DB, rev snapcodec.Revision) {
	err := db.Keys(rev, func(r *snapcodec.KeyRecord) error {
		kv, err := r.KeyValue()
		if err == nil {
			c.differs(r.Revision, bytes.Clone(kv.Key))
		}
		return errEnough
	})
	if err != nil && err != errEnough {
		c.result.problems = append(c.result.problems, err)
	}
}

var errEnough = errors.New("enough")

func (c *comparer) differs(rev snapcodec.Revision, key []byte) {
	if len(c.result.problems) < maxProblems {
		c.result.problems = append(c.result.problems,
			fmt.Errorf("revision %s of key %.100q holds what no put in the log wrote: a byte in the backend was changed", rev, key))
	}
}

const maxProblems = 100

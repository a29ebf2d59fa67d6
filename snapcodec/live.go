package snapcodec

import (
	"fmt"
	"hash/maphash"
	"math"
)

// record gives entry i of a leaf of the key bucket.
func (p *page) record(i int) (e leafElement, rev Revision, tombstone bool, err error) {
	if e, err = p.leaf(i); err != nil {
		return e, rev, false, err
	}
	if rev, tombstone, err = ParseRevision(p.data[e.key:e.value]); err != nil {
		return e, rev, false, p.damage("entry %d: %w", i, err)
	}
	return e, rev, tombstone, nil
}

// liveSet finds out which changes of the keyspace are the last of their key up
// to a revision, and no deletions: one bit for each change, by its place in the
// bucket.
//
// Keys are told apart by 63-bit hashes with a random seed. The table of hashes
// is bounded: when it is full, the set halves the hashes that it looks at, and
// goes over the bucket again for each share that it left out.
type liveSet struct {
	upTo  int64 // revision
	seed  maphash.Seed
	alive []uint64 // bits
	n     uint32   // changes seen
	count int64    // bits set
	last  Revision
	parts []uint32 // changes before each part

	hashes []uint64 // open addressing; 0: free
	places []uint32 // of the last change of the key
	used   int
	slots  int    // the table's limit
	share  uint64 // the hashes looked at: those with these low bits
	shares uint64 // a power of two
}

const (
	minSlots = 1 << 10
	maxSlots = 1 << 21 // 12 bytes each
)

func newLiveSet(upTo int64) *liveSet {
	return &liveSet{upTo: upTo, seed: maphash.MakeSeed(), shares: 1, slots: maxSlots,
		hashes: make([]uint64, minSlots), places: make([]uint32, minSlots)}
}

// keyPart is a piece of the key bucket: its changes, each as a key's hash and a
// low bit that tells a deletion.
type keyPart struct {
	hash    hashPart
	changes []uint64
	last    Revision
}

func newKeyPart() *keyPart { return &keyPart{} }

// addRecords notes the changes of a leaf.
func (k *keyPart) addRecords(l *liveSet, p *page) error {
	for i := range p.count {
		e, rev, tombstone, err := p.record(i)
		if err != nil {
			return err
		}
		if rev.Main > l.upTo {
			break
		}
		key, err := keyOf(p.data[e.value:e.end])
		if err != nil {
			return p.damage("revision %s: %w", rev, err)
		}
		change := max(maphash.Bytes(l.seed, key)>>1, 1) << 1
		if tombstone {
			change |= 1
		}
		k.changes = append(k.changes, change)
		k.last = rev
	}
	return nil
}

// merge takes the changes of the next part over.
func (l *liveSet) merge(k *keyPart) error {
	l.parts = append(l.parts, l.n)
	if uint64(l.n)+uint64(len(k.changes)) > math.MaxUint32 {
		return fmt.Errorf("more than %d changes in one backend", uint32(math.MaxUint32))
	}
	for _, c := range k.changes {
		l.note(c>>1, c&1 != 0)
	}
	if len(k.changes) > 0 {
		l.last = k.last
	}
	k.changes = k.changes[:0]
	return nil
}

// note counts one change.
func (l *liveSet) note(hash uint64, tombstone bool) {
	place := l.n
	l.n++
	if l.n > uint32(len(l.alive))*64 || len(l.alive) == 0 {
		l.alive = append(l.alive, 0)
	}
	if hash&(l.shares-1) != l.share {
		return
	}
	slot := l.slot(hash)
	if l.hashes[slot] == hash {
		l.set(l.places[slot], false)
	} else {
		slot = l.insert(hash, slot)
		if slot < 0 {
			return
		}
	}
	l.places[slot] = place
	if !tombstone {
		l.set(place, true)
	}
}

// slot is where a hash is in the table, or where it would go.
func (l *liveSet) slot(hash uint64) int {
	mask := uint64(len(l.hashes) - 1)
	for i := hash >> 20 & mask; ; i = (i + 1) & mask {
		if l.hashes[i] == hash || l.hashes[i] == 0 {
			return int(i)
		}
	}
}

// insert adds a hash, making room first when the table is three quarters full.
// It gives the slot, or -1 when the hash is no longer in the share.
func (l *liveSet) insert(hash uint64, slot int) int {
	if l.used >= len(l.hashes)/4*3 {
		if len(l.hashes) < l.slots || l.share > 0 {
			l.rebuild(2 * len(l.hashes))
		} else {
			l.shares *= 2
			l.rebuild(len(l.hashes))
		}
		if hash&(l.shares-1) != l.share {
			return -1
		}
		slot = l.slot(hash)
	}
	l.hashes[slot] = hash
	l.used++
	return slot
}

// rebuild makes the table anew and drops what the share leaves out.
func (l *liveSet) rebuild(slots int) {
	hashes, places := l.hashes, l.places
	l.hashes, l.places, l.used = make([]uint64, slots), make([]uint32, slots), 0
	for i, h := range hashes {
		if h == 0 {
			continue
		}
		if h&(l.shares-1) != l.share {
			l.set(places[i], false)
			continue
		}
		slot := l.slot(h)
		l.hashes[slot], l.places[slot] = h, places[i]
		l.used++
	}
}

// set changes a bit and keeps count.
func (l *liveSet) set(place uint32, alive bool) {
	word, bit := &l.alive[place/64], uint64(1)<<(place%64)
	was := *word&bit != 0
	switch {
	case alive && !was:
		l.count++
		*word |= bit
	case !alive && was:
		l.count--
		*word &^= bit
	}
}

// isAlive tells whether a change is the last of its key.
func (l *liveSet) isAlive(place uint32) bool {
	return int(place/64) < len(l.alive) && l.alive[place/64]&(1<<(place%64)) != 0
}

// start is the place of a part's first change.
func (l *liveSet) start(part int) uint32 {
	if part < len(l.parts) {
		return l.parts[part]
	}
	return l.n
}

// scan goes over the bucket once.
func (l *liveSet) scan(b *Bucket) error {
	s := scan[*keyPart]{bucket: b, make: newKeyPart,
		visit: func(k *keyPart, _ int, p *page) error { return k.addRecords(l, p) },
		merge: l.merge,
	}
	return s.run()
}

// finish goes over the bucket again for every share left out. The table is
// then given up.
func (l *liveSet) finish(b *Bucket) error {
	for l.share+1 < l.shares {
		l.share++
		l.n, l.used, l.parts = 0, 0, l.parts[:0]
		clear(l.hashes)
		if err := l.scan(b); err != nil {
			return err
		}
	}
	l.hashes, l.places = nil, nil
	return nil
}

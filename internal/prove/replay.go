package prove

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// expectation is what must be there after a boot.
type expectation struct {
	tree    *tree
	members *roster
	applied uint64 // raft index of the last committed entry
}

// expect computes it from the base snapshot and the committed entries after it.
func expect(ctx context.Context, d *datadir.Dir) (*expectation, error) {
	x := &expectation{tree: newTree(), members: newRoster(d.Members), applied: d.Log.Commit}
	base := uint64(0)
	if d.Base != nil {
		base = d.Base.Index
		if err := x.load(d.Base); err != nil {
			return nil, err
		}
	}
	x.applied = max(x.applied, base)
	return x, d.Entries(base, func(_ walcodec.Record, e walcodec.Entry) error {
		if err := ctx.Err(); err != nil || e.Index > x.applied {
			return err
		}
		return x.apply(e)
	})
}

func (x *expectation) load(s *datadir.Snapshot) error {
	snap, file, err := s.OpenSnap()
	if err != nil {
		return err
	}
	return errors.Join(x.tree.load(snap), file.Close())
}

func (x *expectation) apply(e walcodec.Entry) error {
	switch kind := walcodec.ClassifyEntry(e); kind {
	case walcodec.Empty, walcodec.V3Request:
		return nil
	case walcodec.V2Request:
		r, err := walcodec.ParseRequest(e.Data)
		if err != nil {
			return err
		}
		return x.request(r)
	case walcodec.ConfChangePayload:
		cc, err := walcodec.ParseConfChange(e.Data)
		if err != nil {
			return err
		}
		steps, err := x.members.apply(cc)
		x.tree.index += steps
		return err
	default:
		return fmt.Errorf("payload of kind %s", kind)
	}
}

// request is etcdserver/apply_v2.go of 3.4. A request that is refused changes
// nothing.
func (x *expectation) request(r walcodec.Request) error {
	c := change{
		value: r.Val, dir: r.Dir, prevValue: r.PrevValue, prevIndex: r.PrevIndex,
		refresh: r.Refresh != nil && *r.Refresh,
	}
	if r.Expiration != 0 {
		c.expires = time.Unix(0, r.Expiration)
	}
	compare := r.PrevIndex > 0 || r.PrevValue != ""
	switch {
	case r.Method == "POST":
		x.tree.createInOrder(r.Path, c)
	case r.Method == "PUT":
		x.put(r, c, compare)
	case r.Method == "DELETE" && compare:
		x.tree.compareAndDelete(r.Path, c)
	case r.Method == "DELETE":
		x.tree.remove(r.Path, r.Dir, r.Recursive)
	case r.Method == "SYNC":
		x.tree.expireAll(time.Unix(0, r.Time))
	case r.Method == "QGET":
	default:
		return fmt.Errorf("v2 request: unknown method %q", r.Method)
	}
	return nil
}

func (x *expectation) put(r walcodec.Request, c change, compare bool) {
	switch id, attributes := owner(r.Path); {
	case r.PrevExist != nil && !*r.PrevExist:
		x.tree.create(r.Path, c, false)
	case compare:
		x.tree.compareAndSwap(r.Path, c)
	case r.PrevExist != nil:
		x.tree.update(r.Path, c)
	case r.Path == versionKey:
		x.tree.index++
	case attributes:
		if _, known := x.members.members[id]; known {
			x.tree.index++
		}
	default:
		x.tree.set(r.Path, c)
	}
}

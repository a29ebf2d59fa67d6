package server

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// machine is the replicated state: what the log's entries make, one after the
// other.
type machine struct {
	store   v2store.Store
	cluster *cluster
	conf    walcodec.ConfState // as the log says; this server is always alone
	term    uint64             // of the last entry applied
	applied uint64             // its index
	lastV3  uint64             // index of the last v3 entry, which was skipped
}

func newMachine(id, clusterID uint64) *machine {
	store := v2store.New(clusterPrefix, keysPrefix)
	c := &cluster{id: types.ID(clusterID), local: types.ID(id), store: store}
	return &machine{store: store, cluster: c}
}

// outcome is what an entry did: the answer to whoever proposed it.
type outcome struct {
	id    uint64 // of the request
	event *v2store.Event
	err   error // the request's: not found, compare failed, …
}

// apply carries out one committed entry. The error says that the entry can't
// be what etcd wrote.
func (m *machine) apply(e walcodec.Entry) (outcome, error) {
	var out outcome
	var err error
	switch kind := walcodec.ClassifyEntry(e); kind {
	case walcodec.Empty:
	case walcodec.V2Request:
		out, err = m.applyRequest(e.Data)
	case walcodec.V3Request:
		m.lastV3 = e.Index
	case walcodec.ConfChangePayload:
		out, err = m.applyConfChange(e.Data)
	default:
		err = fmt.Errorf("payload of kind %s", kind)
	}
	if err != nil {
		return outcome{}, fmt.Errorf("entry %d: %w", e.Index, err)
	}
	m.term, m.applied = e.Term, e.Index
	return out, nil
}

func (m *machine) applyRequest(data []byte) (outcome, error) {
	r, err := walcodec.ParseRequest(data)
	if err != nil {
		return outcome{}, err
	}
	ev, err := m.do(r)
	if _, refused := err.(*v2error.Error); err != nil && !refused {
		return outcome{}, err
	}
	return outcome{id: r.ID, event: ev, err: err}, nil
}

// do is etcdserver/apply_v2.go: which store operation a request stands for.
func (m *machine) do(r walcodec.Request) (*v2store.Event, error) {
	switch r.Method {
	case "POST":
		return m.store.Create(r.Path, r.Dir, r.Val, true, ttlOptions(r))
	case "PUT":
		return m.put(r)
	case "DELETE":
		if r.PrevIndex > 0 || r.PrevValue != "" {
			return m.store.CompareAndDelete(r.Path, r.PrevValue, r.PrevIndex)
		}
		return m.store.Delete(r.Path, r.Dir, r.Recursive)
	case "QGET":
		return m.store.Get(r.Path, r.Recursive, r.Sorted)
	case "SYNC":
		m.store.DeleteExpiredKeys(time.Unix(0, r.Time))
		return nil, nil
	default:
		return nil, fmt.Errorf("v2 request: unknown method %q", r.Method)
	}
}

func (m *machine) put(r walcodec.Request) (*v2store.Event, error) {
	compare := r.PrevIndex > 0 || r.PrevValue != ""
	switch {
	case r.PrevExist != nil && !*r.PrevExist:
		return m.store.Create(r.Path, r.Dir, r.Val, false, ttlOptions(r))
	case compare:
		return m.store.CompareAndSwap(r.Path, r.PrevValue, r.PrevIndex, r.Val, ttlOptions(r))
	case r.PrevExist != nil:
		return updateStore(m.store, r.Path, r.Val, ttlOptions(r))
	}
	if id, ok := attributesOwner(r.Path); ok {
		return nil, m.cluster.setAttributes(id, r.Val)
	}
	if r.Path == versionPath {
		return nil, m.cluster.setVersion(r.Val)
	}
	return m.store.Set(r.Path, r.Dir, r.Val, ttlOptions(r))
}

func ttlOptions(r walcodec.Request) v2store.TTLOptionSet {
	opts := v2store.TTLOptionSet{Refresh: r.Refresh != nil && *r.Refresh}
	if r.Expiration != 0 {
		opts.ExpireTime = time.Unix(0, r.Expiration)
	}
	return opts
}

func (m *machine) applyConfChange(data []byte) (outcome, error) {
	cc, err := walcodec.ParseConfChange(data)
	if err != nil {
		return outcome{}, err
	}
	if err := m.cluster.apply(cc); err != nil {
		return outcome{id: cc.ID, err: err}, nil
	}
	m.changeConf(cc)
	return outcome{id: cc.ID}, nil
}

// changeConf keeps what raft's own configuration would be.
func (m *machine) changeConf(cc walcodec.ConfChange) {
	without := func(ids []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(ids), func(id uint64) bool { return id == cc.NodeID })
	}
	if cc.Type == walcodec.ConfChangeUpdateNode {
		return
	}
	m.conf.Voters, m.conf.Learners = without(m.conf.Voters), without(m.conf.Learners)
	switch cc.Type {
	case walcodec.ConfChangeAddNode:
		m.conf.Voters = append(m.conf.Voters, cc.NodeID)
	case walcodec.ConfChangeAddLearnerNode:
		m.conf.Learners = append(m.conf.Learners, cc.NodeID)
	}
	slices.Sort(m.conf.Voters)
	slices.Sort(m.conf.Learners)
}

// alone tells whether self is the only member of raft's configuration.
func (m *machine) alone(self uint64) bool {
	return len(m.conf.Learners) == 0 && slices.Equal(m.conf.Voters, []uint64{self})
}

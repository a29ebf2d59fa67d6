package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Where the v2 store keeps what (etcdserver/api/membership/storev2.go).
const (
	clusterPrefix = "/0"
	keysPrefix    = "/1"
	authPrefix    = "/2"

	membersPath     = clusterPrefix + "/members"
	removedPath     = clusterPrefix + "/removed_members"
	versionPath     = clusterPrefix + "/version"
	raftAttributes  = "raftAttributes"
	plainAttributes = "attributes"
)

const maxLearners = 1

// permanent is the time to live of membership keys.
var permanent = v2store.TTLOptionSet{ExpireTime: v2store.Permanent}

// cluster is the membership. It lives in the v2 store; the fields are a copy
// that can be read without disturbing the store's counters.
type cluster struct {
	id, local types.ID
	store     v2store.Store

	mu      sync.RWMutex
	members map[types.ID]*membership.Member
	removed map[types.ID]bool
	version string // empty: not decided
}

// recover reads the membership from the store.
func (c *cluster) recover() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members, c.removed = map[types.ID]*membership.Member{}, map[types.ID]bool{}
	if err := c.eachNode(membersPath, c.recoverMember); err != nil {
		return err
	}
	err := c.eachNode(removedPath, func(n *v2store.NodeExtern) error {
		id, err := types.IDFromString(path.Base(n.Key))
		c.removed[id] = true
		return err
	})
	if err != nil {
		return err
	}
	c.version, err = c.value(versionPath)
	return err
}

func (c *cluster) eachNode(dir string, fn func(*v2store.NodeExtern) error) error {
	ev, err := c.store.Get(dir, true, true)
	if isKeyNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range ev.Node.Nodes {
		if err := fn(n); err != nil {
			return fmt.Errorf("v2 store: %s: %w", n.Key, err)
		}
	}
	return nil
}

func (c *cluster) recoverMember(n *v2store.NodeExtern) error {
	id, err := types.IDFromString(path.Base(n.Key))
	if err != nil {
		return err
	}
	m := &membership.Member{ID: id}
	for _, attr := range n.Nodes {
		switch path.Base(attr.Key) {
		case raftAttributes:
			err = errors.Join(err, unmarshalNode(attr, &m.RaftAttributes))
		case plainAttributes:
			err = errors.Join(err, unmarshalNode(attr, &m.Attributes))
		}
	}
	c.members[id] = m
	return err
}

func unmarshalNode(n *v2store.NodeExtern, v any) error {
	if n.Value == nil {
		return errors.New("is a directory")
	}
	return json.Unmarshal([]byte(*n.Value), v)
}

// value returns "" for a key that does not exist.
func (c *cluster) value(key string) (string, error) {
	ev, err := c.store.Get(key, false, false)
	switch {
	case isKeyNotFound(err):
		return "", nil
	case err != nil:
		return "", err
	case ev.Node.Value == nil:
		return "", fmt.Errorf("v2 store: %s: is a directory", key)
	}
	return *ev.Node.Value, nil
}

func isKeyNotFound(err error) bool {
	var e *v2error.Error
	return errors.As(err, &e) && e.ErrorCode == v2error.EcodeKeyNotFound
}

// list returns the members by id.
func (c *cluster) list() []membership.Member {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var all []membership.Member
	for _, id := range slices.Sorted(maps.Keys(c.members)) {
		all = append(all, *c.members[id])
	}
	return all
}

func (c *cluster) member(id types.ID) (membership.Member, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	m, ok := c.members[id]
	if !ok {
		return membership.Member{}, false
	}
	return *m, true
}

func (c *cluster) clusterVersion() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.version
}

// validate says whether etcd would let the change have effect. A refused
// change stays in the log and does nothing.
func (c *cluster) validate(cc walcodec.ConfChange) error {
	id := types.ID(cc.NodeID)
	if c.removed[id] {
		return membership.ErrIDRemoved
	}
	switch cc.Type {
	case walcodec.ConfChangeAddNode, walcodec.ConfChangeAddLearnerNode:
		return c.validateAdd(id, cc.Context)
	case walcodec.ConfChangeRemoveNode:
		if c.members[id] == nil {
			return membership.ErrIDNotFound
		}
	case walcodec.ConfChangeUpdateNode:
		return c.validateUpdate(id, cc.Context)
	default:
		return fmt.Errorf("conf change: unknown type %d", cc.Type)
	}
	return nil
}

func (c *cluster) validateAdd(id types.ID, context []byte) error {
	var change membership.ConfigChangeContext
	if err := json.Unmarshal(context, &change); err != nil {
		return fmt.Errorf("conf change: context: %w", err)
	}
	held := c.members[id]
	switch {
	case change.IsPromote && held == nil:
		return membership.ErrIDNotFound
	case change.IsPromote && !held.IsLearner:
		return membership.ErrMemberNotLearner
	case change.IsPromote:
		return nil
	case held != nil:
		return membership.ErrIDExists
	case c.peerURLInUse(change.PeerURLs, id):
		return membership.ErrPeerURLexists
	case change.IsLearner && c.learners() >= maxLearners:
		return membership.ErrTooManyLearners
	}
	return nil
}

func (c *cluster) validateUpdate(id types.ID, context []byte) error {
	if c.members[id] == nil {
		return membership.ErrIDNotFound
	}
	var m membership.Member
	if err := json.Unmarshal(context, &m); err != nil {
		return fmt.Errorf("conf change: context: %w", err)
	}
	if c.peerURLInUse(m.PeerURLs, id) {
		return membership.ErrPeerURLexists
	}
	return nil
}

// peerURLInUse tells whether a member other than id has one of the URLs.
func (c *cluster) peerURLInUse(urls []string, id types.ID) bool {
	for _, m := range c.members {
		if m.ID != id && slices.ContainsFunc(m.PeerURLs, func(u string) bool { return slices.Contains(urls, u) }) {
			return true
		}
	}
	return false
}

// freePeerURL is what etcd gives a member that has to add itself, unless
// another has it: then one that none has.
func (c *cluster) freePeerURL() string {
	members := map[uint64][]string{}
	for id, m := range c.members {
		members[uint64(id)] = m.PeerURLs
	}
	if c.peerURLInUse([]string{datadir.ForcedPeerURL}, 0) {
		return datadir.FreePeerURL(members)
	}
	return datadir.ForcedPeerURL
}

func (c *cluster) learners() int {
	n := 0
	for _, m := range c.members {
		if m.IsLearner {
			n++
		}
	}
	return n
}

// apply carries out a committed change. An error means that it has no effect.
func (c *cluster) apply(cc walcodec.ConfChange) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.validate(cc); err != nil {
		return err
	}
	switch cc.Type {
	case walcodec.ConfChangeRemoveNode:
		return c.remove(types.ID(cc.NodeID))
	case walcodec.ConfChangeUpdateNode:
		return c.update(types.ID(cc.NodeID), cc.Context)
	default:
		return c.add(types.ID(cc.NodeID), cc.Context)
	}
}

func (c *cluster) add(id types.ID, context []byte) error {
	var change membership.ConfigChangeContext
	if err := json.Unmarshal(context, &change); err != nil {
		return err
	}
	if change.IsPromote {
		c.members[id].IsLearner = false
		return c.storeRaftAttributes(c.members[id])
	}
	m := change.Member
	m.ID = id
	value, err := json.Marshal(m.RaftAttributes)
	if err != nil {
		return err
	}
	c.members[id] = &m
	_, err = c.store.Create(memberPath(id, raftAttributes), false, string(value), false, permanent)
	return err
}

func (c *cluster) remove(id types.ID) error {
	delete(c.members, id)
	c.removed[id] = true
	if _, err := c.store.Delete(memberPath(id), true, true); err != nil {
		return err
	}
	_, err := c.store.Create(path.Join(removedPath, id.String()), false, "", false, permanent)
	return err
}

func (c *cluster) update(id types.ID, context []byte) error {
	var m membership.Member
	if err := json.Unmarshal(context, &m); err != nil {
		return err
	}
	c.members[id].RaftAttributes = m.RaftAttributes
	return c.storeRaftAttributes(c.members[id])
}

func (c *cluster) storeRaftAttributes(m *membership.Member) error {
	value, err := json.Marshal(m.RaftAttributes)
	if err != nil {
		return err
	}
	_, err = c.store.Update(memberPath(m.ID, raftAttributes), string(value), permanent)
	return err
}

// setAttributes carries out a member's PUT of its name and client URLs. That
// of a member which is not there has no effect (etcd panics unless it was removed).
func (c *cluster) setAttributes(id types.ID, value string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.members[id]
	if !ok {
		return nil
	}
	var attributes membership.Attributes
	if err := json.Unmarshal([]byte(value), &attributes); err != nil {
		return fmt.Errorf("attributes of member %s: %w", id, err)
	}
	stored, err := json.Marshal(attributes)
	if err != nil {
		return err
	}
	m.Attributes = attributes
	_, err = c.store.Set(memberPath(id, plainAttributes), false, string(stored), permanent)
	return err
}

func (c *cluster) setVersion(version string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = version
	_, err := c.store.Set(versionPath, false, version, permanent)
	return err
}

func memberPath(id types.ID, rest ...string) string {
	return path.Join(append([]string{membersPath, id.String()}, rest...)...)
}

// attributesOwner returns whose attributes a path holds.
func attributesOwner(p string) (types.ID, bool) {
	dir, name := path.Split(p)
	member, ok := strings.CutPrefix(path.Clean(dir), membersPath+"/")
	if !ok || name != plainAttributes || len(member) > 16 {
		return 0, false
	}
	id, err := types.IDFromString(member)
	return id, err == nil
}

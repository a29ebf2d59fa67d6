package prove

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// roster is what decides whether a membership change counts: each one that
// does moves the v2 index (etcdserver/api/membership/cluster.go and
// storev2.go, 3.4). What it writes below /0 is no client's concern, and not
// kept.
type roster struct {
	members map[uint64]peer
	removed map[uint64]bool
}

type peer struct {
	urls    []string
	learner bool
}

// Paths of etcd's own requests.
const (
	membersDir     = clusterDir + "/members/"
	attributesName = "/attributes"
	versionKey     = clusterDir + "/version"
)

func newRoster(m snapcodec.Membership) *roster {
	r := &roster{members: map[uint64]peer{}, removed: map[uint64]bool{}}
	for _, member := range m.Members {
		r.members[member.ID] = peer{member.PeerURLs, member.IsLearner}
	}
	for _, id := range m.Removed {
		r.removed[id] = true
	}
	return r
}

// apply returns by how much the change moves the v2 index; 0: it is refused.
func (r *roster) apply(cc walcodec.ConfChange) (uint64, error) {
	if r.removed[cc.NodeID] {
		return 0, nil
	}
	held, known := r.members[cc.NodeID]
	if cc.Type == walcodec.ConfChangeRemoveNode {
		if !known {
			return 0, nil
		}
		delete(r.members, cc.NodeID)
		r.removed[cc.NodeID] = true
		return 2, nil // one to delete the member, one to remember that
	}
	var told struct {
		PeerURLs  []string `json:"peerURLs"`
		IsLearner bool     `json:"isLearner"`
		IsPromote bool     `json:"isPromote"`
	}
	if err := json.Unmarshal(cc.Context, &told); err != nil {
		return 0, fmt.Errorf("context: %w", err)
	}
	next := peer{told.PeerURLs, told.IsLearner}
	switch {
	case cc.Type == walcodec.ConfChangeUpdateNode:
		if !known || r.inUse(cc.NodeID, told.PeerURLs) {
			return 0, nil
		}
	case told.IsPromote:
		next = peer{urls: held.urls}
		if !known || !held.learner {
			return 0, nil
		}
	case known, r.inUse(cc.NodeID, told.PeerURLs), told.IsLearner && r.hasLearner():
		return 0, nil
	}
	r.members[cc.NodeID] = next
	return 1, nil
}

// inUse tells whether a member other than id has one of the peer URLs.
func (r *roster) inUse(id uint64, urls []string) bool {
	for other, p := range r.members {
		if other != id && slices.ContainsFunc(p.urls, func(u string) bool { return slices.Contains(urls, u) }) {
			return true
		}
	}
	return false
}

func (r *roster) hasLearner() bool {
	for _, p := range r.members {
		if p.learner {
			return true
		}
	}
	return false
}

// owner is the member whose attributes the path holds.
func owner(p string) (uint64, bool) {
	name, ok := strings.CutPrefix(p, membersDir)
	if !ok {
		return 0, false
	}
	if name, ok = strings.CutSuffix(name, attributesName); !ok {
		return 0, false
	}
	id, err := snapcodec.ParseID(name)
	return id, err == nil
}

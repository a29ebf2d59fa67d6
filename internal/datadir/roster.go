package datadir

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// roster follows who votes, who has started and who was removed.
type roster struct {
	voters   map[uint64]bool
	learners map[uint64]bool
	started  map[uint64]string // name by id
	removed  map[uint64]bool
	urls     map[uint64][]string // peer URLs of every member
	version  string              // of the cluster
}

func newRoster() *roster {
	return &roster{
		voters: map[uint64]bool{}, learners: map[uint64]bool{},
		started: map[uint64]string{}, removed: map[uint64]bool{}, urls: map[uint64][]string{},
	}
}

// load starts from what a snapshot says.
func (m *roster) load(conf snapcodec.ConfState, members snapcodec.Membership) {
	for _, id := range conf.Voters {
		m.voters[id] = true
	}
	for _, id := range conf.Learners {
		m.learners[id] = true
	}
	m.loadMembers(members)
	for _, id := range members.Removed {
		m.removed[id] = true
	}
	m.version = members.ClusterVersion
}

func (m *roster) loadMembers(members snapcodec.Membership) {
	for _, member := range members.Members {
		if m.removed[member.ID] {
			continue
		}
		m.urls[member.ID] = member.PeerURLs
		if member.Name != "" {
			m.started[member.ID] = member.Name
		}
	}
}

// apply takes in a conf change as raft does. Updates change no votes.
func (m *roster) apply(cc walcodec.ConfChange) {
	if member, err := walcodec.ParseMember(cc.Context); err == nil && len(member.PeerURLs) > 0 {
		m.urls[cc.NodeID] = member.PeerURLs
	}
	switch cc.Type {
	case walcodec.ConfChangeAddNode:
		delete(m.learners, cc.NodeID)
		m.voters[cc.NodeID] = true
	case walcodec.ConfChangeAddLearnerNode:
		delete(m.voters, cc.NodeID)
		m.learners[cc.NodeID] = true
	case walcodec.ConfChangeRemoveNode:
		delete(m.voters, cc.NodeID)
		delete(m.learners, cc.NodeID)
		delete(m.started, cc.NodeID)
		delete(m.urls, cc.NodeID)
		m.removed[cc.NodeID] = true
	}
}

// see takes in one of etcd's own two PUTs.
func (m *roster) see(r walcodec.Request) {
	id := memberOf(r.Path)
	if id == 0 {
		m.version = r.Val
		return
	}
	var attr struct {
		Name string `json:"name"`
	}
	if json.Unmarshal([]byte(r.Val), &attr) == nil && attr.Name != "" {
		m.started[id] = attr.Name
	}
}

// alone tells whether id is the only voter.
func (m *roster) alone(id uint64) bool { return len(m.voters) == 1 && m.voters[id] }

func (m *roster) confState() *walcodec.ConfState {
	return &walcodec.ConfState{
		Voters:   slices.Sorted(maps.Keys(m.voters)),
		Learners: slices.Sorted(maps.Keys(m.learners)),
	}
}

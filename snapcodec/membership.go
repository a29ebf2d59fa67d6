package snapcodec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Member is one member as the cluster's membership lists it. The order of
// fields and the tags are those of etcd's JSON.
type Member struct {
	ID         uint64
	PeerURLs   []string
	IsLearner  bool
	Name       string // empty until the member has started once
	ClientURLs []string
}

// Membership is who belongs to the cluster.
type Membership struct {
	Members        []Member // by id, ascending
	Removed        []uint64 // ids that may never come back, ascending
	ClusterVersion string   // such as 3.5.0; empty when none was decided
}

// Member finds a member by id.
func (m *Membership) Member(id uint64) (Member, bool) {
	i, ok := slices.BinarySearchFunc(m.Members, id, compareMember)
	if !ok {
		return Member{}, false
	}
	return m.Members[i], true
}

func compareMember(m Member, id uint64) int {
	switch {
	case m.ID < id:
		return -1
	case m.ID > id:
		return 1
	}
	return 0
}

// FormatID writes an id as etcd prints it and as names nodes after it: hex,
// lower case, no leading zeros.
func FormatID(id uint64) string { return strconv.FormatUint(id, 16) }

// ParseID reads a member or cluster id in hex.
func ParseID(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("id %q is not up to 16 hex digits", s)
	}
	return id, nil
}

// raftAttributes and attributes are a member's two JSON values in the v2 store,
// memberJSON its one value in the v3 backend. Source: etcdserver/api/membership
// member.go, etcd 2.0 to 3.7.
type raftAttributes struct {
	PeerURLs  []string `json:"peerURLs"`
	IsLearner bool     `json:"isLearner,omitempty"`
}

type attributes struct {
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// Where membership lives in the v2 store.
const (
	membersDir = "/0/members"
	removedDir = "/0/removed_members"
	versionKey = "/0/version"
)

// Membership reads the members from the v2 store. It stops where /0 ends, and
// does not check the checksum.
func (s *Snap) Membership() (Membership, error) {
	var c membershipCollector
	_, _, err := s.walk(s.Store(), func(n *Node) error {
		if !c.wants(n) {
			return fs.SkipAll
		}
		return c.add(n)
	})
	if err != nil {
		return Membership{}, err
	}
	m, err := c.membership()
	if err != nil {
		return Membership{}, s.corrupt(s.store.off, err)
	}
	return m, nil
}

// membershipCollector picks membership out of a walk.
type membershipCollector struct {
	byID    map[uint64]*foundMember
	removed []uint64
	version string
	inside  bool
}

type foundMember struct {
	Member
	hasRaft bool
}

// wants is false once the walk has left /0.
func (c *membershipCollector) wants(n *Node) bool {
	if isUnder(n.Path, "/0") || string(n.Path) == "/0" {
		c.inside = true
		return true
	}
	return !c.inside
}

// isUnder tells whether path is below dir, at any depth.
func isUnder(path []byte, dir string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && string(path[:len(dir)]) == dir
}

// add takes what a node says about membership.
func (c *membershipCollector) add(n *Node) error {
	switch {
	case isUnder(n.Path, membersDir):
		return c.addMember(n, string(n.Path[len(membersDir)+1:]))
	case isUnder(n.Path, removedDir):
		id, err := ParseID(string(n.Path[len(removedDir)+1:]))
		if err != nil {
			return nodeError(n, err)
		}
		c.removed = append(c.removed, id)
	case string(n.Path) == versionKey && !n.Dir:
		c.version = string(n.Value)
	}
	return nil
}

// nodeError is damage at a node, as the walker reports it.
func nodeError(n *Node, err error) error {
	return &jsonError{n.Offset, fmt.Errorf("%.200s: %w", n.Path, err)}
}

// addMember takes ID, ID/raftAttributes or ID/attributes.
func (c *membershipCollector) addMember(n *Node, rest string) error {
	name, attr, _ := strings.Cut(rest, "/")
	id, err := ParseID(name)
	if err != nil {
		return nodeError(n, err)
	}
	m := c.found(id)
	switch attr {
	case "raftAttributes":
		m.hasRaft = true
		err = m.setRaftAttributes(n.Value)
	case "attributes":
		err = m.setAttributes(n.Value)
	}
	if err != nil {
		return nodeError(n, err)
	}
	return nil
}

func (m *Member) setRaftAttributes(value []byte) error {
	var a raftAttributes
	err := json.Unmarshal(value, &a)
	m.PeerURLs, m.IsLearner = a.PeerURLs, a.IsLearner
	return err
}

func (m *Member) setAttributes(value []byte) error {
	var a attributes
	err := json.Unmarshal(value, &a)
	m.Name, m.ClientURLs = a.Name, a.ClientURLs
	return err
}

func (c *membershipCollector) found(id uint64) *foundMember {
	if c.byID == nil {
		c.byID = make(map[uint64]*foundMember)
	}
	if c.byID[id] == nil {
		c.byID[id] = &foundMember{Member: Member{ID: id}}
	}
	return c.byID[id]
}

var errNoRaftAttributes = errors.New("has no raftAttributes")

// membership gives what was collected, sorted. A member without raftAttributes
// is one that etcd would not load.
func (c *membershipCollector) membership() (Membership, error) {
	m := Membership{Removed: c.removed, ClusterVersion: c.version}
	for _, f := range c.byID {
		if !f.hasRaft {
			return Membership{}, fmt.Errorf("member %x %w", f.ID, errNoRaftAttributes)
		}
		m.Members = append(m.Members, f.Member)
	}
	sortMembership(&m)
	return m, nil
}

func sortMembership(m *Membership) {
	slices.SortFunc(m.Members, func(a, b Member) int { return compareMember(a, b.ID) })
	slices.Sort(m.Removed)
}

// UserData says what a v2 store holds beside membership: what etcd 3.6 and
// later have no home for.
type UserData struct {
	Keys   int64  // under /1
	Dirs   int64  // under /1
	Hidden int64  // of Keys and Dirs, those that have a hidden name on their path
	Auth   int64  // v2 users and roles, under /2
	First  string // path of the first of these, at most 1024 bytes
	// Visible tells that etcd 3.6's own check finds the data and refuses to
	// boot; what it does not find is lost without a word.
	Visible bool
}

// Any tells whether there is anything to lose.
func (u *UserData) Any() bool { return u.Keys+u.Dirs+u.Auth > 0 }

// Add counts a node. It is meant to be called from a walk.
//
// Visible follows IsMetaStoreOnly (membership/storev2.go, etcd 3.6.13): it asks
// for a recursive listing of the root, which leaves out hidden names, and looks
// for any entry of /1, or for an entry of a directory in /2.
func (u *UserData) Add(n *Node) {
	switch {
	case isUnder(n.Path, "/0"):
		return
	case isUnder(n.Path, "/2"):
		u.addAuth(n)
	case bytes.Count(n.Path, []byte("/")) >= 2:
		u.addKey(n)
	}
}

func (u *UserData) addAuth(n *Node) {
	if bytes.Count(n.Path, []byte("/")) < 3 {
		return // /2/enabled, and the directories of users and roles
	}
	u.first(n)
	u.Auth++
	u.Visible = u.Visible || !hiddenPath(n.Path)
}

func (u *UserData) addKey(n *Node) {
	u.first(n)
	if n.Dir {
		u.Dirs++
	} else {
		u.Keys++
	}
	if hiddenPath(n.Path) {
		u.Hidden++
	} else {
		u.Visible = true
	}
}

func (u *UserData) first(n *Node) {
	if u.First == "" {
		u.First = string(n.Path[:min(len(n.Path), 1024)])
	}
}

// hiddenPath tells whether any name on the path starts with an underscore.
func hiddenPath(path []byte) bool { return bytes.Contains(path, []byte("/_")) }

// Contents is everything about a raft snapshot but its keys.
type Contents struct {
	StoreInfo
	Membership Membership
	UserData   UserData
	Nodes      int64 // of the whole tree, the root included
}

// Inspect reads all of the snapshot once, checks its checksum and sums it up.
func (s *Snap) Inspect() (Contents, error) {
	var c Contents
	var members membershipCollector
	info, err := s.Walk(func(n *Node) error {
		c.Nodes++
		c.UserData.Add(n)
		return members.add(n)
	})
	if err != nil {
		return Contents{}, err
	}
	c.StoreInfo = info
	c.Membership, err = members.membership()
	if err != nil {
		return Contents{}, s.corrupt(s.store.off, err)
	}
	return c, nil
}

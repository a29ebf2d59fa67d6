package server

import (
	"context"
	"errors"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// SetPeerURL changes where the member says that other members find it.
//
// A new member should not keep etcd's default, http://localhost:2380: etcd
// --force-new-cluster gives that URL to a node id that is new to a dir, refuses
// it as taken if a member has it, and panics for want of a voter
// (etcdserver/raft.go, createConfigChangeEnts, 3.4).
func (s *Server) SetPeerURL(ctx context.Context, url string) error {
	e, ok := s.engine.(*v2Engine)
	if !ok {
		return errors.New("set the peer URL: not the v2 engine")
	}
	m := membership.Member{ID: e.id, RaftAttributes: membership.RaftAttributes{PeerURLs: []string{url}}}
	return e.updateMember(ctx, m)
}

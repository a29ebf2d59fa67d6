package backup

import (
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// NewSeed plans the data dir of member id, which was just added to the living
// cluster that src is a member of, or a copy of one that kept its cluster id.
// Started on it, the member catches up from the log alone, as long as the
// leader still has the entries that follow.
func NewSeed(src *datadir.Dir, id uint64, o Options) (*Plan, error) {
	o.KeepClusterID, o.NodeID = true, id
	p, err := NewPlan(src, o)
	if err != nil {
		return nil, err
	}
	if err := p.checkStopped(); err != nil {
		return nil, err
	}
	if _, known := src.PeerURLs[id]; !known {
		return nil, fmt.Errorf("%s: knows no member %x of cluster %x: add the member first (member add), then take the source", src.Root, id, src.IDs.ClusterID)
	}
	return p, nil
}

// checkStopped refuses a backend that is in use.
func (p *Plan) checkStopped() error {
	if p.Source.Backend == nil || p.stopped() {
		return nil
	}
	cause := ErrLive
	if p.Source.Live == datadir.LiveUnknown {
		cause = ErrMaybeLive
	}
	return fmt.Errorf("%s: %w, and a backend in use can't be copied as a file", p.Source.Root, cause)
}

package restore

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/netutil"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Cluster is the new cluster: who its members are, and their ids.
type Cluster struct {
	ID      uint64
	Members []snapcodec.Member // by id, ascending
}

// NewCluster reads members as etcd's --initial-cluster names them
// (m1=http://10.0.0.1:2380,m2=…; a name may come several times, with one URL
// each) and derives the ids. Source: membership.NewClusterFromURLsMap, etcd 3.7.
func NewCluster(initial, token string) (Cluster, error) {
	byName, err := types.NewURLsMap(initial)
	if err != nil {
		return Cluster{}, fmt.Errorf("initial cluster %q: %w", initial, err)
	}
	if len(byName) == 0 {
		return Cluster{}, errors.New("initial cluster is empty")
	}
	var c Cluster
	for name, urls := range byName {
		peers := urls.StringSlice()
		c.Members = append(c.Members, snapcodec.Member{ID: memberID(peers, token), Name: name, PeerURLs: peers})
	}
	slices.SortFunc(c.Members, func(a, b snapcodec.Member) int { return cmp.Compare(a.ID, b.ID) })
	if err := c.check(); err != nil {
		return Cluster{}, fmt.Errorf("initial cluster %q: %w", initial, err)
	}
	c.ID = clusterID(c.Members)
	return c, nil
}

// memberID hashes the sorted URLs and the token (computeMemberID in
// membership/member.go, etcd 3.7).
func memberID(peerURLs []string, token string) uint64 {
	sorted := slices.Sorted(slices.Values(peerURLs))
	sum := sha1.Sum([]byte(strings.Join(sorted, "") + token))
	return binary.BigEndian.Uint64(sum[:])
}

// clusterID hashes the member ids (genID in membership/cluster.go, etcd 3.7).
func clusterID(members []snapcodec.Member) uint64 {
	var ids []byte
	for _, m := range members {
		ids = binary.BigEndian.AppendUint64(ids, m.ID)
	}
	sum := sha1.Sum(ids)
	return binary.BigEndian.Uint64(sum[:])
}

func (c Cluster) check() error {
	owner := map[string]string{}
	for _, m := range c.Members {
		if m.ID == 0 {
			return fmt.Errorf("member %q would get id 0, which is none", m.Name)
		}
		for _, url := range m.PeerURLs {
			if other, taken := owner[url]; taken {
				return fmt.Errorf("peer URL %s is given twice, for %q and %q", url, other, m.Name)
			}
			owner[url] = m.Name
		}
	}
	return nil
}

// Member finds a member by name.
func (c Cluster) Member(name string) (snapcodec.Member, error) {
	for _, m := range c.Members {
		if m.Name == name {
			return m, nil
		}
	}
	return snapcodec.Member{}, fmt.Errorf("member %q is not in the initial cluster: it has %s", name, strings.Join(c.Names(), ", "))
}

// Names lists the members by name.
func (c Cluster) Names() []string {
	var names []string
	for _, m := range c.Members {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	return names
}

// voters are the ids of all members.
func (c Cluster) voters() []uint64 {
	var ids []uint64
	for _, m := range c.Members {
		ids = append(ids, m.ID)
	}
	return ids
}

// resolveTimeout is how long etcd waits for names in URLs to resolve
// (ServerConfig.advertiseMatchesCluster, etcd 3.7).
const resolveTimeout = 30 * time.Second

// CheckAdvertised compares what a member advertises with what the cluster says
// of it, as etcd does at its start; names are resolved where the texts differ.
func CheckAdvertised(ctx context.Context, m snapcodec.Member, advertised []string) error {
	urls, err := types.NewURLs(advertised)
	if err != nil {
		return fmt.Errorf("advertised peer URLs: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	equal, err := netutil.URLStringsEqual(ctx, zap.NewNop(), urls.StringSlice(), slices.Clone(m.PeerURLs))
	switch {
	case equal:
		return nil
	case err != nil:
		err = fmt.Errorf(" (%w)", err)
	default:
		err = errors.New("")
	}
	return fmt.Errorf("member %q advertises peer URLs %s, the initial cluster gives it %s%w",
		m.Name, urls, strings.Join(m.PeerURLs, ","), err)
}

package v3engine

import (
	"cmp"
	"fmt"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// InPlace names the member that the dir itself can be restarted as, or says why
// it must not be: an older dir would be upgraded for good, and one member of many
// would have to be cut off from the others.
func InPlace(d *datadir.Dir, e Engine) (string, error) {
	if d.Facts.Origin != e.Release {
		return "", fmt.Errorf("%s: is of etcd %s, and %s would upgrade or change it for good", d.Root, d.Facts.Origin, e)
	}
	facts := d.Facts
	facts.PeerURLTaken = false // of concern to --force-new-cluster, which is not used here
	if err := facts.Boots(e.Release); err != nil {
		return "", fmt.Errorf("%s: etcd %s does not boot it: %w", d.Root, e.Release, err)
	}
	if d.Backend == nil {
		return "", fmt.Errorf("%s: has no v3 backend to tell its members", d.Root)
	}
	b, err := openBackend(d.Backend.Path)
	if err != nil {
		return "", err
	}
	defer b.Close()
	members, err := b.Membership()
	if err != nil {
		return "", err
	}
	if len(members.Members) != 1 || members.Members[0].ID != d.IDs.NodeID {
		return "", fmt.Errorf("%s: belongs to a cluster of %d members, from which it would be cut off for good", d.Root, len(members.Members))
	}
	return cmp.Or(members.Members[0].Name, memberName), nil
}

package datadir

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Facts decide which releases boot a data dir.
type Facts struct {
	Origin   Release // the release that wrote it, as far as its files tell
	Snapshot bool    // it starts from a .snap
	Backend  bool    // it has a v3 backend
	Padded   bool    // its log has frames as 3.0 and later write them

	SnapVersion    string // /0/version in the .snap; empty if there is none
	StorageVersion Release
	// ClusterVersion is the one in force at the end of the log, in the v2
	// store or the backend, whichever is higher.
	ClusterVersion Release

	V2Data    string // where v2 user data is, such as "/a in the snapshot"; empty for none
	V2Entries bool   // v2 requests after the snapshot
	V2Others  bool   // some of those are not etcd's own membership PUTs

	BareRecord bool // the log's record of the snapshot does not say who votes
	Mark       bool // the entry at the backend's consistent index is in the log
	// Fresh tells that log and .snap were made anew, and name no version: the
	// versions are the backend's, which not every release looks at.
	Fresh bool
	// PeerURLTaken tells that a member has ForcedPeerURL.
	PeerURLTaken bool
	// ConfUnmarked tells of conf changes after the backend's consistent index
	// that it holds nevertheless.
	ConfUnmarked bool
}

// loadBase reads what the base says about the members and user data.
func (d *Dir) loadBase(members *roster) error {
	snap, err := d.OpenBase()
	if err != nil {
		return err
	}
	if d.Members, err = snap.Membership(); err != nil {
		return err
	}
	members.load(snap.ConfState, d.Members)
	d.v2Data, err = firstUserData(snap)
	return err
}

// firstUserData looks for v2 data that is not etcd's own, up to the first that
// etcd 3.6 would see; else the first that it would lose without a word.
func firstUserData(snap *snapcodec.Snap) (string, error) {
	var data snapcodec.UserData
	_, err := snap.Walk(func(n *snapcodec.Node) error {
		if data.Add(n); data.Visible {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || !data.Any() {
		return "", err
	}
	return clientPath(data.First) + " in the snapshot", nil
}

// clientPath is how a client knows a path of the store: keys are below /1.
func clientPath(path string) string {
	if key, ok := strings.CutPrefix(path, "/1/"); ok {
		return "/" + key
	}
	if auth, ok := strings.CutPrefix(path, "/2/"); ok {
		return "v2 auth " + auth
	}
	return path
}

// facts draws together what was read.
func (d *Dir) facts(version string) (Facts, error) {
	f := Facts{
		Snapshot:    d.Base != nil,
		Backend:     d.Backend != nil,
		Padded:      d.Log.Padded,
		SnapVersion: d.Members.ClusterVersion,
		V2Data:      d.v2Data,
		V2Entries:   d.Log.V2.Membership+d.Log.V2.Other > 0,
		V2Others:    d.Log.V2.Other > 0,
		BareRecord:  d.Base != nil && !d.Log.BaseConf,
		Mark:        d.Log.Mark != nil,

		PeerURLTaken: taken(d.PeerURLs, ForcedPeerURL),
	}
	if f.V2Data == "" && d.Log.V2.User != "" {
		f.V2Data = d.Log.V2.User + " in the log"
	}
	var err error
	if f.ClusterVersion, err = optionalRelease(version); err != nil {
		return f, fmt.Errorf("cluster version: %w", err)
	}
	if d.Backend != nil {
		err = f.addBackend(*d.Backend)
	}
	f.Origin = f.origin(d.Backend)
	// From 3.5 on the index is written with every change of the backend.
	f.ConfUnmarked = d.Log.Raised != nil && f.Origin.Before(R35)
	return f, err
}

func (f *Facts) addBackend(b Backend) error {
	cluster, err := optionalRelease(b.ClusterVersion)
	if err != nil {
		return fmt.Errorf("%s: cluster version: %w", b.Path, err)
	}
	if f.ClusterVersion.Before(cluster) {
		f.ClusterVersion = cluster
	}
	if f.StorageVersion, err = optionalRelease(b.StorageVersion); err != nil {
		return fmt.Errorf("%s: storage version: %w", b.Path, err)
	}
	return nil
}

func optionalRelease(text string) (Release, error) {
	if text == "" {
		return Release{}, nil
	}
	return ParseRelease(text)
}

// origin tells the release from what only it writes: 3.6 and later keep a
// storage version, 3.5 the term beside the consistent index, all from 2.1 on a
// cluster version.
func (f Facts) origin(b *Backend) Release {
	switch {
	case f.StorageVersion != Release{}:
		return f.StorageVersion
	case b != nil && b.HasTerm:
		return R35
	case f.ClusterVersion != Release{}:
		return f.ClusterVersion
	case f.Backend || f.Padded:
		return R30
	default:
		return R20
	}
}

package v3engine

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/etcd-lifeboat/lifeboat/backup"
	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/restore"
)

// Copy is a data dir to boot and throw away.
type Copy struct {
	Dir      string         // the data dir
	Steps    []datadir.Step // what it was given so that the release boots it
	Warnings []string

	tmp *atomicfile.TempDir
}

// CloneOptions adjust [Clone].
type CloneOptions struct {
	// AssumeStopped takes the caller's word that no etcd runs on the dir where
	// the system can't tell.
	AssumeStopped bool
}

// Clone copies a data dir into a temporary one that the release boots. v2 user
// data is of no concern to the v3 engine: for a release that has no place for it
// the clone goes without.
func Clone(ctx context.Context, src *datadir.Dir, release datadir.Release, o CloneOptions) (*Copy, error) {
	return makeCopy(src.Root, func(c *Copy) error {
		v3 := *src
		if !release.Before(datadir.R36) {
			v3.Facts.V2Data = ""
		}
		plan, err := backup.NewPlan(&v3, backup.Options{
			Dir: c.Dir, NodeID: nodeID(src), For: release, AssumeStopped: o.AssumeStopped,
		})
		if err != nil {
			return err
		}
		c.Steps, c.Warnings = plan.Steps, plan.Warnings
		_, err = plan.Apply(ctx, func(int64) {})
		return err
	})
}

// nodeID keeps the member's, which nobody meets: the clone has no network. As a
// new member etcd would add itself at http://localhost:2380, and where an old
// one has that URL (it is the default) 3.5 and later refuse that and panic:
// membership: peerURL exists.
func nodeID(src *datadir.Dir) uint64 {
	if src.Removed[src.IDs.NodeID] {
		return 0
	}
	return src.IDs.NodeID
}

// CloneFile makes a data dir of a snapshot or a copied backend. A snapshot's
// SHA-256 is verified.
func CloneFile(ctx context.Context, src *restore.Source) (*Copy, error) {
	return makeCopy(src.Path, func(c *Copy) error {
		cluster, err := restore.NewCluster(memberName+"=http://localhost:2380", "lifeboat")
		if err != nil {
			return err
		}
		var o restore.Options
		if src.Kind == restore.KindBackend {
			o.Hash = restore.HashSkipped
		}
		plan, err := restore.NewPlan(src, cluster, []restore.Target{{Name: memberName, Dir: c.Dir}}, o)
		if err != nil {
			return err
		}
		c.Warnings = plan.Warnings
		_, err = plan.Apply(ctx, func(int64) {})
		return err
	})
}

func makeCopy(of string, fill func(*Copy) error) (*Copy, error) {
	tmp, err := atomicfile.NewTempDir("", "clone")
	if err != nil {
		return nil, fmt.Errorf("clone %s: %w", of, err)
	}
	c := &Copy{Dir: filepath.Join(tmp.Path, "data"), tmp: tmp}
	if err := fill(c); err != nil {
		return nil, errors.Join(fmt.Errorf("clone %s: %w", of, err), c.Remove())
	}
	return c, nil
}

// backendPath is the clone's v3 backend.
func (c *Copy) backendPath() string { return filepath.Join(c.Dir, "member", "snap", "db") }

// Remove throws the clone away.
func (c *Copy) Remove() error { return c.tmp.Remove() }

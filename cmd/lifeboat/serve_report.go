package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// serveReport is what `serve -o json` prints once it listens;
// docs/commands/serve.md describes it.
type serveReport struct {
	URL            string   `json:"url"`
	DataDir        string   `json:"data_dir"`
	Mode           string   `json:"mode"` // write, read-only or clone
	Etcd           string   `json:"etcd"` // version of the data
	MemberID       string   `json:"member_id"`
	ClusterID      string   `json:"cluster_id"`
	Name           string   `json:"name"`
	SnapshotIndex  uint64   `json:"snapshot_index"`
	RaftIndex      uint64   `json:"raft_index"`
	V2Index        uint64   `json:"v2_index"`
	Keys           int64    `json:"keys"`
	Dirs           int64    `json:"dirs"`
	RemovedMembers []string `json:"removed_members"`
	DroppedEntries uint64   `json:"dropped_entries"`
	Torn           string   `json:"torn,omitempty"`
	V3Requests     int      `json:"v3_requests"` // in the log; kept, and not served
}

// bootedServer is a server and what to say of it.
type bootedServer struct {
	server *server.Server
	report serveReport
}

func (b *bootedServer) describe(dir *datadir.Dir, o server.Options) error {
	status := b.server.Status()
	contents, err := b.server.Contents()
	if err != nil {
		return err
	}
	b.report = serveReport{
		URL:     o.ClientURLs[0],
		DataDir: dir.Root, Mode: serveMode(o), Etcd: dir.Facts.Origin.String(), Name: status.Name,
		MemberID: snapcodec.FormatID(status.MemberID), ClusterID: snapcodec.FormatID(status.ClusterID),
		SnapshotIndex: status.Boot.Snapshot, RaftIndex: status.Boot.Applied, V2Index: status.Boot.StoreIndex,
		Keys: contents.Keys, Dirs: contents.Dirs,
		RemovedMembers: []string{}, DroppedEntries: status.Boot.Dropped, Torn: status.Boot.Torn, V3Requests: dir.Log.V3,
	}
	for _, id := range status.Boot.Removed {
		b.report.RemovedMembers = append(b.report.RemovedMembers, snapcodec.FormatID(id))
	}
	return nil
}

func serveMode(o server.Options) string {
	switch {
	case o.Clone:
		return "clone"
	case o.ReadOnly:
		return "read-only"
	}
	return "write"
}

func (b *bootedServer) print(e *env, format outputFlag) error {
	for _, notice := range b.report.notices() {
		fmt.Fprintln(e.Stderr, notice)
	}
	if format == outputJSON {
		return printJSON(e.Stdout, b.report)
	}
	_, err := fmt.Fprintln(e.Stdout, b.report)
	return err
}

func (r serveReport) String() string {
	mode := map[string]string{"write": "", "read-only": ", read-only", "clone": ", a clone"}[r.Mode]
	return fmt.Sprintf("Serving %s on %s (etcd %s data%s): %d keys, v2 index %d, raft index %d, member %s, cluster %s",
		r.DataDir, r.URL, r.Etcd, mode, r.Keys, r.V2Index, r.RaftIndex, r.MemberID, r.ClusterID)
}

// notices is what an operator must know of how the dir was booted.
func (r serveReport) notices() []string {
	var all []string
	if r.Torn != "" {
		all = append(all, "torn tail, left out: "+r.Torn)
	}
	if len(r.RemovedMembers) > 0 {
		all = append(all, "taken over as a cluster of one, as by --force-new-cluster; removed: "+strings.Join(r.RemovedMembers, ", "))
	}
	if r.DroppedEntries > 0 {
		all = append(all, fmt.Sprintf("dropped what follows index %d (entries: %d), which this member did not know to be committed; --keep-uncommitted keeps it",
			r.RaftIndex, r.DroppedEntries))
	}
	if r.V3Requests > 0 {
		all = append(all, "the dir holds v3 data too: it is kept, and not served")
	}
	return all
}

// publishTimeout is how long the server may take to tell clients where it is.
// etcd allows a request that goes through the log 7 s.
const publishTimeout = 7 * time.Second

// serve answers until ctx ends or the server can't go on. It calls ready once
// clients find it; an error says that they do not.
func (b *bootedServer) serve(ctx context.Context, l net.Listener, ready func(error) error) error {
	served, told := make(chan error, 1), make(chan error, 1)
	go func() { served <- b.server.Serve(l) }()
	waiting, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	go func() { told <- b.server.Published(waiting, b.report.URL) }()
	for {
		select {
		case err := <-served:
			return errors.Join(err, b.close())
		case <-ctx.Done():
			err := b.close()
			return errors.Join(err, <-served)
		case err := <-told:
			if err := ready(err); err != nil {
				return errors.Join(err, b.close(), <-served)
			}
		}
	}
}

func (b *bootedServer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return b.server.Close(ctx)
}

package restore

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// writeLog makes the write-ahead log of one member.
func (w *memberWriter) writeLog() error {
	ids := walcodec.Metadata{NodeID: w.member.ID, ClusterID: w.plan.Cluster.ID}
	log, err := walcodec.NewLogWriter(w, ids, walcodec.LogWriterOptions{})
	if err != nil {
		return err
	}
	err = log.WriteSnapshot(walcodec.Snapshot{})
	if err == nil {
		err = w.fillLog(log)
	}
	return errors.Join(err, log.Close())
}

// CreateSegment makes a file for the log.
func (w *memberWriter) CreateSegment(name string) (io.WriteCloser, error) {
	return w.dirs.createSegment(name)
}

func (w *memberWriter) fillLog(log *walcodec.LogWriter) error {
	if w.plan.Source.log != nil {
		return w.replant(log)
	}
	for i, m := range w.plan.Cluster.Members {
		if err := log.WriteEntry(addMember(m, uint64(i+1), w.plan.Term)); err != nil {
			return err
		}
	}
	if err := log.WriteHardState(w.plan.State); err != nil {
		return err
	}
	return log.WriteSnapshot(w.plan.record())
}

// addMember is the entry by which raft learns of a member, as a new cluster
// logs it.
func addMember(m snapcodec.Member, index, term uint64) walcodec.Entry {
	context, _ := json.Marshal(walcodec.Member{ID: m.ID, PeerURLs: m.PeerURLs, Name: m.Name}) // cannot fail
	change := walcodec.ConfChange{Type: walcodec.ConfChangeAddNode, NodeID: m.ID, Context: context}
	return walcodec.Entry{
		Type: walcodec.EntryConfChange, Term: term, Index: index,
		Data: walcodec.AppendConfChange(nil, change),
	}
}

// record is the log's mention of the snapshot.
func (p *Plan) record() walcodec.Snapshot {
	return walcodec.Snapshot{Index: p.Index, Term: p.Term, ConfState: &walcodec.ConfState{Voters: p.confState()}}
}

// writeSnapshot makes the .snap file: nothing but the members.
func (w *memberWriter) writeSnapshot() error {
	p := w.plan
	f, err := w.dirs.data.Create("member/snap/" + snapcodec.SnapName(p.Term, p.Index))
	if err != nil {
		return err
	}
	h := snapcodec.Header{Term: p.Term, Index: p.Index, ConfState: snapcodec.ConfState{Voters: p.confState()}}
	return errors.Join(snapcodec.WriteMembershipSnap(f, h, p.membership()), f.Close())
}

package server

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// proposal is what someone wants in the log, and where to answer.
type proposal struct {
	id   uint64
	data []byte               // of a v2 request
	conf *walcodec.ConfChange // instead of data
	done chan outcome         // has room for one
}

// node is a raft of one member. One goroutine, run, owns raft and the machine.
type node struct {
	engine  *v2Engine
	log     *slog.Logger
	raft    *raft.RawNode
	storage *raft.MemoryStorage
	wal     *wal.WAL
	snaps   *snap.Snapshotter

	proposals chan proposal
	waiting   map[uint64]chan outcome
	compacted uint64 // raft index up to which storage forgot entries

	ready   chan struct{} // closed once the log can be written
	quit    chan struct{}
	stopped chan struct{} // closed when run ended
	failedC chan struct{} // closed when it ended for an error

	snapshots sync.WaitGroup
	snapDone  chan error // of the snapshot being taken

	mu       sync.Mutex
	failure  error
	stopOnce sync.Once
}

const (
	maxBatch   = 1024 // proposals that share one sync
	keepInRaft = 4096 // entries raft may keep in memory after they were applied
)

func startNode(e *v2Engine, b *booted, w *wal.WAL) (*node, error) {
	m := b.machine
	n := &node{
		engine: e, log: e.log, wal: w, snaps: snap.New(zap.NewNop(), b.dirs.snap),
		storage:   raft.NewMemoryStorage(),
		proposals: make(chan proposal, maxBatch),
		waiting:   map[uint64]chan outcome{},
		compacted: m.applied,
		ready:     make(chan struct{}), quit: make(chan struct{}),
		stopped: make(chan struct{}), failedC: make(chan struct{}),
		snapDone: make(chan error, 1),
	}
	if err := n.startRaft(b); err != nil {
		return nil, err
	}
	go n.run()
	return n, nil
}

// startRaft starts behind all entries, as if from a snapshot there: they were
// applied, and nobody needs them sent.
func (n *node) startRaft(b *booted) error {
	m := b.machine
	err := n.storage.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: &raftpb.ConfState{Voters: []uint64{b.meta.NodeID}},
		Index:     new(m.applied), Term: new(m.term),
	}})
	if err != nil {
		return err
	}
	if err := n.storage.SetHardState(raftState(b.state)); err != nil {
		return err
	}
	n.raft, err = raft.NewRawNode(&raft.Config{
		ID: b.meta.NodeID, Storage: n.storage, Applied: m.applied,
		ElectionTick: 10, HeartbeatTick: 1,
		MaxSizePerMsg: math.MaxUint64, MaxInflightMsgs: 1,
		Logger: raftLogger{n.log},
	})
	if err != nil {
		return err
	}
	return n.raft.Campaign()
}

func (n *node) run() {
	defer close(n.stopped)
	tick := time.NewTicker(n.engine.opts.TickInterval)
	defer tick.Stop()
	sync := time.NewTicker(n.engine.opts.SyncInterval)
	defer sync.Stop()
	for {
		if err := n.drain(); err != nil {
			n.fail(err)
			return
		}
		select {
		case p := <-n.proposals:
			n.propose(p)
			n.proposeMore()
		case <-tick.C:
			n.raft.Tick()
		case now := <-sync.C:
			n.sync(now)
		case err := <-n.snapDone:
			if err != nil {
				n.fail(err)
				return
			}
		case <-n.quit:
			return
		}
	}
}

// proposeMore takes what else is waiting into the same sync.
func (n *node) proposeMore() {
	for range maxBatch {
		select {
		case p := <-n.proposals:
			n.propose(p)
		default:
			return
		}
	}
}

func (n *node) propose(p proposal) {
	var err error
	if p.conf != nil {
		err = n.raft.ProposeConfChange(raftConfChange(*p.conf))
	} else {
		err = n.raft.Propose(p.data)
	}
	if err != nil {
		p.done <- outcome{err: fmt.Errorf("etcdserver: %w", err)}
		return
	}
	n.waiting[p.id] = p.done
}

func raftConfChange(cc walcodec.ConfChange) *raftpb.ConfChange {
	return &raftpb.ConfChange{
		Id: new(cc.ID), Type: raftpb.ConfChangeType(cc.Type).Enum(), NodeId: new(cc.NodeID), Context: cc.Context,
	}
}

// sync expires keys through the log, so that they expire alike on replay.
func (n *node) sync(now time.Time) {
	if !n.engine.machine.store.HasTTLKeys() {
		return
	}
	r := walcodec.Request{ID: n.engine.requests.Next(), Method: "SYNC", Time: now.UnixNano()}
	if err := n.raft.Propose(walcodec.AppendRequest(nil, r)); err != nil {
		n.log.Warn("expiry not proposed", "error", err)
	}
}

// drain saves, applies and answers until raft has nothing left to do.
func (n *node) drain() error {
	for n.raft.HasReady() {
		rd := n.raft.Ready()
		if err := n.wal.Save(rd.HardState, rd.Entries); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			if err := n.storage.SetHardState(rd.HardState); err != nil {
				return err
			}
		}
		if err := n.storage.Append(rd.Entries); err != nil {
			return err
		}
		if err := n.apply(rd.CommittedEntries); err != nil {
			return err
		}
		n.raft.Advance(rd)
	}
	return n.compact()
}

func (n *node) apply(entries []*raftpb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	outcomes, err := n.engine.apply(entries)
	if err != nil {
		return err
	}
	for _, out := range outcomes {
		if done, ok := n.waiting[out.id]; ok {
			delete(n.waiting, out.id)
			done <- out
		}
	}
	n.signalReady()
	n.maybeSnapshot()
	return nil
}

// signalReady lets start return: the first entry of the new term was applied.
func (n *node) signalReady() {
	select {
	case <-n.ready:
	default:
		close(n.ready)
	}
}

// apply carries out committed entries while nobody reads.
func (e *v2Engine) apply(entries []*raftpb.Entry) ([]outcome, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var outcomes []outcome
	for _, entry := range entries {
		out, err := e.machine.apply(walcodec.Entry{
			Type: walcodec.EntryType(entry.GetType()), Term: entry.GetTerm(), Index: entry.GetIndex(), Data: entry.GetData(),
		})
		if err != nil {
			return nil, err
		}
		outcomes = append(outcomes, out)
	}
	e.committed.Store(e.machine.applied)
	e.term.Store(e.machine.term)
	return outcomes, nil
}

func (n *node) compact() error {
	applied := n.engine.machine.applied
	if applied-n.compacted < keepInRaft {
		return nil
	}
	n.compacted = applied
	return n.storage.Compact(applied)
}

func (n *node) fail(err error) {
	n.mu.Lock()
	n.failure = err
	n.mu.Unlock()
	n.log.Error("server stopped", "error", err)
	close(n.failedC)
}

func (n *node) cause() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failure
}

func (n *node) stop() error {
	var err error
	n.stopOnce.Do(func() {
		close(n.quit)
		<-n.stopped
		n.snapshots.Wait()
		err = n.wal.Close()
	})
	return err
}

// maybeSnapshot starts a snapshot when enough entries were applied since the last.
func (n *node) maybeSnapshot() {
	e := n.engine
	m := e.machine
	if e.boot.PendingV3 || m.applied-e.snapshot.Load() <= e.opts.SnapshotCount {
		return
	}
	e.snapshot.Store(m.applied)
	n.snapshots.Wait() // the one before
	tree := e.cloneStore()
	meta := walcodec.Snapshot{Index: m.applied, Term: m.term, ConfState: &walcodec.ConfState{
		Voters: m.conf.Voters, Learners: m.conf.Learners,
	}}
	n.snapshots.Go(func() {
		if err := n.saveSnapshot(tree, meta); err != nil {
			select {
			case n.snapDone <- fmt.Errorf("snapshot at entry %d: %w", meta.Index, err):
			case <-n.quit:
			}
		}
	})
}

// saveSnapshot makes the backend, the file and the record, in the order in
// which a crash between them leaves a dir that etcd boots.
func (n *node) saveSnapshot(tree v2store.Store, meta walcodec.Snapshot) error {
	data, err := tree.SaveNoCopy()
	if err != nil {
		return err
	}
	if err := raiseConsistentIndex(n.engine.dirs.db(), meta.Index, meta.Term); err != nil {
		return err
	}
	conf := &raftpb.ConfState{
		Voters: meta.ConfState.Voters, Learners: meta.ConfState.Learners, AutoLeave: new(false),
	}
	err = n.snaps.SaveSnap(&raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: conf, Index: new(meta.Index), Term: new(meta.Term),
	}})
	if err != nil {
		return err
	}
	if err := syncDir(n.engine.dirs.snap); err != nil {
		return err
	}
	err = n.wal.SaveSnapshot(&walpb.Snapshot{Index: new(meta.Index), Term: new(meta.Term), ConfState: conf})
	n.log.Info("snapshot saved", "index", meta.Index, "term", meta.Term, "bytes", len(data))
	return err
}

// raftLogger hands raft's messages on. Raft panics on a broken invariant of
// its own after it said so.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(v ...any)                   { l.log.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Debugf(format string, v ...any)   { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l raftLogger) Info(v ...any)                    { l.log.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any)    { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l raftLogger) Warning(v ...any)                 { l.log.Warn(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l raftLogger) Error(v ...any)                   { l.log.Error(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any)   { l.log.Error(fmt.Sprintf(format, v...)) }
func (l raftLogger) Fatal(v ...any)                   { l.Panic(v...) }
func (l raftLogger) Fatalf(format string, v ...any)   { l.Panicf(format, v...) }
func (l raftLogger) Panic(v ...any)                   { panic(errors.New(fmt.Sprint(v...))) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(fmt.Errorf(format, v...)) }

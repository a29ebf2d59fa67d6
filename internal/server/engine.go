package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/idutil"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// v2Engine serves v2 data: a key tree behind a raft of one member.
type v2Engine struct {
	opts     Options
	log      *slog.Logger
	dirs     dirs
	id       types.ID
	boot     Boot
	cluster  *cluster
	requests *idutil.Generator
	stats    *v2stats.ServerStats
	leader   *v2stats.LeaderStats
	node     *node // nil when read-only

	// mu keeps readers away while entries are applied: see updateStore.
	mu      sync.RWMutex
	machine *machine

	committed, term, snapshot atomic.Uint64
	ending                    chan struct{} // closed when watches must end

	overlay atomic.Pointer[[]string] // client URLs of a read-only server, which it can't publish
	confMu  sync.Mutex               // one conf change at a time, as raft wants it
}

// requestTimeout is what etcd allows: 5 s for the disk and two election timeouts.
const requestTimeout = 7 * time.Second

// Errors that clients know by their text (etcdserver/errors.go).
var (
	errStopped    = errors.New("etcdserver: server stopped")
	errTimeout    = errors.New("etcdserver: request timed out")
	errNotStarted = errors.New("etcdserver: re-configuration failed due to not enough started members")
)

func openV2(ctx context.Context, dir string, opts Options) (*v2Engine, error) {
	d, err := findDirs(dir, opts.WALDir)
	if err != nil {
		return nil, err
	}
	if opts.ReadOnly {
		b, err := read(d, 0, opts)
		if err != nil {
			return nil, err
		}
		return newV2Engine(b, opts), nil
	}
	b, w, err := openForWriting(d, opts)
	if err != nil {
		return nil, err
	}
	e := newV2Engine(b, opts)
	if err := e.start(ctx, b, w); err != nil {
		return nil, err
	}
	return e, nil
}

func openForWriting(d dirs, opts Options) (*booted, *wal.WAL, error) {
	d, err := d.modernise()
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(d.snap, 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := lockLog(d.wal)
	if err != nil {
		return nil, nil, err
	}
	b, err := readForWriting(d, opts)
	if lock != nil {
		err = errors.Join(err, lock.Close()) // etcd's wal package takes its own
	}
	if err != nil {
		return nil, nil, err
	}
	others := othersOf(b.machine, b.meta.NodeID)
	alone := b.machine.alone(b.meta.NodeID)
	w, err := openLog(b)
	if err != nil {
		return nil, nil, err
	}
	if !alone {
		b.found.Removed = others
	}
	return b, w, nil
}

func readForWriting(d dirs, opts Options) (*booted, error) {
	consistent, err := consistentIndex(d.db())
	if err != nil {
		return nil, err
	}
	b, err := read(d, consistent, opts)
	if err != nil {
		return nil, err
	}
	there, err := exists(d.db())
	if err == nil && !there && b.found.Snapshot > 0 {
		// a dir of 2.x: without a backend that saw the snapshot, etcd 3 refuses it
		err = raiseConsistentIndex(d.db(), b.found.Snapshot, b.machine.term)
	}
	return b, err
}

func newV2Engine(b *booted, opts Options) *v2Engine {
	id := types.ID(b.meta.NodeID)
	e := &v2Engine{
		opts: opts, log: opts.Logger, dirs: b.dirs, id: id, boot: b.found,
		cluster: b.machine.cluster, machine: b.machine,
		requests: idutil.NewGenerator(uint16(id), time.Now()),
		leader:   v2stats.NewLeaderStats(zap.NewNop(), id.String()),
		ending:   make(chan struct{}),
	}
	e.stats = v2stats.NewServerStats(e.name(), id.String())
	e.stats.BecomeLeader()
	e.committed.Store(b.machine.applied)
	e.term.Store(b.machine.term)
	e.snapshot.Store(b.found.Snapshot)
	e.logBoot()
	return e
}

func (e *v2Engine) logBoot() {
	e.log.Info("data dir read", "member", e.id, "cluster", e.cluster.id, "snapshot", e.boot.Snapshot,
		"applied", e.boot.Applied, "store-index", e.boot.StoreIndex)
	if len(e.boot.Removed) > 0 || e.boot.Dropped > 0 {
		e.log.Warn("taken over as a cluster of one", "removed-members", len(e.boot.Removed), "dropped-entries", e.boot.Dropped)
	}
	if e.boot.Torn != "" {
		e.log.Warn("the log's last write was cut short", "where", e.boot.Torn)
	}
	if e.boot.PendingV3 {
		e.log.Warn("the log holds v3 writes that the backend lacks: no snapshot will be taken")
	}
}

func (e *v2Engine) start(ctx context.Context, b *booted, w *wal.WAL) error {
	n, err := startNode(e, b, w)
	if err != nil {
		return errors.Join(err, w.Close())
	}
	e.node = n
	select {
	case <-n.ready:
		return nil
	case <-n.failedC:
		return errors.Join(n.cause(), e.close())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), e.close())
	}
}

func (e *v2Engine) handler() http.Handler { return newAPI(e) }

func (e *v2Engine) failed() <-chan struct{} {
	if e.node == nil {
		return nil
	}
	return e.node.failedC
}

func (e *v2Engine) err() error { return e.node.cause() }

func (e *v2Engine) endWatches() { close(e.ending) }

func (e *v2Engine) close() error {
	if e.node == nil {
		return nil
	}
	return e.node.stop()
}

// name is the member's, which a dir keeps for life.
func (e *v2Engine) name() string {
	if m, ok := e.cluster.member(e.id); ok && m.Name != "" {
		return m.Name
	}
	return e.opts.Name
}

func (e *v2Engine) status() Status {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return Status{
		MemberID: uint64(e.id), ClusterID: uint64(e.cluster.id), Name: e.name(),
		Term: e.term.Load(), Committed: e.committed.Load(), StoreIndex: e.machine.store.Index(),
		Snapshot: e.snapshot.Load(), Boot: e.boot,
	}
}

// advertise publishes name and client URLs as etcd does at each start, and
// raises the cluster version of a 2.x dir to 3.0: from here on its log is
// framed as 3.0 introduced it, and etcd from 3.4.32 on only raises the version
// within 3.x.
func (e *v2Engine) advertise(ctx context.Context, urls []string) error {
	if e.node == nil {
		e.overlay.Store(&urls)
		return nil
	}
	value, err := json.Marshal(membership.Attributes{Name: e.name(), ClientURLs: urls})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	attributes := walcodec.Request{Method: "PUT", Path: memberPath(e.id, plainAttributes), Val: string(value)}
	if _, err := e.do(ctx, attributes); err != nil {
		return err
	}
	if !before3(e.cluster.clusterVersion()) {
		return nil
	}
	_, err = e.do(ctx, walcodec.Request{Method: "PUT", Path: versionPath, Val: "3.0.0"})
	return err
}

func before3(version string) bool {
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err != nil || n < 3
}

// response is the answer to a request: an event, or a watcher.
type response struct {
	event   *v2store.Event
	watcher v2store.Watcher
	index   uint64 // raft's, committed
	term    uint64
}

// do carries out a request: reads at once, the rest through the log. Errors of
// the store are *v2error.Error.
func (e *v2Engine) do(ctx context.Context, r walcodec.Request) (response, error) {
	r.ID = e.requests.Next()
	if r.Method == "GET" && r.Quorum {
		r.Method = "QGET"
	}
	var resp response
	var err error
	switch {
	case r.Method == "GET" && r.Wait:
		resp.watcher, err = e.watch(r)
	case r.Method == "GET" || r.Method == "HEAD" || r.Method == "QGET" && e.node == nil:
		resp.event, err = e.get(r)
	case e.node == nil:
		err = v2error.NewError(v2error.EcodeRootROnly, "the server was started read-only", e.index())
	default:
		resp.event, err = e.propose(ctx, proposal{id: r.ID, data: walcodec.AppendRequest(nil, r)})
	}
	resp.index, resp.term = e.committed.Load(), e.term.Load()
	return resp, err
}

func (e *v2Engine) index() uint64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.machine.store.Index()
}

func (e *v2Engine) get(r walcodec.Request) (*v2store.Event, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.machine.store.Get(r.Path, r.Recursive, r.Sorted)
}

func (e *v2Engine) watch(r walcodec.Request) (v2store.Watcher, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.machine.store.Watch(r.Path, r.Recursive, r.Stream, r.Since)
}

// storeStats keeps everyone out: the store counts without a lock.
func (e *v2Engine) storeStats() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.machine.store.JsonStats()
}

// cloneStore copies the whole tree, and its counters with storeStats kept out.
func (e *v2Engine) cloneStore() v2store.Store {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.machine.store.Clone()
}

// cloneEvent copies an event that the store still holds; entries may be being
// applied.
func (e *v2Engine) cloneEvent(ev *v2store.Event) *v2store.Event {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return ev.Clone()
}

func (e *v2Engine) propose(ctx context.Context, p proposal) (*v2store.Event, error) {
	p.done = make(chan outcome, 1)
	select {
	case e.node.proposals <- p:
	case <-e.node.stopped:
		return nil, errStopped
	case <-ctx.Done():
		return nil, errTimeout
	}
	select {
	case out := <-p.done:
		return out.event, out.err
	case <-e.node.stopped:
		return nil, errStopped
	case <-ctx.Done():
		return nil, errTimeout
	}
}

// reconfigure proposes a conf change.
func (e *v2Engine) reconfigure(ctx context.Context, cc walcodec.ConfChange) error {
	if e.node == nil {
		return v2error.NewError(v2error.EcodeRootROnly, "the server was started read-only", e.index())
	}
	e.confMu.Lock()
	defer e.confMu.Unlock()
	cc.ID = e.requests.Next()
	_, err := e.propose(ctx, proposal{id: cc.ID, conf: &cc})
	return err
}

// addMember registers a member as etcd does: it may be the second of a cluster
// of one, or more than half must have started.
//
// Here the new member is in the list and in the log, and no more: this server
// copies the log to nobody, and goes on to be the quorum.
func (e *v2Engine) addMember(ctx context.Context, m membership.Member) error {
	started, voters := e.started(0)
	if voters++; !(started == 1 && voters == 2) && started < voters/2+1 {
		return errNotStarted
	}
	context, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return e.reconfigure(ctx, walcodec.ConfChange{Type: walcodec.ConfChangeAddNode, NodeID: uint64(m.ID), Context: context})
}

func (e *v2Engine) removeMember(ctx context.Context, id types.ID) error {
	if m, ok := e.cluster.member(id); !ok || !m.IsLearner {
		if started, voters := e.started(id); started < voters/2+1 {
			return errNotStarted
		}
	}
	return e.reconfigure(ctx, walcodec.ConfChange{Type: walcodec.ConfChangeRemoveNode, NodeID: uint64(id)})
}

func (e *v2Engine) updateMember(ctx context.Context, m membership.Member) error {
	context, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return e.reconfigure(ctx, walcodec.ConfChange{Type: walcodec.ConfChangeUpdateNode, NodeID: uint64(m.ID), Context: context})
}

// started counts the voters other than one, and those of them that have ever
// published their name.
func (e *v2Engine) started(except types.ID) (started, voters int) {
	for _, m := range e.cluster.list() {
		if m.IsLearner || m.ID == except {
			continue
		}
		voters++
		if m.IsStarted() {
			started++
		}
	}
	return started, voters
}

// members are what clients are told. A read-only server can't publish where it
// is, nor remove members: it shows its own URLs, and none for the others.
func (e *v2Engine) members() []membership.Member {
	all := e.cluster.list()
	urls := e.overlay.Load()
	if urls == nil {
		return all
	}
	self := false
	for i := range all {
		all[i].ClientURLs = nil
		if all[i].ID == e.id {
			all[i].Attributes, self = membership.Attributes{Name: e.name(), ClientURLs: *urls}, true
		}
	}
	if !self {
		all = append(all, membership.Member{ID: e.id, Attributes: membership.Attributes{Name: e.name(), ClientURLs: *urls}})
	}
	return all
}

func (e *v2Engine) healthy(ctx context.Context) error {
	_, err := e.do(ctx, walcodec.Request{Method: "QGET"})
	if err != nil {
		return fmt.Errorf("read through the log: %w", err)
	}
	return nil
}

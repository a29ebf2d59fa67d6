package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// Options adjust a Server. The zero value boots the dir itself, for writing,
// without TLS.
type Options struct {
	WALDir   string // where the segments are, if not in the dir (etcd's --wal-dir)
	ReadOnly bool   // write nothing, refuse writes, expire nothing
	Clone    bool   // boot a copy in a temporary dir, which Close removes
	// KeepUncommitted keeps the end of a log of several members, of which this
	// one did not learn that it was committed. It may have been: the last writes
	// that the cluster acknowledged are there, and maybe some that it did not.
	KeepUncommitted bool

	Name          string        // member name, if the dir knows none; default "default"
	ClientURLs    []string      // what to tell clients; default: the listener's address
	TLS           *tls.Config   // serve HTTPS; clients' certificates name v2 users if they are verified
	CORS          []string      // origins that may ask, "*" for all
	SnapshotCount uint64        // entries between snapshots; default 10000
	TickInterval  time.Duration // raft's clock; default 100 ms
	SyncInterval  time.Duration // between looks for expired keys; default 500 ms
	Logger        *slog.Logger  // default: discard
}

const (
	defaultSnapshotCount = 10_000 // entries; etcd ≤3.1
	defaultTick          = 100 * time.Millisecond
	defaultSync          = 500 * time.Millisecond // etcd's SyncTicker
	defaultName          = "default"
)

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = defaultName
	}
	if o.SnapshotCount == 0 {
		o.SnapshotCount = defaultSnapshotCount
	}
	if o.TickInterval <= 0 {
		o.TickInterval = defaultTick
	}
	if o.SyncInterval <= 0 {
		o.SyncInterval = defaultSync
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Status says what a Server serves.
type Status struct {
	MemberID, ClusterID uint64
	Name                string
	Term                uint64 // raft's
	Committed           uint64 // raft index
	StoreIndex          uint64 // of the v2 store: X-Etcd-Index
	Snapshot            uint64 // raft index of the newest snapshot; 0: none
	Boot                Boot
}

// Boot says what was found in the dir, and what had to be done to it.
type Boot struct {
	Snapshot   uint64   // raft index of the snapshot booted from; 0: none
	Applied    uint64   // raft index of the last entry replayed
	StoreIndex uint64   // of the v2 store after the replay, before anything was written
	Removed    []uint64 // members that were removed to stand alone
	Dropped    uint64   // entries that were not committed
	Torn       string   // the torn last write, if there was one
	PendingV3  bool     // the log holds v3 entries that the backend lacks
}

// engine is what a Server serves.
type engine interface {
	handler() http.Handler
	// advertise tells clients where the server is.
	advertise(ctx context.Context, urls []string) error
	status() Status
	// failed is closed when the engine can't go on; err says why.
	failed() <-chan struct{}
	err() error
	// endWatches lets go of clients that wait, for what may be for ever.
	endWatches()
	close() error
}

// A Server is a booted data dir. Its methods may be called concurrently.
type Server struct {
	opts    Options
	engine  engine
	http    *http.Server
	cleanup func() error

	mu     sync.Mutex
	closed bool
}

// Open boots the data dir. The Server answers through [Server.Handler] from
// then on, and on a network once Serve is called.
func Open(ctx context.Context, dir string, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	dir, opts, cleanup, err := place(ctx, dir, opts)
	if err != nil {
		return nil, err
	}
	eng, err := openV2(ctx, dir, opts)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("boot %s: %w", dir, err), cleanup())
	}
	return newServer(eng, opts, cleanup), nil
}

// place makes the clone if one is asked for, and returns what to boot.
func place(ctx context.Context, dir string, opts Options) (string, Options, func() error, error) {
	nothing := func() error { return nil }
	if !opts.Clone {
		return dir, opts, nothing, nil
	}
	tmp, err := atomicfile.NewTempDir("", "clone")
	if err != nil {
		return "", opts, nothing, fmt.Errorf("clone %s: %w", dir, err)
	}
	cleanup := tmp.Remove
	copied := filepath.Join(tmp.Path, filepath.Base(filepath.Clean(dir)))
	if err := cloneDir(ctx, dir, opts.WALDir, copied); err != nil {
		return "", opts, nothing, errors.Join(fmt.Errorf("clone %s: %w", dir, err), cleanup())
	}
	opts.WALDir = ""
	return copied, opts, cleanup, nil
}

func newServer(eng engine, opts Options, cleanup func() error) *Server {
	s := &Server{opts: opts, engine: eng, cleanup: cleanup}
	s.http = &http.Server{
		Handler:  s.Handler(),
		ErrorLog: slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Handler answers requests as Serve does, but for TLS.
func (s *Server) Handler() http.Handler { return withCORS(s.opts.CORS, s.engine.handler()) }

// Status says what is served, and where it stands.
func (s *Server) Status() Status { return s.engine.status() }

// Serve answers on the listener until Close, and returns nil then. It takes
// over the listener. An error means that the server can't go on, for one
// because its log could not be written.
func (s *Server) Serve(l net.Listener) error {
	if s.opts.TLS != nil {
		l = tls.NewListener(l, withHTTP(s.opts.TLS))
	}
	urls := s.opts.ClientURLs
	if len(urls) == 0 {
		urls = []string{clientURL(l.Addr(), s.opts.TLS != nil)}
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(l) }()
	if err := s.engine.advertise(context.Background(), urls); err != nil && !s.isClosed() {
		return errors.Join(fmt.Errorf("publish client URLs: %w", err), s.http.Close(), ignoreClosed(<-served))
	}
	select {
	case err := <-served:
		return ignoreClosed(err)
	case <-s.engine.failed():
		if s.isClosed() {
			return ignoreClosed(<-served)
		}
		return errors.Join(s.engine.err(), s.http.Close(), ignoreClosed(<-served))
	}
}

// withHTTP sets the protocol: watches need HTTP/1.1, as with etcd 2.
func withHTTP(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{"http/1.1"}
	return c
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// clientURL is the address that a client on this host can reach.
func clientURL(addr net.Addr, secure bool) string {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return scheme + "://" + addr.String()
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close ends watches, lets running requests finish until ctx ends, and closes
// the dir. Only the first call does so.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.engine.endWatches()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	return errors.Join(err, s.engine.close(), s.cleanup())
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
)

type serveOptions struct {
	dataDir         string
	walDir          string
	listen          string
	create          bool
	clone           bool
	readOnly        bool
	keepUncommitted bool
	v3              bool
	binary          string // an etcd for v3 data
	snapshotCount   uint64
	cors            []string
	tls             serveTLS
	output          outputFlag
}

// closeTimeout is how long running requests may take to end.
const closeTimeout = 5 * time.Second

func newServeCommand(e *env) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --data-dir DIR",
		Short: "Boot a data dir or backup and serve its keys",
		Long: `Serve boots a data dir with v2 data, of any etcd from 2.0 to 3.5, plain or made
by 'lifeboat backup' or 'etcdctl backup', and serves what etcd did: /v2/keys,
/v2/members, /v2/auth, /v2/stats, /version, /health, /metrics. 'lifeboat v2' and
etcdctl with ETCDCTL_API=2 work against it.

It writes into DIR, as etcd does: new entries, snapshots, a log framed as 3.0
introduced it, and for one member of many the removal of the others. To look at
a backup and keep it as it is, use --clone (a copy in a temporary dir, removed
at the end) or --read-only.

A dir with v3 data alone is served by etcd 3.7, which is built in, or by the etcd
given as --etcd-binary: a copy of it (--clone), since etcd would upgrade an older
dir for good. The dir of a sole member of the same release is served in place.

A write is answered once it is synced. SIGTERM and ctrl-C stop the server.`,
		Example: `  lifeboat serve --data-dir /backup/etcd --clone
  lifeboat serve --data-dir /var/lib/etcd --listen 127.0.0.1:0
  lifeboat serve --data-dir ./new --create
  lifeboat serve --data-dir ./new --create --v3`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return withExit(exitUsage, err)
			}
			return serveExit(o.run(cmd.Context(), e))
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *serveOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.dataDir, "data-dir", "", "the data dir or backup to boot; it is written to")
	f.StringVar(&o.walDir, "wal-dir", "", "its WAL dir, if that is elsewhere")
	f.StringVar(&o.listen, "listen", "127.0.0.1:2379", "HOST:PORT to listen on; without a host loopback, port 0 lets the kernel pick")
	f.BoolVar(&o.clone, "clone", false, "boot a copy in a temporary dir, and remove it at the end")
	f.BoolVar(&o.readOnly, "read-only", false, "write nothing, refuse writes, expire nothing")
	f.BoolVar(&o.create, "create", false, "make a new cluster of one if DIR is absent or empty, with --v3 for v3 data")
	f.BoolVar(&o.keepUncommitted, "keep-uncommitted", false, "keep the last entries of a member of many that it did not know to be committed")
	f.BoolVar(&o.v3, "v3", false, "serve the v3 data of a dir that holds both; with --create: a new one for v3 data")
	f.StringVar(&o.binary, "etcd-binary", "", "serve v3 data with this etcd (3.4 or later) instead of the built-in 3.7")
	f.Uint64Var(&o.snapshotCount, "snapshot-count", 0, "entries between two snapshots (default 10000)")
	f.StringSliceVar(&o.cors, "cors", nil, "origins that may ask from a web page, * for all")
	o.tls.addFlags(f)
	addOutputFlag(cmd, &o.output)
}

// check looks at what can be checked without the dir.
func (o *serveOptions) check() error {
	switch {
	case o.dataDir == "":
		return errors.New("--data-dir is needed")
	case o.create && (o.clone || o.readOnly):
		return errors.New("--create makes a dir to write to: it goes with neither --clone nor --read-only")
	case o.clone && o.readOnly:
		return errors.New("--clone and --read-only exclude each other")
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return o.tls.check()
}

func (o *serveOptions) run(ctx context.Context, e *env) error {
	config, err := o.tls.config()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.address())
	if err != nil {
		return err
	}
	if o.createsV3() {
		return o.createV3(ctx, e, listener)
	}
	dir, err := o.inspect(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer dir.Close()
	if o.usesV3(dir) {
		return o.serveV3(ctx, e, dir, listener)
	}
	booted, err := o.boot(ctx, dir, o.options(e, config, listener.Addr()))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return booted.serve(ctx, listener, func(err error) error {
		if err != nil {
			fmt.Fprintln(e.Stderr, "warning: the members' list does not lead here; clients need --no-sync:", err)
		}
		warnOpen(e, listener.Addr().String(), o.tls)
		return booted.print(e, o.output)
	})
}

func (o *serveOptions) options(e *env, config *tls.Config, addr net.Addr) server.Options {
	return server.Options{
		WALDir: o.walDir, Clone: o.clone, ReadOnly: o.readOnly, KeepUncommitted: o.keepUncommitted,
		SnapshotCount: o.snapshotCount, TLS: config, CORS: o.cors,
		ClientURLs: []string{o.tls.url(addr)},
		Logger:     slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
}

// address is where to listen: on loopback unless a host is given.
func (o *serveOptions) address() string {
	if host, port, err := net.SplitHostPort(o.listen); err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return o.listen
}

// inspect looks at the dir, which it makes first if that is wanted.
func (o *serveOptions) inspect(ctx context.Context) (*datadir.Dir, error) {
	if o.create {
		if err := createIfNew(o.dataDir); err != nil {
			return nil, err
		}
	}
	dir, err := datadir.Inspect(ctx, o.dataDir, datadir.Options{WALDir: o.walDir})
	if err != nil {
		return nil, o.withHint(err)
	}
	return dir, nil
}

// boot boots the dir if that is safe and of use.
func (o *serveOptions) boot(ctx context.Context, dir *datadir.Dir, options server.Options) (*bootedServer, error) {
	if err := o.checkDir(dir); err != nil {
		return nil, err
	}
	srv, err := server.Open(ctx, o.dataDir, options)
	if err != nil {
		return nil, err
	}
	booted := &bootedServer{server: srv}
	if err := booted.describe(dir, options); err != nil {
		return nil, errors.Join(err, booted.close())
	}
	return booted, nil
}

func (o *serveOptions) withHint(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, datadir.ErrNotEtcd) {
		return fmt.Errorf("%w\nTo start a new cluster of one there, add --create", err)
	}
	return err
}

func (o *serveOptions) checkDir(dir *datadir.Dir) error {
	if dir.Live == datadir.Running && !o.clone && !o.readOnly {
		return withExit(exitLocked, fmt.Errorf("%s: an etcd has it open\nTo look at it as it is now, add --clone", o.dataDir))
	}
	return server.CheckV2(dir)
}

// createIfNew makes a data dir where there is nothing.
func createIfNew(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return nil
	}
	return server.Create(dir)
}

// createsV3 tells that a new dir for v3 data is wanted, and nothing is there.
func (o *serveOptions) createsV3() bool {
	return o.create && (o.v3 || o.binary != "") && !occupied(o.dataDir)
}

// serveExit gives the known errors their exit codes.
func serveExit(err error) error {
	switch {
	case server.IsLocked(err):
		return withExit(exitLocked, err)
	case isDamage(err):
		return withExit(exitDamage, err)
	}
	return err
}

// warnOpen tells when others than this host's users can reach the data.
func warnOpen(e *env, addr string, t serveTLS) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || net.ParseIP(host).IsLoopback() || t.clientCAFile != "" {
		return
	}
	fmt.Fprintf(e.Stderr, "warning: whoever reaches %s can read and write all keys that v2 auth does not guard\n", addr)
}

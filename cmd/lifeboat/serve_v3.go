package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/server"
	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
)

// usesV3 tells which engine serves the dir: v2 if it has v2 data or none at
// all, unless v3 is asked for.
func (o *serveOptions) usesV3(dir *datadir.Dir) bool {
	return o.v3 || o.binary != "" || errors.Is(server.CheckV2(dir), server.ErrNoV2Data)
}

// checkV3 refuses what the v3 engine can't do.
func (o *serveOptions) checkV3(dir *datadir.Dir) error {
	if o.readOnly {
		return withExit(exitUsage, errors.New("v3 data can't be served with --read-only: use --clone"))
	}
	if err := o.checkV2Flags(); err != nil {
		return err
	}
	if dir.Live == datadir.Running {
		return withExit(exitLocked, fmt.Errorf("%s: an etcd has it open\nTo look at its data as it is now, take a snapshot: lifeboat snapshot save", o.dataDir))
	}
	return nil
}

// checkV2Flags refuses flags that mean nothing to the v3 engine.
func (o *serveOptions) checkV2Flags() error {
	if o.keepUncommitted || o.snapshotCount != 0 || len(o.cors) > 0 {
		return withExit(exitUsage, errors.New("--keep-uncommitted, --snapshot-count and --cors are for v2 data"))
	}
	return nil
}

// createV3 serves a new cluster of one, which etcd makes as it starts.
func (o *serveOptions) createV3(ctx context.Context, e *env, listener net.Listener) error {
	addr := listener.Addr()
	if err := errors.Join(o.checkV2Flags(), listener.Close()); err != nil {
		return err
	}
	engine, err := v3engine.FindEngine(ctx, o.binary)
	if err != nil {
		return err
	}
	report := serveV3Report{DataDir: o.dataDir, Mode: "write", Etcd: engine.Release.String(), Engine: engine.String(), Steps: []string{}}
	return o.startV3(ctx, e, o.dataDir, report, o.v3Options(addr, v3engine.Options{Create: true, WALDir: o.walDir}))
}

// serveV3Report is what `serve -o json` prints of a dir with v3 data.
type serveV3Report struct {
	URL     string   `json:"url"`
	DataDir string   `json:"data_dir"`
	Mode    string   `json:"mode"` // write or clone
	Etcd    string   `json:"etcd"` // version of the data
	Engine  string   `json:"engine"`
	Steps   []string `json:"steps"` // what the clone was given to boot
}

func (r serveV3Report) String() string {
	clone := ""
	if r.Mode == "clone" {
		clone = ", a clone"
	}
	return fmt.Sprintf("Serving %s on %s (etcd %s data%s) with %s", r.DataDir, r.URL, r.Etcd, clone, r.Engine)
}

// serveV3 lets etcd serve the dir where the listener stands, until ctx ends.
func (o *serveOptions) serveV3(ctx context.Context, e *env, dir *datadir.Dir, listener net.Listener) error {
	addr := listener.Addr()
	if err := errors.Join(o.checkV3(dir), listener.Close()); err != nil {
		return err
	}
	engine, err := v3engine.FindEngine(ctx, o.binary)
	if err != nil {
		return err
	}
	report := serveV3Report{DataDir: o.dataDir, Mode: "write", Etcd: dir.Facts.Origin.String(), Engine: engine.String(), Steps: []string{}}
	options := o.v3Options(addr, v3engine.Options{WALDir: o.walDirInPlace()})
	path := o.dataDir
	if o.clone {
		clone, err := v3engine.Clone(ctx, dir, engine.Release, v3engine.CloneOptions{})
		if err != nil {
			return err
		}
		defer clone.Remove()
		path, report.Mode, options.NoSync = clone.Dir, "clone", true
		for _, step := range clone.Steps {
			report.Steps = append(report.Steps, string(step))
		}
	} else if options.Member, err = v3engine.InPlace(dir, engine); err != nil {
		return fmt.Errorf("%w\nTo serve a copy, add --clone", err)
	}
	return o.startV3(ctx, e, path, report, options)
}

// v3Options adds what the flags say of the address to the options.
func (o *serveOptions) v3Options(addr net.Addr, options v3engine.Options) v3engine.Options {
	options.Binary, options.Listen = o.binary, addr.String()
	options.TLS = v3engine.TLS{CertFile: o.tls.certFile, KeyFile: o.tls.keyFile, ClientCAFile: o.tls.clientCAFile}
	return options
}

// startV3 runs etcd on the dir at path until ctx ends.
func (o *serveOptions) startV3(ctx context.Context, e *env, path string, report serveV3Report, options v3engine.Options) error {
	srv, err := v3engine.Start(ctx, path, options)
	if err != nil {
		return explainRefusal(err)
	}
	report.URL = srv.URL()
	if err := o.tell(e, report); err != nil {
		return errors.Join(err, srv.Close())
	}
	warnOpen(e, options.Listen, o.tls)
	select {
	case <-srv.Exited():
		return errors.Join(explainRefusal(srv.Err()), srv.Close())
	case <-ctx.Done():
		return srv.Close()
	}
}

// walDirInPlace is where the segments of the dir itself are; a clone has its own.
func (o *serveOptions) walDirInPlace() string {
	if o.clone {
		return ""
	}
	return o.walDir
}

func (o *serveOptions) tell(e *env, report serveV3Report) error {
	if o.output == outputJSON {
		return printJSON(e.Stdout, report)
	}
	_, err := fmt.Fprintln(e.Stdout, report)
	return err
}

// explainRefusal adds the last lines of etcd's log.
func explainRefusal(err error) error {
	var refused *v3engine.RefusedError
	if !errors.As(err, &refused) || len(refused.Log) == 0 {
		return err
	}
	return fmt.Errorf("%w\nIts log ends with:\n  %s", err, strings.Join(refused.Log, "\n  "))
}

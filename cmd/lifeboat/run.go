package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

type runOptions struct {
	config string
	once   string
	output outputFlag
}

func newRunCommand(e *env) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Back up on schedules, verify, prune, and cry out when that fails",
		Long: `Run is the daemon: it runs the jobs of a configuration file when they are due,
until SIGTERM or ctrl-C. Runs under way then end, or are aborted, within the
stop-timeout. The file is read anew when it changes, and on SIGHUP; if it is
wrong the old one stays in force.

With --once a job is run now, in this process, and its exit code says how it
went: for cron, a Kubernetes CronJob, or a try. 'lifeboat trigger' asks the
running daemon to run one.

It serves health, metrics and an API, on loopback unless the file says
otherwise. 'lifeboat config example' shows a file with every key.`,
		Example: `  lifeboat config example --starter > lifeboat.yaml
  lifeboat run --config lifeboat.yaml
  lifeboat run --config /etc/lifeboat/lifeboat.yaml --once nightly`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.config == "" {
				return withExit(exitUsage, errors.New("--config is needed: 'lifeboat config example' shows one"))
			}
			return o.run(cmd.Context(), e)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.config, "config", "", "the configuration file")
	f.StringVar(&o.once, "once", "", "run this job now, and end")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o *runOptions) run(ctx context.Context, e *env) error {
	config, err := loadConfig(e, o.config)
	if err != nil {
		return err
	}
	debug.SetGCPercent(repoGCPercent)
	log := newLogger(e.Stderr, config.Log)
	daemon := scheduler.New(config, scheduler.Options{Log: log, Tool: tool()})
	if o.once != "" {
		return o.runOnce(ctx, e, config, daemon)
	}
	return runExit(o.serve(ctx, config, daemon, log))
}

func newLogger(w io.Writer, c scheduler.LogConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == scheduler.JSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// runOnce runs a job to its end.
func (o *runOptions) runOnce(ctx context.Context, e *env, config *scheduler.Config, daemon *scheduler.Daemon) error {
	record, err := daemon.Once(ctx, o.once)
	if errors.Is(err, scheduler.ErrNoJob) {
		return noJob(o.once, config)
	}
	if err != nil {
		return runExit(err)
	}
	if o.output == outputJSON {
		err = printJSON(e.Stdout, record)
	} else {
		err = printRun(e.Stdout, record)
	}
	return errors.Join(err, runVerdict(record))
}

func printRun(w io.Writer, r scheduler.RunRecord) error {
	for _, repo := range r.Repositories {
		line := fmt.Sprintf("%s: %s, revision %d, %s stored as %s", repo.Name, orDash(repo.BackupID), repo.Revision,
			formatBytes(repo.PlainBytes), formatBytes(repo.StoredBytes))
		if repo.Verified != "" {
			line += ", verified: " + string(repo.Verified)
		}
		if repo.Error != "" {
			line = fmt.Sprintf("%s: FAILED: %s", repo.Name, repo.Error)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s in %v\n", r.Job, r.Result, r.Finished.Sub(r.Started).Round(10*time.Millisecond))
	return err
}

// runVerdict is the error that a run stands for.
func runVerdict(r scheduler.RunRecord) error {
	if r.Result != scheduler.Failed {
		return nil
	}
	err := fmt.Errorf("%s: %s", r.Job, r.Error)
	switch r.Cause {
	case scheduler.CauseEndpoint, scheduler.CauseStore:
		return withExit(exitUnreachable, err)
	case scheduler.CauseDamage:
		return withExit(exitDamage, err)
	case scheduler.CauseKey:
		return withExit(exitWrongKey, err)
	}
	return err
}

// serve runs the daemon and its HTTP server until one of them or ctx ends.
func (o *runOptions) serve(ctx context.Context, config *scheduler.Config, daemon *scheduler.Daemon, log *slog.Logger) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer stop()
		return daemon.Run(ctx)
	})
	group.Go(func() error { return scheduler.Serve(ctx, config.HTTP, daemon, log) })
	reload := func() { _ = daemon.LoadAndReload(o.config) } // it has been logged
	group.Go(func() error {
		scheduler.WatchConfig(ctx, o.config, log, reload)
		return nil
	})
	group.Go(func() error {
		for {
			select {
			case <-hangups:
				reload()
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// runExit gives the known errors their exit codes.
func runExit(err error) error {
	var locked *scheduler.LockedError
	switch {
	case errors.As(err, &locked):
		return withExit(exitLocked, fmt.Errorf("run: %w", err))
	case err != nil:
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

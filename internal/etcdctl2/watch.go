package etcdctl2

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

// watchFlags are what watch and exec-watch have in common.
type watchFlags struct {
	afterIndex int
	recursive  bool
}

func (f *watchFlags) register(cmd *cobra.Command, recursive string) {
	cmd.Flags().IntVar(&f.afterIndex, "after-index", 0, "watch after the given index")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, recursive)
}

// errEnough ends a watch that has seen what it waited for.
var errEnough = errors.New("enough seen")

// watch hands the changes of key to see until that returns errEnough, or ctx
// ends.
func (s *session) watch(ctx context.Context, key string, f watchFlags, see func(*client.Response) error) error {
	keys, err := s.connectKeys(ctx)
	if err != nil {
		return err
	}
	w := keys.Watcher(key, &client.WatcherOptions{AfterIndex: uint64(f.afterIndex), Recursive: f.recursive})
	for {
		resp, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return failed(exitServerError, err)
		}
		if err := see(resp); err != nil {
			return unless(errEnough, err)
		}
	}
}

// unless returns err, or nil if it is the expected one.
func unless(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func newWatchCommand(s *session) *cobra.Command {
	var (
		flags   watchFlags
		forever bool
	)
	cmd := leaf("watch <key>", "watch a key for changes", func(ctx context.Context, args []string) error {
		if len(args) == 0 {
			return failed(exitBadArgs, errNoKey)
		}
		return s.watch(ctx, args[0], flags, func(resp *client.Response) error {
			if resp.Node.Dir {
				return nil
			}
			if err := s.printChange(resp, flags); err != nil || forever {
				return err
			}
			return errEnough
		})
	})
	flags.register(cmd, "returns all values for key and child keys")
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "forever watch a key until CTRL+C")
	return cmd
}

func (s *session) printChange(resp *client.Response, f watchFlags) error {
	if f.recursive {
		fmt.Fprintf(s.out, "[%s] %s\n", resp.Action, resp.Node.Key)
	}
	if err := s.printResponse(resp); err != nil {
		return err
	}
	return s.out.Flush()
}

func newExecWatchCommand(s *session) *cobra.Command {
	var flags watchFlags
	cmd := leaf("exec-watch <key> -- <command> [args...]", "watch a key for changes and exec an executable", func(ctx context.Context, args []string) error {
		if len(args) < 2 {
			return failed(exitBadArgs, errors.New("key and command to exec required"))
		}
		return s.watch(ctx, args[0], flags, func(resp *client.Response) error {
			return s.start(args[1:], resp)
		})
	})
	cmd.Long = `Watch a key for changes, and run a command on each until CTRL+C.

The command finds the change in its environment: ETCD_WATCH_ACTION,
ETCD_WATCH_KEY, ETCD_WATCH_VALUE and ETCD_WATCH_MODIFIED_INDEX. The next
change does not wait for it to end.`
	flags.register(cmd, "watch all values for key and child keys")
	return cmd
}

// start starts the command of exec-watch and does not wait for its end: it
// may be a daemon, and outlives the watch as it does under etcdctl.
func (s *session) start(command []string, resp *client.Response) error {
	if resp.Node.Dir {
		fmt.Fprintf(s.Stderr, "Ignored dir %s change\n", resp.Node.Key)
		return nil
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(cmd.Environ(), watchEnviron(resp)...)
	cmd.Stdout = s.Stdout
	cmd.Stderr = s.Stderr
	if err := cmd.Start(); err != nil {
		return refused("%v", err)
	}
	go func() {
		// Its exit status is nobody's business: etcdctl drops it as well.
		_ = cmd.Wait()
	}()
	return nil
}

func watchEnviron(resp *client.Response) []string {
	return []string{
		"ETCD_WATCH_ACTION=" + resp.Action,
		fmt.Sprintf("ETCD_WATCH_MODIFIED_INDEX=%d", resp.Node.ModifiedIndex),
		"ETCD_WATCH_KEY=" + resp.Node.Key,
		"ETCD_WATCH_VALUE=" + resp.Node.Value,
	}
}

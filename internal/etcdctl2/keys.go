package etcdctl2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

var (
	errNoKey   = errors.New("key required")
	errNoValue = errors.New("value required")
)

func keyCommands(s *session) []*cobra.Command {
	return []*cobra.Command{
		newLsCommand(s),
		newGetCommand(s),
		newSetCommand(s),
		newMkCommand(s),
		newUpdateCommand(s),
		newDirCommand(s, "mkdir <key>", "make a new directory", client.PrevNoExist),
		newDirCommand(s, "setdir <key>", "create a new directory or update an existing directory TTL", client.PrevIgnore),
		newDirCommand(s, "updatedir <key>", "update an existing directory", client.PrevExist),
		newRmCommand(s),
		newRmdirCommand(s),
	}
}

// keyRequest is one call of the keys API.
type keyRequest func(context.Context, client.KeysAPI) (*client.Response, error)

// ask sends one request about keys. A response without a node is an error.
func (s *session) ask(ctx context.Context, request keyRequest) (*client.Response, error) {
	keys, err := s.connectKeys(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	resp, err := request(ctx, keys)
	if err == nil && resp.Node == nil {
		err = errors.New("client: response has no node")
	}
	if err != nil {
		return nil, failed(exitServerError, err)
	}
	return resp, nil
}

func (s *session) connectKeys(ctx context.Context) (client.KeysAPI, error) {
	if err := s.checkFormat(); err != nil {
		return nil, err
	}
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	return client.NewKeysAPI(c), nil
}

func newLsCommand(s *session) *cobra.Command {
	var (
		o     client.GetOptions
		slash bool
	)
	cmd := leaf("ls [key]", "retrieve a directory", func(ctx context.Context, args []string) error {
		key := "/"
		if len(args) > 0 {
			key = args[0]
		}
		resp, err := s.ask(ctx, func(ctx context.Context, keys client.KeysAPI) (*client.Response, error) {
			return keys.Get(ctx, key, &o)
		})
		if err != nil {
			return err
		}
		return s.printListing(resp, slash)
	})
	cmd.Flags().BoolVar(&o.Sort, "sort", false, "returns result in sorted order")
	cmd.Flags().BoolVarP(&o.Recursive, "recursive", "r", false, "returns all key names recursively for the given path")
	cmd.Flags().BoolVarP(&slash, "p", "p", false, "append slash (/) to directories")
	cmd.Flags().BoolVarP(&o.Quorum, "quorum", "q", false, "require quorum for get request")
	return cmd
}

// printListing prints names as ls of unix does: what is in a directory, or
// the key itself.
func (s *session) printListing(resp *client.Response, slash bool) error {
	if s.global.output != formatSimple {
		return s.printResponse(resp)
	}
	if !resp.Node.Dir {
		fmt.Fprintln(s.out, resp.Node.Key)
	}
	s.printNames(resp.Node.Nodes, slash)
	return nil
}

func (s *session) printNames(nodes client.Nodes, slash bool) {
	for _, n := range nodes {
		end := "\n"
		if n.Dir && slash {
			end = "/\n"
		}
		fmt.Fprint(s.out, n.Key, end)
		s.printNames(n.Nodes, slash)
	}
}

func newGetCommand(s *session) *cobra.Command {
	var o client.GetOptions
	cmd := leaf("get <key>", "retrieve the value of a key", func(ctx context.Context, args []string) error {
		return s.get(ctx, args, &o)
	})
	cmd.Flags().BoolVar(&o.Sort, "sort", false, "returns result in sorted order")
	cmd.Flags().BoolVarP(&o.Quorum, "quorum", "q", false, "require quorum for get request")
	return cmd
}

func (s *session) get(ctx context.Context, args []string, o *client.GetOptions) error {
	if len(args) == 0 {
		return failed(exitBadArgs, errNoKey)
	}
	resp, err := s.ask(ctx, func(ctx context.Context, keys client.KeysAPI) (*client.Response, error) {
		return keys.Get(ctx, args[0], o)
	})
	if err != nil {
		return err
	}
	if resp.Node.Dir {
		return refused("%s: is a directory", resp.Node.Key)
	}
	return s.printResponse(resp)
}

// keyAndValue returns the arguments of a write; a value that is not given is
// what can be read of Stdin.
func (s *session) keyAndValue(args []string) (key, value string, err error) {
	if len(args) == 0 {
		return "", "", failed(exitBadArgs, errNoKey)
	}
	if len(args) > 1 {
		return args[0], args[1], nil
	}
	read, err := io.ReadAll(s.Stdin)
	if err != nil || len(read) == 0 {
		return "", "", failed(exitBadArgs, errNoValue)
	}
	return args[0], string(read), nil
}

// write sends a key with its value and prints what became of it.
func (s *session) write(ctx context.Context, args []string, send func(ctx context.Context, keys client.KeysAPI, key, value string) (*client.Response, error)) error {
	key, value, err := s.keyAndValue(args)
	if err != nil {
		return err
	}
	resp, err := s.ask(ctx, func(ctx context.Context, keys client.KeysAPI) (*client.Response, error) {
		return send(ctx, keys, key, value)
	})
	if err != nil {
		return err
	}
	return s.printResponse(resp)
}

func newSetCommand(s *session) *cobra.Command {
	var (
		o          client.SetOptions
		ttl, index int
	)
	cmd := leaf("set <key> <value>", "set the value of a key", func(ctx context.Context, args []string) error {
		o.TTL, o.PrevIndex = seconds(ttl), uint64(index)
		return s.write(ctx, args, func(ctx context.Context, keys client.KeysAPI, key, value string) (*client.Response, error) {
			return keys.Set(ctx, key, value, &o)
		})
	})
	cmd.Long = `Set the value of a key, to what stdin holds if no value is given.

A value that begins with '-' goes after '--': set -- <key> <value>`
	ttlFlag(cmd, &ttl)
	cmd.Flags().StringVar(&o.PrevValue, "swap-with-value", "", "previous value")
	cmd.Flags().IntVar(&index, "swap-with-index", 0, "previous index")
	return cmd
}

func newMkCommand(s *session) *cobra.Command {
	var (
		inOrder bool
		ttl     int
	)
	cmd := leaf("mk <key> <value>", "make a new key with a given value", func(ctx context.Context, args []string) error {
		return s.write(ctx, args, func(ctx context.Context, keys client.KeysAPI, key, value string) (*client.Response, error) {
			if inOrder {
				return keys.CreateInOrder(ctx, key, value, &client.CreateInOrderOptions{TTL: seconds(ttl)})
			}
			return keys.Set(ctx, key, value, &client.SetOptions{TTL: seconds(ttl), PrevExist: client.PrevNoExist})
		})
	})
	cmd.Flags().BoolVar(&inOrder, "in-order", false, "create in-order key under directory <key>")
	ttlFlag(cmd, &ttl)
	return cmd
}

func newUpdateCommand(s *session) *cobra.Command {
	var ttl int
	cmd := leaf("update <key> <value>", "update an existing key with a given value", func(ctx context.Context, args []string) error {
		return s.write(ctx, args, func(ctx context.Context, keys client.KeysAPI, key, value string) (*client.Response, error) {
			return keys.Set(ctx, key, value, &client.SetOptions{TTL: seconds(ttl), PrevExist: client.PrevExist})
		})
	})
	ttlFlag(cmd, &ttl)
	return cmd
}

// newDirCommand makes mkdir, setdir and updatedir: they part only in whether
// the directory must be there before.
func newDirCommand(s *session, use, short string, exist client.PrevExistType) *cobra.Command {
	var ttl int
	cmd := leaf(use, short, func(ctx context.Context, args []string) error {
		return s.writeDir(ctx, args, &client.SetOptions{TTL: seconds(ttl), Dir: true, PrevExist: exist})
	})
	ttlFlag(cmd, &ttl)
	return cmd
}

func (s *session) writeDir(ctx context.Context, args []string, o *client.SetOptions) error {
	if len(args) == 0 {
		return failed(exitBadArgs, errNoKey)
	}
	resp, err := s.ask(ctx, func(ctx context.Context, keys client.KeysAPI) (*client.Response, error) {
		return keys.Set(ctx, args[0], "", o)
	})
	if err != nil || s.global.output == formatSimple {
		return err
	}
	return s.printResponse(resp)
}

func newRmCommand(s *session) *cobra.Command {
	var (
		o     client.DeleteOptions
		index int
	)
	cmd := leaf("rm <key>", "remove a key or a directory", func(ctx context.Context, args []string) error {
		o.PrevIndex = uint64(index)
		return s.remove(ctx, args, &o)
	})
	cmd.Flags().BoolVar(&o.Dir, "dir", false, "removes the key if it is an empty directory or a key-value pair")
	cmd.Flags().BoolVarP(&o.Recursive, "recursive", "r", false, "removes the key and all child keys(if it is a directory)")
	cmd.Flags().StringVar(&o.PrevValue, "with-value", "", "previous value")
	cmd.Flags().IntVar(&index, "with-index", 0, "previous index")
	return cmd
}

func newRmdirCommand(s *session) *cobra.Command {
	return leaf("rmdir <key>", "removes the key if it is an empty directory or a key-value pair", func(ctx context.Context, args []string) error {
		return s.remove(ctx, args, &client.DeleteOptions{Dir: true})
	})
}

func (s *session) remove(ctx context.Context, args []string, o *client.DeleteOptions) error {
	if len(args) == 0 {
		return failed(exitBadArgs, errNoKey)
	}
	resp, err := s.ask(ctx, func(ctx context.Context, keys client.KeysAPI) (*client.Response, error) {
		return keys.Delete(ctx, args[0], o)
	})
	if err != nil || resp.Node.Dir && s.global.output == formatSimple {
		return err
	}
	return s.printResponse(resp)
}

func ttlFlag(cmd *cobra.Command, ttl *int) {
	cmd.Flags().IntVar(ttl, "ttl", 0, "key time-to-live in seconds")
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

package etcdctl2

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
	"golang.org/x/sync/errgroup"
)

// shortestImport is the least time to live of an imported key: time for its
// owner to come back and refresh it.
const shortestImport = 300 * time.Second

type importOptions struct {
	snap    string   // file to read
	hidden  []string // hidden key spaces to take along
	clients int
}

func newImportCommand(s *session) *cobra.Command {
	var o importOptions
	cmd := leaf("import --snap FILE", "import a snapshot to a cluster", func(ctx context.Context, _ []string) error {
		return s.importSnapshot(ctx, o)
	})
	cmd.Long = `Set the keys of an etcd 0.4 snapshot in a cluster.

The file is what 0.4.9 served as /v2/migration/snapshot: the key tree as
JSON. It is read to its end before the first key is set. Empty directories
are left out, and indexes change.`
	cmd.Flags().StringVar(&o.snap, "snap", "", "path to the valid etcd 0.4.x snapshot")
	cmd.Flags().StringArrayVar(&o.hidden, "hidden", nil, "hidden key space to import; may be given several times")
	cmd.Flags().IntVarP(&o.clients, "c", "c", 10, "number of concurrent clients to import the data")
	return cmd
}

func (s *session) importSnapshot(ctx context.Context, o importOptions) error {
	if o.snap == "" {
		return refused("no snapshot file provided (use --snap)")
	}
	if o.clients < 1 {
		return refused("%d concurrent clients can't import anything", o.clients)
	}
	file, err := os.Open(o.snap)
	if err != nil {
		return refused("cannot read snapshot file %s: %v", o.snap, err)
	}
	defer file.Close()
	wanted := newKeyspaces(o.hidden)
	if err := checkSnapshot(file, wanted); err != nil {
		return refused("cannot read snapshot file %s: %v", o.snap, err)
	}
	keys, err := s.connectKeys(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "starting to import snapshot %s with %d clients\n", o.snap, o.clients)
	n, err := s.copyKeys(ctx, keys, file, wanted, o.clients)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "finished importing %d keys\n", n)
	return nil
}

// checkSnapshot reads the whole file, so that nothing of a broken one is
// imported, and goes back to its start.
func checkSnapshot(file io.ReadSeeker, wanted keyspaces) error {
	found := map[string]bool{}
	err := walkSnapshot(file, func(n snapNode) error {
		if slices.Contains(wanted, n.path) {
			found[n.path] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, space := range wanted[1:] {
		if !found[space] {
			return fmt.Errorf("it holds no key space %s", space)
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

// copyKeys sets the wanted keys, and returns how many.
func (s *session) copyKeys(ctx context.Context, keys client.KeysAPI, file io.Reader, wanted keyspaces, clients int) (int, error) {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan importedKey)
	for range clients {
		group.Go(func() error { return setKeys(ctx, keys, work) })
	}
	n, now := 0, time.Now()
	walked := walkSnapshot(file, func(node snapNode) error {
		if !wanted.hold(node.path) {
			return nil
		}
		if node.dir {
			fmt.Fprintln(s.Stderr, "entering dir:", node.path)
			return nil
		}
		n++
		return s.hand(ctx, work, node, now)
	})
	close(work)
	if err := group.Wait(); err != nil {
		return n, refused("failed to copy key: %v", err)
	}
	return n, plain(walked)
}

// hand gives a key to the next free client.
func (s *session) hand(ctx context.Context, work chan<- importedKey, node snapNode, now time.Time) error {
	fmt.Fprintln(s.Stderr, "copying key:", node.path)
	key := importedKey{path: node.path, value: node.value, ttl: timeToLive(node.expires, now)}
	if key.ttl != 0 && key.ttl < shortestImport {
		fmt.Fprintf(s.Stderr, "extending key %s's ttl to %d seconds\n", key.path, shortestImport/time.Second)
		key.ttl = shortestImport
	}
	select {
	case work <- key:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// importedKey is a key on its way into the cluster.
type importedKey struct {
	path, value string
	ttl         time.Duration // 0: it stays
}

func setKeys(ctx context.Context, keys client.KeysAPI, work <-chan importedKey) error {
	for key := range work {
		if _, err := keys.Set(ctx, key.path, key.value, &client.SetOptions{TTL: key.ttl}); err != nil {
			return fmt.Errorf("%s: %w", key.path, err)
		}
	}
	return nil
}

// timeToLive is what is left at now of a key's time, in whole seconds rounded
// up, and negative once it is over; 0 for a key that never expires.
func timeToLive(expires, now time.Time) time.Duration {
	if expires.IsZero() {
		return 0
	}
	left := expires.Sub(now)
	if left <= 0 {
		return -time.Second
	}
	return (left + time.Second - 1).Truncate(time.Second)
}

// keyspaces are the directories to import from: the root, and hidden ones.
type keyspaces []string

func newKeyspaces(hidden []string) keyspaces {
	spaces := keyspaces{"/"}
	for _, h := range hidden {
		spaces = append(spaces, path.Clean("/"+h))
	}
	return spaces
}

// hold reports whether key is in a space, and not hidden in it: of no name
// from there on does the first byte hide it.
func (k keyspaces) hold(key string) bool {
	for _, space := range k {
		if below, ok := strings.CutPrefix(key, strings.TrimSuffix(space, "/")); ok &&
			(below == "" || below[0] == '/') && !strings.Contains(below, "/_") {
			return true
		}
	}
	return false
}

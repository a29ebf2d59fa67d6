package live

import (
	"context"
	"errors"
	"fmt"
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Begin asks the member at address to begin a snapshot, and ends it after its
// first bytes: it tells whether [Save] would be let. The size is that of the
// member's backend, in bytes.
func Begin(ctx context.Context, cfg clientv3.Config, address string) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := Dial(ctx, cfg, address)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	st, err := client.Status(ctx, address)
	if err != nil {
		return 0, fmt.Errorf("status of %s: %w", address, err)
	}
	resp, err := client.SnapshotWithVersion(ctx)
	if err == nil {
		_, err = io.CopyN(io.Discard, resp.Snapshot, 1)
		cancel()
		_ = resp.Snapshot.Close() // it was broken off
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return 0, fmt.Errorf("snapshot from %s: %w", address, err)
	}
	return st.DbSize, nil
}

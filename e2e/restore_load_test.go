//go:build e2e

package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A data dir whose etcd was killed under load holds every write that was
// acknowledged, also those that the backend had not seen.
func TestRestoreKeepsAcknowledgedWrites(t *testing.T) {
	for _, r := range v3Releases {
		t.Run(string(r), func(t *testing.T) {
			t.Parallel()
			e := start(t, r, newDataDir(t))
			acked := killUnderLoad(t, e, time.Duration(soak(t, 2))*time.Second)
			dir := newDataDir(t)
			restored(t, e.dir, "--data-dir", dir, "--initial-cluster", soleCluster)
			held := map[string]string{}
			for _, p := range start(t, r, dir).v3Dump().Pairs {
				held[string(p.Key)] = string(p.Value)
			}
			for key, value := range acked {
				if held[key] < value {
					t.Errorf("%s is %q, though %q was acknowledged", key, held[key], value)
				}
			}
		})
	}
}

// killUnderLoad writes to some keys, each ever higher numbers, until the etcd is
// killed; it returns the highest that was acknowledged for each.
func killUnderLoad(t *testing.T, e *etcd, after time.Duration) map[string]string {
	t.Helper()
	const writers = 8
	acked := make([]string, writers)
	client := e.v3()
	var killed atomic.Bool
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			for n := 0; !killed.Load(); n++ {
				value := fmt.Sprintf("%09d", n)
				if _, err := client.Put(t.Context(), fmt.Sprintf("/w/%d", i), value); err == nil {
					acked[i] = value
				} else {
					return
				}
			}
		})
	}
	time.Sleep(after)
	e.Kill()
	killed.Store(true)
	client.Close()
	group.Wait()
	all := map[string]string{}
	for i, value := range acked {
		if value < fmt.Sprintf("%09d", 10) {
			t.Errorf("writer %d got no further than %q", i, value)
		}
		all[fmt.Sprintf("/w/%d", i)] = value
	}
	return all
}

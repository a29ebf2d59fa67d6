//go:build e2e

package e2e

import (
	"testing"
	"time"
)

// TestServeKilledUnderWrites ends `lifeboat serve` with SIGKILL while it takes
// writes, again and again, and wants every write that it acknowledged; in the
// end from etcd 3.4, too.
func TestServeKilledUnderWrites(t *testing.T) {
	t.Parallel()
	dir := newDataDir(t)
	acked := map[string]v2Write{}
	for range soak(t, 6) {
		e := startServe(t, dir, "--create", "--snapshot-count", "50")
		e.checkAcked(acked)
		l := startLoad(e, 4)
		l.await(l.last() + 1)
		time.Sleep(300 * time.Millisecond)
		e.Kill()
		close(l.stop)
		l.done.Wait()
		for _, w := range l.acks {
			if w.index > acked[w.key].index {
				acked[w.key] = w
			}
		}
	}
	e := startServe(t, dir)
	e.checkAcked(acked)
	e.Stop()
	lifeboat(t, "verify", dir)
	start(t, etcd34, dir).checkAcked(acked)
}

// checkAcked fails the test if a key is not as last acknowledged. A later
// write may have been carried out whose answer never came.
func (e *etcd) checkAcked(acked map[string]v2Write) {
	e.t.Helper()
	held := map[string]v2Node{}
	var walk func(v2Node)
	walk = func(n v2Node) {
		held[n.Key] = n
		for _, child := range n.Nodes {
			walk(child)
		}
	}
	walk(e.v2Dump("/"))
	for key, w := range acked {
		n := held[key]
		if n.ModifiedIndex < w.index || n.ModifiedIndex == w.index && n.Value != w.value {
			e.t.Errorf("%s on %s: acknowledged at index %d, holds what index %d wrote", key, e.release, w.index, n.ModifiedIndex)
		}
	}
}

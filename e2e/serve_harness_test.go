//go:build e2e

package e2e

import (
	"fmt"
	"regexp"
	"testing"
	"time"
)

// builtIn is `lifeboat serve`, where the tests name a release.
const builtIn release = "lifeboat"

// servedURL is where it says that it listens.
var servedURL = regexp.MustCompile(`"url": "([^"]+)"`)

// startServe runs `lifeboat serve` on the dir, on a port that the kernel picks.
func startServe(t testing.TB, dir string, args ...string) *etcd {
	t.Helper()
	e, err := bootServe(t, dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// bootServe is [startServe] for a dir that it may refuse.
func bootServe(t testing.TB, dir string, args ...string) (*etcd, error) {
	t.Helper()
	e := &etcd{t: t, release: builtIn, dir: dir}
	cmd := lifeboatCommand(append([]string{"serve", "-o", "json", "--listen", "127.0.0.1:0", "--data-dir", dir}, args...)...)
	var err error
	if e.proc, err = startProcess(t, cmd); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(bootTimeout); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if match := servedURL.FindStringSubmatch(e.proc.log.String()); match != nil {
			e.client = match[1]
			return e, nil
		}
		if e.proc.ended() {
			return nil, fmt.Errorf("lifeboat serve on %s: %v\n%s", dir, e.proc.err, e.proc.tail())
		}
	}
	return nil, fmt.Errorf("lifeboat serve on %s: does not listen within %v\n%s", dir, bootTimeout, e.proc.tail())
}

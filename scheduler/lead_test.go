package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// startEtcd runs an etcd until the test ends.
func startEtcd(t *testing.T) (url string) {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	url, peer := "http://"+freeAddress(t), "http://"+freeAddress(t)
	cmd := exec.Command(path, "--data-dir", t.TempDir(), "--listen-client-urls", url, "--advertise-client-urls", url,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--heartbeat-interval", "20", "--election-timeout", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := client.Get(ctx, "up"); err != nil {
		t.Fatal(err)
	}
	return url
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func candidate(t *testing.T, url, who string) *etcdElector {
	cluster := &ClusterConfig{Name: "c", Endpoints: []string{url}}
	cluster.setDefaults()
	lead := LeadConfig{Elect: true, Prefix: "lead/", TTL: 2 * time.Second}
	e := newEtcdElector(cluster, lead, electorOptions{name: "j", who: who, log: slog.New(slog.DiscardHandler)}).(*etcdElector)
	t.Cleanup(e.close)
	return e
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for range 300 {
		if so() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

func leads(e *etcdElector) func() bool {
	return func() bool { l, err := e.leading(); return l && err == nil }
}

// A slot is run by the leader alone; when that dies with it, the next one takes
// it; when it has failed, the next one too; once it is done, nobody does.
func TestElection(t *testing.T) {
	url := startEtcd(t)
	a := candidate(t, url, "a")
	eventually(t, "a leads", leads(a))
	b := candidate(t, url, "b")
	eventually(t, "b follows", func() bool { _, err := b.leading(); return err == nil })
	ask := func(e *etcdElector, slot time.Time) (stance, claim, bool) {
		t.Helper()
		s, c, taken, err := e.stand(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		return s, c, taken
	}
	first, second := time.Unix(1000, 0), time.Unix(2000, 0)
	if s, _, _ := ask(b, first); s != undecided {
		t.Errorf("the follower stands %v", s)
	}
	s, c, _ := ask(a, first)
	if s != mine {
		t.Fatalf("the leader stands %v", s)
	}
	if s, _, _ := ask(a, first); s != undecided {
		t.Errorf("while it is run: %v", s)
	}
	c.end(t.Context(), true)
	if s, _, _ := ask(b, first); s != elsewhere {
		t.Errorf("once it is done: %v", s)
	}

	if s, _, _ := ask(a, second); s != mine {
		t.Fatalf("the second slot: %v", s)
	}
	a.cancelWithoutWord()
	eventually(t, "b leads", leads(b))
	var taken bool
	eventually(t, "b takes the slot of the dead", func() bool { s, c, taken = ask(b, second); return s == mine })
	if !taken {
		t.Error("nothing says that it may have been begun before")
	}

	d := candidate(t, url, "d")
	eventually(t, "d follows", func() bool { _, err := d.leading(); return err == nil })
	c.end(t.Context(), false)
	eventually(t, "d leads after the failure of b", leads(d))
	if s, c, _ = ask(d, second); s != mine {
		t.Fatalf("the failed slot: %v", s)
	}
	c.end(t.Context(), true)
	if s, _, _ := ask(b, second); s == mine {
		t.Error("it is run again")
	}
}

// cancelWithoutWord is what a kill does: the lease runs out by itself.
func (e *etcdElector) cancelWithoutWord() {
	e.mu.Lock()
	session := e.session
	e.mu.Unlock()
	session.Client().Close()
	e.cancel()
}

// Old slots don't pile up.
func TestElectionForgets(t *testing.T) {
	url := startEtcd(t)
	a := candidate(t, url, "a")
	eventually(t, "a leads", leads(a))
	for i := range 15 {
		s, c, _, err := a.stand(t.Context(), time.Unix(int64(i*60), 0))
		if s != mine || err != nil {
			t.Fatalf("slot %d: %v, %v", i, s, err)
		}
		c.end(t.Context(), true)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	got, err := client.Get(t.Context(), "lead/j/slots/", clientv3.WithPrefix())
	if err != nil || len(got.Kvs) != keptSlots || string(got.Kvs[keptSlots-1].Key) != "lead/j/slots/1970-01-01T00:14:00Z" {
		t.Errorf("%d keys, %v", len(got.Kvs), err)
	}
}

// fakeElector does as a test says.
type fakeElector struct {
	stance stance
	err    error
	ended  []bool
}

func (e *fakeElector) stand(context.Context, time.Time) (stance, claim, bool, error) {
	return e.stance, e, false, e.err
}
func (e *fakeElector) leading() (bool, error)           { return e.stance == mine, e.err }
func (e *fakeElector) yield()                           {}
func (e *fakeElector) close()                           {}
func (e *fakeElector) end(_ context.Context, well bool) { e.ended = append(e.ended, well) }

// What a daemon does about a slot follows from where it stands; without etcd,
// only what needs no etcd is run.
func TestDaemonElection(t *testing.T) {
	down := errors.New("etcd is down")
	tests := []struct {
		name    string
		elector fakeElector
		kind    repository.Kind
		runs    int
		cause   Cause
		away    int64
	}{
		{name: "leader", elector: fakeElector{stance: mine}, kind: repository.Live, runs: 1},
		{name: "another ran it", elector: fakeElector{stance: elsewhere}, kind: repository.Live, away: 1},
		{name: "another leads", elector: fakeElector{stance: undecided}, kind: repository.Live},
		{name: "no etcd, live", elector: fakeElector{stance: undecided, err: down}, kind: repository.Live, runs: 1, cause: CauseEndpoint},
		{name: "no etcd, files", elector: fakeElector{stance: undecided, err: down}, kind: repository.Files, runs: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, e := newWorld(), tt.elector
				w.electAs = func(*ClusterConfig, LeadConfig, electorOptions) elector { return &e }
				d := w.daemon(configOf(t, head+fmt.Sprintf("jobs:\n  j: {cluster: c, repositories: a, schedule: \"0 2 * * *\", kind: %s, lead: {elect: true}}\n", tt.kind)))
				stop := begin(t, d, &memoryState{})
				time.Sleep(3 * time.Hour)
				synctest.Wait()
				job := d.Status().Jobs[0]
				runs := d.Runs("")
				if len(runs) != tt.runs || job.Elsewhere != tt.away || len(runs) > 0 && runs[0].Cause != tt.cause {
					t.Errorf("runs %+v, elsewhere %d", runs, job.Elsewhere)
				}
				if job.Leader == nil || *job.Leader != (tt.elector.stance == mine) {
					t.Errorf("leader %v", job.Leader)
				}
				if tt.elector.stance == mine && !slices.Equal(e.ended, []bool{true}) {
					t.Errorf("claims ended %v", e.ended)
				}
				stop()
			})
		})
	}
}

package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// etcdElector keeps the election in etcd:
//
//	PREFIX NAME/election/LEASE  who leads: the oldest of these
//	PREFIX NAME/slots/SLOT      who runs or ran the slot, as JSON
//
// While a slot's run is under way its key has the lease of the runner, and goes
// with it. Once that has ended, the key stays, until ten newer ones are there.
type etcdElector struct {
	cluster *ClusterConfig
	lead    LeadConfig
	o       electorOptions
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	resign  chan struct{} // holds one

	mu      sync.Mutex
	session *concurrency.Session // nil: there is none
	leads   bool
	err     error     // why there is no session
	since   time.Time // when there was none any more
}

func newEtcdElector(cluster *ClusterConfig, lead LeadConfig, o electorOptions) elector {
	ctx, cancel := context.WithCancel(context.Background())
	e := &etcdElector{
		cluster: cluster, lead: lead, o: o, cancel: cancel, resign: make(chan struct{}, 1),
		err: errors.New("the election has not begun"), since: time.Now(),
	}
	e.ended.Go(func() { e.campaign(ctx) })
	return e
}

// campaign stands for election until ctx ends, again and again.
func (e *etcdElector) campaign(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.term(ctx); err != nil && ctx.Err() == nil {
			e.o.log.Warn("nobody can tell which daemon leads", "error", err.Error())
		}
		timer := time.NewTimer(leadPoll)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// term is one session: connect, stand, lead until it ends.
func (e *etcdElector) term(ctx context.Context) (err error) {
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.session != nil || e.since.IsZero() {
			e.since = time.Now()
		}
		e.session, e.leads = nil, false
		if e.err = err; err == nil {
			e.err = errors.New("the session has ended")
		}
	}()
	cfg, err := e.cluster.client()
	if err != nil {
		return err
	}
	cfg.Context = ctx
	client, err := clientv3.New(cfg)
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	defer client.Close()
	session, err := e.open(ctx, client)
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	defer e.leave(client, session)
	e.mu.Lock()
	e.session, e.err = session, nil
	e.mu.Unlock()
	return e.stay(ctx, session)
}

// open makes a session. The lease outlives ctx, so that it can be revoked.
func (e *etcdElector) open(ctx context.Context, client *clientv3.Client) (*concurrency.Session, error) {
	limited, cancel := context.WithTimeout(ctx, e.cluster.CommandTimeout)
	defer cancel()
	ttl := int64(math.Ceil(e.lead.TTL.Seconds()))
	lease, err := client.Grant(limited, ttl)
	if err != nil {
		return nil, err
	}
	return concurrency.NewSession(client, concurrency.WithLease(lease.ID), concurrency.WithTTL(int(ttl)))
}

// stay stands and leads until the session ends or the lead is given up.
func (e *etcdElector) stay(ctx context.Context, session *concurrency.Session) error {
	standing, stop := context.WithCancel(ctx)
	defer stop()
	var won sync.WaitGroup
	defer won.Wait()
	defer stop()
	failed := make(chan error, 1)
	won.Go(func() {
		err := concurrency.NewElection(session, e.prefix()+"election").Campaign(standing, e.o.who)
		if err != nil {
			failed <- err
			return
		}
		e.o.log.Info("leads: this daemon runs the job")
		e.mu.Lock()
		e.leads = true
		e.mu.Unlock()
	})
	select {
	case <-ctx.Done():
		return nil
	case <-e.resign:
		return nil
	case err := <-failed:
		return fmt.Errorf("election: %w", err)
	case <-session.Done():
		return errors.New("election: the session was lost: etcd did not answer in time")
	}
}

// leave ends the session, so that others need not wait for it to run out.
func (e *etcdElector) leave(client *clientv3.Client, session *concurrency.Session) {
	session.Orphan()
	limited, cancel := context.WithTimeout(context.Background(), min(e.lead.TTL, e.cluster.DialTimeout))
	defer cancel()
	client.Revoke(limited, session.Lease()) // or it runs out
}

func (e *etcdElector) prefix() string { return e.lead.Prefix + e.o.name + "/" }

func (e *etcdElector) slotsPrefix() string { return e.prefix() + "slots/" }

func (e *etcdElector) yield() {
	select {
	case e.resign <- struct{}{}:
	default:
	}
}

func (e *etcdElector) close() {
	e.cancel()
	e.ended.Wait()
}

func (e *etcdElector) leading() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leads, e.err
}

// slotState is what a slot's key holds.
type slotState struct {
	Who   string    `json:"who"`
	State string    `json:"state"` // running, done or failed
	Time  time.Time `json:"time"`
}

const (
	slotRunning = "running"
	slotDone    = "done"
	slotFailed  = "failed"
)

func (e *etcdElector) stand(ctx context.Context, slot time.Time) (stance, claim, bool, error) {
	e.mu.Lock()
	session, leads, err, since := e.session, e.leads, e.err, e.since
	e.mu.Unlock()
	switch {
	case session == nil && time.Since(since) < e.lead.TTL:
		return undecided, nil, false, nil // perhaps it only begins
	case session == nil:
		return undecided, nil, false, err
	case !leads:
		return e.follow(ctx, session, slot)
	}
	return e.take(ctx, session, slot)
}

// follow looks whether the leader has run a slot.
func (e *etcdElector) follow(ctx context.Context, session *concurrency.Session, slot time.Time) (stance, claim, bool, error) {
	limited, cancel := context.WithTimeout(ctx, e.cluster.CommandTimeout)
	defer cancel()
	got, err := session.Client().Get(limited, e.key(slot))
	if err != nil || len(got.Kvs) == 0 {
		return undecided, nil, false, nil // the session's end tells if etcd is gone
	}
	var held slotState
	if err := json.Unmarshal(got.Kvs[0].Value, &held); err == nil && held.State == slotDone {
		return elsewhere, nil, false, nil
	}
	return undecided, nil, false, nil
}

func (e *etcdElector) key(slot time.Time) string {
	return e.slotsPrefix() + slot.UTC().Format(time.RFC3339)
}

// take takes a slot as the leader, if it is free or its run has failed.
func (e *etcdElector) take(ctx context.Context, session *concurrency.Session, slot time.Time) (stance, claim, bool, error) {
	limited, cancel := context.WithTimeout(ctx, e.cluster.CommandTimeout)
	defer cancel()
	client, key := session.Client(), e.key(slot)
	value := e.value(slotRunning)
	put := clientv3.OpPut(key, value, clientv3.WithLease(session.Lease()))
	got, err := client.Txn(limited).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(put).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return undecided, nil, false, e.unless(session, err)
	}
	mineNow := &slotClaim{e, session, key}
	if got.Succeeded {
		// A runner that died leaves no trace here: its backup may be there.
		return mine, mineNow, true, nil
	}
	kv := got.Responses[0].GetResponseRange().Kvs[0]
	var held slotState
	if err := json.Unmarshal(kv.Value, &held); err != nil {
		return undecided, nil, false, fmt.Errorf("election: key %s holds what is not ours: %w", key, err)
	}
	switch held.State {
	case slotDone:
		return elsewhere, nil, false, nil
	case slotRunning:
		return undecided, nil, false, nil
	}
	again, err := client.Txn(limited).If(clientv3.Compare(clientv3.ModRevision(key), "=", kv.ModRevision)).Then(put).Commit()
	if err != nil || !again.Succeeded {
		return undecided, nil, false, e.unless(session, err)
	}
	return mine, mineNow, true, nil
}

// unless is err, or nil while the session may be there still: then it is asked
// again.
func (e *etcdElector) unless(session *concurrency.Session, err error) error {
	select {
	case <-session.Done():
		return err
	default:
		return nil
	}
}

func (e *etcdElector) value(state string) string {
	b, _ := json.Marshal(slotState{e.o.who, state, time.Now().UTC().Round(0)})
	return string(b)
}

type slotClaim struct {
	e       *etcdElector
	session *concurrency.Session
	key     string
}

// keptSlots is how many slots stay known.
const keptSlots = 10

// end writes down how the run ended, without the lease. If etcd does not answer,
// the lease runs out, and another daemon finds the backup by its labels.
func (c *slotClaim) end(ctx context.Context, well bool) {
	limited, cancel := context.WithTimeout(ctx, c.e.cluster.CommandTimeout)
	defer cancel()
	state := slotDone
	if !well {
		state = slotFailed
	}
	if err := c.write(limited, state); err != nil {
		c.e.o.log.Warn("etcd was not told that the run has ended", "error", err.Error())
		return
	}
	if !well {
		c.e.yield() // another daemon may do better
	}
}

func (c *slotClaim) write(ctx context.Context, state string) error {
	client := c.session.Client()
	select {
	case <-c.session.Done(): // closed with its client; the election may have a new one
		c.e.mu.Lock()
		session := c.e.session
		c.e.mu.Unlock()
		if session == nil {
			return errors.New("the session was lost meanwhile")
		}
		client = session.Client()
	default:
	}
	if _, err := client.Put(ctx, c.key, c.e.value(state)); err != nil {
		return err
	}
	return c.forget(ctx, client)
}

// forget removes the keys of old slots.
func (c *slotClaim) forget(ctx context.Context, client *clientv3.Client) error {
	got, err := client.Get(ctx, c.e.slotsPrefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	for _, kv := range got.Kvs[:max(0, len(got.Kvs)-keptSlots)] {
		if _, err := client.Delete(ctx, string(kv.Key)); err != nil {
			return err
		}
	}
	return nil
}

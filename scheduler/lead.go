package scheduler

import (
	"context"
	"log/slog"
	"reflect"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// leadPoll is how often a daemon looks whether a slot that is not its own has
// become so.
const leadPoll = 2 * time.Second

// stance is what becomes of a slot among several daemons.
type stance int

const (
	mine      stance = iota // this daemon runs it
	elsewhere               // another one has run it
	undecided               // another one leads or runs it: look again later
)

// elector takes part in the election of the daemon that runs a job, and keeps
// who ran which slot. Nothing rests on it but that work is not done twice:
// backups are committed create-only.
type elector interface {
	// stand tells what becomes of a slot. With mine comes the claim, and whether
	// another daemon may have begun the slot before. The error says that nobody
	// can tell, since etcd does not answer.
	stand(ctx context.Context, slot time.Time) (stance, claim, bool, error)
	// leading tells whether this daemon leads, and why nobody knows.
	leading() (bool, error)
	// yield lets others lead.
	yield()
	// close leaves the election, and waits until that is done.
	close()
}

// claim is a slot that this daemon has taken.
type claim interface {
	// end says that the run has ended: well, or so that another daemon that
	// comes to lead may try it.
	end(ctx context.Context, well bool)
}

// electorOptions are who stands for what.
type electorOptions struct {
	name string // of the job, or of its drill
	who  string
	log  *slog.Logger
}

// election is a track's part in the election that its configuration asks for.
type election struct {
	t       *track
	cluster *ClusterConfig
	lead    LeadConfig
}

// follow joins, leaves or changes the election as the configuration says.
func (e *election) follow(ctx context.Context) {
	t := e.t
	t.mu.Lock()
	cluster, lead, in := t.cfg.Clusters[t.job.Cluster], t.job.Lead, t.lead != nil
	busy := t.running != nil
	t.mu.Unlock()
	switch {
	case ctx.Err() != nil || busy: // it keeps what it holds until the run has ended
		return
	case in && lead.Elect && reflect.DeepEqual(cluster, e.cluster) && lead == e.lead:
		return
	case in:
		e.leave()
	}
	if !lead.Elect {
		return
	}
	e.cluster, e.lead = cluster, lead
	name := t.key.job
	if t.key.kind == DrillRun {
		name += drillSuffix
	}
	joined := t.d.out.elect(cluster, lead, electorOptions{name: name, who: t.d.who(), log: t.log})
	t.mu.Lock()
	t.lead = joined
	t.mu.Unlock()
}

func (e *election) leave() {
	e.t.mu.Lock()
	lead := e.t.lead
	e.t.lead = nil
	e.t.mu.Unlock()
	lead.close()
}

// close leaves the election, if it takes part in one.
func (e *election) close() {
	e.t.mu.Lock()
	in := e.t.lead != nil
	e.t.mu.Unlock()
	if in {
		e.leave()
	}
}

// decide finds out whether this daemon is to run the pending slot. With no
// order, wait says whether that is still open.
func (t *track) decide(ctx context.Context) (o *order, wait bool) {
	t.mu.Lock()
	lead := t.lead
	t.mu.Unlock()
	pending := *t.pending
	if lead == nil {
		return &pending, false
	}
	stands, claim, taken, err := lead.stand(ctx, pending.slot)
	switch {
	case ctx.Err() != nil:
		return nil, true
	case err != nil && pending.job.Kind == repository.Files:
		t.log.Warn("etcd does not tell which daemon is to run this; it is run here, and perhaps elsewhere too", "error", err.Error())
		return &pending, false
	case err != nil:
		pending.refuse = err
		return &pending, false
	case stands == mine:
		pending.claim, pending.taken = claim, pending.taken || taken
		return &pending, false
	case stands == elsewhere:
		t.drop()
		return nil, false
	}
	return nil, true
}

// drop lets go of a slot that another daemon has run.
func (t *track) drop() {
	t.log.Debug("another daemon has run it", "slot", t.pending.slot)
	t.mu.Lock()
	t.pending = nil
	t.state.Progress.Finish()
	t.state.Elsewhere++
	t.mu.Unlock()
	t.write()
	t.d.refresh(t.key.job)
}

// leadership tells whether this daemon leads; nil if there is no election.
func (t *track) leadership() (*bool, string) {
	t.mu.Lock()
	lead := t.lead
	t.mu.Unlock()
	if lead == nil {
		return nil, ""
	}
	leads, err := lead.leading()
	if err != nil {
		return &leads, err.Error()
	}
	return &leads, ""
}

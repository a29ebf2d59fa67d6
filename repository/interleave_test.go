package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// These tests let several actors, each as a process of its own, use the same
// store, and try every order of their operations that switches between them at
// most so often; and then again with one of them dying at each of its
// operations. It is the order of the operations that keeps backups safe, so a
// change of that order must fail one of them.

// scene is a state of the store, actors that set out from there, and what must
// hold once they have ended.
type scene struct {
	store    *storagetest.Memory
	actors   []actor
	switches int    // between actors that could go on; one more with LIFEBOAT_SOAK
	mortal   string // the actor that also dies at each of its operations, with one switch; empty: none
	check    func(t *testing.T, end ending)
}

type actor struct {
	name string
	do   func(ctx context.Context, s storage.Store) error
}

// ending is what a run left.
type ending struct {
	store *storagetest.Memory
	errs  map[string]error // by actor
	log   []step
}

// step is an operation that took effect.
type step struct {
	actor, method, key string
	err                error
}

func (s step) String() string {
	text := fmt.Sprintf("%-8s %-6s %s", s.actor, s.method, s.key)
	if s.err != nil {
		text += ": " + s.err.Error()
	}
	return text
}

// play runs a scene in every order. It needs a synctest bubble.
func (s scene) play(t *testing.T) {
	t.Helper()
	if soak(t, 1) > 1 {
		s.switches++
	}
	runs := s.explore(t, s.switches, death{})
	if s.mortal != "" {
		for n := 1; ; n++ {
			met := false
			for _, after := range []bool{false, true} {
				d := &deathAt{n: n, after: after}
				runs += s.explore(t, 1, death{s.mortal, d})
				met = met || d.met
			}
			if !met {
				break
			}
		}
	}
	t.Logf("%d runs", runs)
}

// death is when which actor dies.
type death struct {
	actor string
	at    *deathAt
}

type deathAt struct {
	n     int // operation, from 1
	after bool
	met   bool // in any run
}

func (d death) String() string {
	if d.at == nil {
		return "nobody dies"
	}
	return fmt.Sprintf("%s dies at operation %d, after its effect: %v", d.actor, d.at.n, d.at.after)
}

// explore runs the scene once for each order of at most so many switches.
func (s scene) explore(t *testing.T, switches int, d death) (runs int) {
	t.Helper()
	for r := (route{limit: switches}); ; {
		end := s.run(t, &r, d)
		runs++
		s.check(t, end)
		if t.Failed() {
			t.Fatalf("run %d, %v:\n%s", runs, d, describe(end))
		}
		if !r.next() {
			return runs
		}
	}
}

func describe(end ending) string {
	var text strings.Builder
	for _, st := range end.log {
		fmt.Fprintln(&text, st)
	}
	for name, err := range end.errs {
		fmt.Fprintf(&text, "%s ended with %v\n", name, err)
	}
	for o, err := range end.store.List(context.Background(), "") {
		fmt.Fprintln(&text, "there:", o.Key, err)
	}
	return text.String()
}

// route is the choices of a run, each among so many, and which come next.
type route struct {
	limit   int // switches
	choices []choice
	at      int // next choice of the run under way
	used    int // switches of it
}

type choice struct{ taken, of int }

// choose returns which of the ways to go: free ones that cost no switch, the
// first being to go on, and others that do.
func (r *route) choose(free, others int) int {
	if r.used == r.limit && free > 0 {
		others = 0
	}
	if r.at == len(r.choices) {
		r.choices = append(r.choices, choice{0, free + others})
	}
	taken := r.choices[r.at].taken
	r.at++
	if free > 0 && taken >= free {
		r.used++
	}
	return taken
}

// next moves on to the next run, if there is one.
func (r *route) next() bool {
	r.at, r.used = 0, 0
	for i := len(r.choices) - 1; i >= 0; i-- {
		if c := &r.choices[i]; c.taken+1 < c.of {
			c.taken++
			r.choices = r.choices[:i+1]
			return true
		}
	}
	return false
}

// run plays the scene once.
func (s scene) run(t *testing.T, r *route, d death) ending {
	t.Helper()
	store := cloneMemory(t, s.store)
	turns := &turns{death: d}
	errs := make(map[string]error)
	var running sync.WaitGroup
	var mu sync.Mutex
	ended := make(map[string]bool)
	for _, a := range s.actors {
		running.Go(func() {
			err := a.do(t.Context(), &turnStore{Store: store, turns: turns, actor: a.name})
			mu.Lock()
			defer mu.Unlock()
			errs[a.name], ended[a.name] = err, true
		})
	}
	for last := ""; ; {
		synctest.Wait()
		ready := turns.ready(last)
		mu.Lock()
		done := len(ended)
		mu.Unlock()
		if len(ready) == 0 && done == len(s.actors) {
			break
		}
		last = turns.give(ready, r, done+len(ready) < len(s.actors), last)
	}
	running.Wait()
	return ending{store, errs, turns.log}
}

// turns lets one operation through at a time.
type turns struct {
	death death

	mu      sync.Mutex
	waiting []*turn
	mortal  int // operations of the actor that dies
	died    bool
	log     []step
}

type turn struct {
	actor, op string
	granted   chan struct{}
}

// ready are the actors that wait for a turn, the one of the last turn first.
func (ts *turns) ready(last string) []string {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var names []string
	for _, w := range ts.waiting {
		names = append(names, w.actor)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if i := slices.Index(names, last); i > 0 {
		names = append([]string{last}, slices.Delete(names, i, i+1)...)
	}
	return names
}

// give lets one actor do one operation, or, if one sleeps, time pass.
func (ts *turns) give(ready []string, r *route, sleeping bool, last string) string {
	free, others := len(ready), 0
	if free > 0 && ready[0] == last {
		free, others = 1, free-1
	}
	if sleeping {
		others++
	}
	way := r.choose(free, others)
	if way == len(ready) {
		time.Sleep(pruneLookMax)
		return last
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	next := -1
	for i, w := range ts.waiting {
		if w.actor == ready[way] && (next < 0 || w.op < ts.waiting[next].op) {
			next = i
		}
	}
	close(ts.waiting[next].granted)
	ts.waiting = slices.Delete(ts.waiting, next, next+1)
	return ready[way]
}

// take waits for a turn and does an operation in it.
func (ts *turns) take(actor, method, key string, do func() error) error {
	if ts.dead(actor) {
		return storagetest.ErrCrashed
	}
	w := &turn{actor, method + " " + key, make(chan struct{})}
	ts.mu.Lock()
	ts.waiting = append(ts.waiting, w)
	ts.mu.Unlock()
	<-w.granted
	last := ts.count(actor)
	if ts.dead(actor) {
		return storagetest.ErrCrashed
	}
	err := do()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.log = append(ts.log, step{actor, method, key, err})
	if last {
		ts.died = true
		return storagetest.ErrCrashed
	}
	return err
}

func (ts *turns) dead(actor string) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.died && actor == ts.death.actor
}

// count counts an operation and tells whether the actor dies once it took
// effect. It may die before.
func (ts *turns) count(actor string) (last bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if actor != ts.death.actor || ts.death.at == nil {
		return false
	}
	ts.mortal++
	if ts.mortal != ts.death.at.n {
		return false
	}
	ts.death.at.met = true
	ts.died = !ts.death.at.after
	return ts.death.at.after
}

// turnStore is the store as one actor has it.
type turnStore struct {
	storage.Store
	turns *turns
	actor string
}

func (s *turnStore) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (obj storage.Object, err error) {
	var data bytes.Buffer
	if _, err := io.Copy(&data, body); err != nil {
		return storage.Object{}, err
	}
	err = s.turns.take(s.actor, "Put", key, func() error {
		obj, err = s.Store.Put(ctx, key, &data, o)
		return err
	})
	return obj, err
}

func (s *turnStore) Get(ctx context.Context, key string, r storage.Range) (rc io.ReadCloser, err error) {
	err = s.turns.take(s.actor, "Get", key, func() error {
		rc, err = s.Store.Get(ctx, key, r)
		return err
	})
	return rc, err
}

func (s *turnStore) Stat(ctx context.Context, key string) (obj storage.Object, err error) {
	err = s.turns.take(s.actor, "Stat", key, func() error {
		obj, err = s.Store.Stat(ctx, key)
		return err
	})
	return obj, err
}

func (s *turnStore) Delete(ctx context.Context, key string) error {
	return s.turns.take(s.actor, "Delete", key, func() error { return s.Store.Delete(ctx, key) })
}

// listPage is how many keys of a List are of one moment.
const listPage = 6

func (s *turnStore) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for after, more := "", true; more; {
			var page []storage.Object
			err := s.turns.take(s.actor, "List", prefix, func() (err error) {
				page, more, err = s.page(ctx, prefix, after)
				return err
			})
			if err != nil {
				yield(storage.Object{}, err)
				return
			}
			for _, o := range page {
				after = o.Key
				if !yield(o, nil) {
					return
				}
			}
		}
	}
}

func (s *turnStore) page(ctx context.Context, prefix, after string) (page []storage.Object, more bool, err error) {
	for o, err := range s.Store.List(ctx, prefix) {
		switch {
		case err != nil:
			return nil, false, err
		case o.Key <= after:
			continue
		case len(page) == listPage:
			return page, true, nil
		}
		page = append(page, o)
	}
	return page, false, nil
}

// cloneMemory returns a store with the same objects of the same ages.
func cloneMemory(t testing.TB, from *storagetest.Memory) *storagetest.Memory {
	t.Helper()
	ctx, to := t.Context(), storagetest.NewMemory()
	for o, err := range from.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := readAll(ctx, from, o.Key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.Put(ctx, o.Key, bytes.NewReader(data), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := to.Age(o.Key, time.Since(o.Modified)); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// checkWhole fails the test if anything that is listed is not readable.
func checkWhole(t testing.TB, s storage.Store) *Listing {
	t.Helper()
	r, err := Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range l.Damaged {
		t.Errorf("%s can't be read: %v", d.Key, d.Err)
	}
	for _, b := range l.Backups {
		damage, err := r.CheckDigests(t.Context(), b, nil)
		if err := errors.Join(append(damage, err)...); err != nil {
			t.Errorf("backup %s is listed, but: %v", b.ID(), err)
		}
	}
	return l
}

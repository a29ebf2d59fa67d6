package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// The model test does what people do to two repositories, at random, with
// faults and crashes, and keeps book of what was acknowledged. After each step
// what was acknowledged must be there, unless a policy let it go.

// soak scales campaigns by LIFEBOAT_SOAK.
func soak(t testing.TB, n int) int {
	t.Helper()
	text := os.Getenv("LIFEBOAT_SOAK")
	if text == "" {
		return n
	}
	times, err := strconv.Atoi(text)
	if err != nil || times < 1 {
		t.Fatalf("LIFEBOAT_SOAK=%s: want a number from 1 up", text)
	}
	return n * times * 10
}

// world is two repositories and what is known of them.
type world struct {
	t     *testing.T
	key   *age.X25519Identity
	repos [2]*book
	log   []string
}

// book is what is known of one repository.
type book struct {
	store   *storagetest.Memory
	head    head
	made    map[string]*draftOf // every save that was tried, by id; both repositories share it
	acked   map[string]bool     // ids that must be there
	held    map[string]bool     // ids whose hold was acknowledged
	freed   map[string]bool     // ids that the step under way releases
	letGo   map[string]bool     // ids that a prune of the step under way removes
	foreign map[string]string   // what is not ours, by key
	listed  map[string]*Backup  // after the last step
}

// draftOf is what a save put.
type draftOf struct {
	cluster string
	parts   map[string][]byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w, made := &world{t: t, key: key}, map[string]*draftOf{}
	for i := range w.repos {
		r, store := newRepository(t)
		w.repos[i] = &book{
			store: store, head: r.head, made: made, acked: map[string]bool{}, held: map[string]bool{},
			freed: map[string]bool{}, letGo: map[string]bool{}, foreign: map[string]string{}, listed: map[string]*Backup{},
		}
	}
	return w
}

// clone is another world in the same state.
func (w *world) clone() *world {
	c := &world{t: w.t, key: w.key, log: slices.Clone(w.log)}
	made := maps.Clone(w.repos[0].made)
	for i, b := range w.repos {
		c.repos[i] = &book{
			store: cloneMemory(w.t, b.store), head: b.head, made: made, acked: maps.Clone(b.acked), held: maps.Clone(b.held),
			freed: map[string]bool{}, letGo: map[string]bool{}, foreign: maps.Clone(b.foreign), listed: maps.Clone(b.listed),
		}
	}
	return c
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("02T15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// process is a process that works with both repositories.
type process struct {
	w      *world
	name   string
	random *rand.Rand
	stores [2]*storagetest.Faulty
	mu     *sync.Mutex // of the world's books
}

func (p *process) repo(i int) *Repository {
	return &Repository{store: p.stores[i], head: p.w.repos[i].head}
}

// book changes the books.
func (p *process) book(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *process) note(format string, args ...any) {
	p.book(func() { p.w.note(p.name+": "+format, args...) })
}

// deed is something that a process does.
type deed struct {
	name string
	do   func(p *process, ctx context.Context) error
}

// deeds are as likely as they are often here.
var deeds = []deed{
	{"save", (*process).save}, {"save", (*process).save}, {"save", (*process).save}, {"save", (*process).save},
	{"prove", (*process).prove}, {"prove", (*process).prove},
	{"prune", (*process).prune}, {"prune", (*process).prune}, {"prune", (*process).prune},
	{"hold", (*process).hold}, {"release", (*process).release},
	{"copy", (*process).copy}, {"copy", (*process).copy},
	{"read", (*process).read},
}

func (p *process) save(ctx context.Context) error {
	var o DraftOptions
	if p.random.IntN(4) == 0 {
		to := p.w.key.Recipient()
		o.Recipients = Recipients{list: []age.Recipient{to}, names: []string{to.String()}}
	}
	d, err := p.repo(0).Begin(ctx, []string{"prod", "test"}[p.random.IntN(2)], o)
	if err != nil {
		return err
	}
	made := &draftOf{cluster: d.cluster, parts: map[string][]byte{}}
	p.book(func() { p.w.repos[0].made[d.ID()] = made })
	p.note("%s of %s", d.ID(), d.cluster)
	for i := range 1 + p.random.IntN(3) {
		part := Part{Name: fmt.Sprintf("wal/%d.wal", i), Role: RoleWAL}
		made.parts[part.Name] = noise(p.random.IntN(500), p.random.Uint64())
		if err := p.putPart(ctx, d, part, made.parts[part.Name]); err != nil {
			return errors.Join(err, d.Abort(ctx))
		}
	}
	if p.random.IntN(8) == 0 {
		return errors.Join(errors.New("changed its mind"), d.Abort(ctx))
	}
	if _, err := d.Commit(ctx, Manifest{Kind: Files, Tool: "model"}); err != nil {
		return errors.Join(err, d.Abort(ctx))
	}
	p.book(func() { p.w.repos[0].acked[d.ID()] = true })
	return nil
}

// putPart tries twice, and the first time may have the source fail.
func (p *process) putPart(ctx context.Context, d *Draft, part Part, data []byte) error {
	breakOff := p.random.IntN(5) == 0
	_, err := d.Put(ctx, part, func(ctx context.Context, to io.Writer) error {
		if breakOff {
			_, _ = to.Write(data[:len(data)/2])
			return errors.New("the source failed")
		}
		_, err := to.Write(data)
		return err
	})
	if err != nil {
		_, err = d.Put(ctx, part, put(data))
	}
	return err
}

// some picks a listed backup of a repository; nil if there is none.
func (p *process) some(ctx context.Context, i int) (*Backup, error) {
	var ids []string
	p.book(func() { ids = slices.Sorted(maps.Keys(p.w.repos[i].listed)) })
	if len(ids) == 0 {
		return nil, nil
	}
	id := ids[p.random.IntN(len(ids))]
	return p.repo(i).Backup(ctx, p.w.repos[i].listed[id].Cluster(), id)
}

func (p *process) prove(ctx context.Context) error {
	i := p.random.IntN(2)
	b, err := p.some(ctx, i)
	if b == nil {
		return err
	}
	proof := Proof{Time: time.Now(), Level: levels[p.random.IntN(3)], Result: results[p.random.IntN(3)], Tool: "model"}
	if p.random.IntN(2) == 0 {
		proof.Result = ResultPassed
	}
	p.note("%s in %d: %s %s", b.ID(), i, proof.Level, proof.Result)
	return p.repo(i).AddProof(ctx, b, proof)
}

func (p *process) hold(ctx context.Context) error {
	i := p.random.IntN(2)
	b, err := p.some(ctx, i)
	if b == nil {
		return err
	}
	p.note("%s in %d", b.ID(), i)
	if err := p.repo(i).Hold(ctx, b, []string{"audit", "evidence"}[p.random.IntN(2)]); err != nil {
		return err
	}
	p.book(func() { p.w.repos[i].held[b.ID()] = true })
	return nil
}

func (p *process) release(ctx context.Context) error {
	i := p.random.IntN(2)
	b, err := p.some(ctx, i)
	if b == nil {
		return err
	}
	p.note("%s in %d", b.ID(), i)
	p.book(func() { p.w.repos[i].freed[b.ID()] = true })
	return p.repo(i).Release(ctx, b)
}

func (p *process) prune(ctx context.Context) error {
	i := p.random.IntN(2)
	count := func() int { return []int{0, 0, 0, 1, 2, 5}[p.random.IntN(6)] }
	policy := Policy{Last: 1 + p.random.IntN(6), Hourly: count(), Daily: count(), Weekly: count()}
	plan, err := p.repo(i).PlanPrune(ctx, "", policy, time.Now())
	if err != nil {
		return err
	}
	p.note("of %d, %v", i, policy)
	for _, b := range plan.Remove() {
		p.note("lets go of %s", b.ID())
		p.book(func() { p.w.repos[i].letGo[b.ID()] = true })
	}
	result, err := plan.Apply(ctx, PruneOptions{})
	for _, r := range result.Removals {
		p.note("%s is %s %q, %v", r.Backup.ID(), r.Outcome, r.Reasons, r.Err)
	}
	for _, l := range result.Leftovers {
		p.note("leftover %s is %s, %v", l.Unfinished.ID, l.Outcome, l.Err)
	}
	return err
}

func (p *process) copy(ctx context.Context) error {
	b, err := p.some(ctx, 0)
	if b == nil {
		return err
	}
	p.note("%s", b.ID())
	if err := Copy(ctx, p.repo(0), p.repo(1), b, nil); err != nil {
		return err
	}
	p.book(func() { p.w.repos[1].acked[b.ID()] = true })
	return nil
}

func (p *process) read(ctx context.Context) error {
	i := p.random.IntN(2)
	b, err := p.some(ctx, i)
	if b == nil {
		return err
	}
	p.note("%s in %d", b.ID(), i)
	return p.w.compare(ctx, p.w.repos[i], b)
}

// errWrong is what must not be.
var errWrong = errors.New("WRONG")

// compare reads a backup and compares it with what was saved.
func (w *world) compare(ctx context.Context, book *book, b *Backup) error {
	made := book.made[b.ID()]
	if made == nil || made.cluster != b.Cluster() || len(made.parts) != len(b.Manifest.Parts) {
		return fmt.Errorf("%w: %s of %s with %d parts was never saved", errWrong, b.ID(), b.Cluster(), len(b.Manifest.Parts))
	}
	for _, p := range b.Manifest.Parts {
		rc, err := b.Open(ctx, p.Name, Identities{list: []age.Identity{w.key}})
		if err != nil {
			return err
		}
		data, err := io.ReadAll(rc)
		if err := errors.Join(err, rc.Close()); err != nil {
			return err
		}
		if !bytes.Equal(data, made.parts[p.Name]) {
			return fmt.Errorf("%w: %s of %s reads %d other bytes", errWrong, p.Name, b.ID(), len(data))
		}
	}
	return nil
}

// stepOf is one step of a campaign: processes that work at once, and what
// befalls their stores.
type stepOf struct {
	seed   uint64
	sleep  time.Duration
	deeds  []deed
	faulty bool // each operation may fail, be repeated or be slow
}

func randomStep(random *rand.Rand) stepOf {
	sleeps := []time.Duration{time.Second, time.Minute, time.Hour, 5 * time.Hour, 30 * time.Hour}
	s := stepOf{seed: random.Uint64(), sleep: sleeps[random.IntN(len(sleeps))], faulty: random.IntN(3) == 0}
	for range 1 + random.IntN(4)/2 {
		s.deeds = append(s.deeds, deeds[random.IntN(len(deeds))])
	}
	return s
}

func (s stepOf) String() string {
	var names []string
	for _, d := range s.deeds {
		names = append(names, d.name)
	}
	return fmt.Sprintf("%s, faulty %v", strings.Join(names, " and "), s.faulty)
}

// take takes the step. The first of its processes meets the fault at its nth
// operation; n is 0 for none. It tells whether it met it.
func (s stepOf) take(w *world, n int, fault storagetest.Fault) (met bool) {
	time.Sleep(s.sleep)
	var mu sync.Mutex
	var running sync.WaitGroup
	w.note("step: %v", s)
	counted := 0
	for i, d := range s.deeds {
		random := rand.New(rand.NewPCG(s.seed, uint64(i)))
		befalls := s.plan(random.Uint64())
		plan := func(op storagetest.Op) storagetest.Fault {
			mu.Lock()
			defer mu.Unlock()
			if i == 0 {
				counted++ // over both stores
			}
			f := befalls(op)
			if i == 0 && n > 0 && counted >= n && fault.Kind != storagetest.None {
				met = met || counted == n
				if counted == n || isCrash(fault) {
					f = fault
				}
				if counted > n && isCrash(fault) {
					f.Kind = storagetest.Crash
				}
			}
			if f.Kind != storagetest.None {
				w.note("%s %d: %s %s", d.name, i, f.Kind, op)
			}
			return f
		}
		p := &process{w: w, name: fmt.Sprintf("%s %d", d.name, i), random: random, mu: &mu}
		for j := range p.stores {
			p.stores[j] = storagetest.NewFaulty(w.repos[j].store, plan)
		}
		running.Go(func() {
			err := d.do(p, context.Background())
			p.note("ended with %v", err)
			if errors.Is(err, errWrong) {
				w.t.Error(err)
			}
		})
	}
	running.Wait()
	return met
}

func isCrash(f storagetest.Fault) bool {
	return f.Kind == storagetest.Crash || f.Kind == storagetest.CrashAfter
}

// plan has each operation take a little while, so that what processes do at
// once interleaves, and some of them fail or take long.
func (s stepOf) plan(seed uint64) storagetest.Plan {
	random := rand.New(rand.NewPCG(seed, 1))
	kinds := []storagetest.Kind{storagetest.Fail, storagetest.LoseAnswer, storagetest.Cut, storagetest.End, storagetest.Repeat}
	return func(storagetest.Op) storagetest.Fault {
		f := storagetest.Fault{Delay: time.Duration(random.IntN(50)) * time.Millisecond}
		if !s.faulty || random.IntN(12) > 0 {
			return f
		}
		if random.IntN(4) == 0 {
			f.Delay = []time.Duration{time.Minute, 90 * time.Minute, 13 * time.Hour, 25 * time.Hour}[random.IntN(4)]
			return f
		}
		f.Kind, f.After = kinds[random.IntN(len(kinds))], random.Int64N(200)
		return f
	}
}

// check compares the repositories with the books.
func (w *world) check() {
	w.t.Helper()
	for i, book := range w.repos {
		l := checkWhole(w.t, book.store)
		listed := map[string]*Backup{}
		for _, b := range l.Backups {
			listed[b.ID()] = b
			if book.listed[b.ID()] != nil {
				continue // read before, and its digests are the same
			}
			if err := w.compare(context.Background(), book, b); err != nil {
				w.t.Errorf("repository %d: %v", i, err)
			}
		}
		for id := range book.acked {
			if listed[id] == nil && !book.letGo[id] {
				w.t.Errorf("repository %d: %s is gone, and no policy let it go", i, id)
			}
			if listed[id] == nil {
				delete(book.acked, id)
			}
		}
		maps.DeleteFunc(book.held, func(id string, _ bool) bool { return book.freed[id] })
		for id := range book.held {
			if listed[id] == nil || listed[id].Hold == nil {
				w.t.Errorf("repository %d: %s is not held any more", i, id)
			}
		}
		w.checkNewest(i, book.listed, listed)
		for key, text := range book.foreign {
			if data, err := readAll(context.Background(), book.store, key); err != nil || string(data) != text {
				w.t.Errorf("repository %d: %s, which is not ours, reads %q, %v", i, key, data, err)
			}
		}
		book.listed, book.letGo, book.freed = listed, map[string]bool{}, map[string]bool{}
	}
}

// checkNewest wants no backup gone that was the newest, or the newest proven,
// both by what was known before the step and by what is known after it.
func (w *world) checkNewest(i int, before, after map[string]*Backup) {
	w.t.Helper()
	for id, b := range before {
		if after[id] != nil {
			continue
		}
		for _, level := range append([]Level{""}, levels...) {
			newest := func(all map[string]*Backup) bool {
				for _, o := range all {
					if o.Cluster() == b.Cluster() && newestFirst(o, b) < 0 && (level == "" && doubt(o) == "" || level != "" && o.Proven(level) != nil) {
						return false
					}
				}
				return level == "" && doubt(b) == "" || level != "" && b.Proven(level) != nil
			}
			if newest(before) && newest(after) {
				w.t.Errorf("repository %d: %s is gone, which was the newest proven %s", i, id, level)
			}
		}
	}
}

// intrude puts something that is not ours.
func (w *world) intrude(random *rand.Rand) {
	book := w.repos[random.IntN(2)]
	folders := []string{"", "clusters/", "clusters/prod/", "clusters/prod/backups/", "clusters/prod/backups/20260101T000000Z-abcdef/"}
	for _, id := range slices.Sorted(maps.Keys(book.listed)) {
		folders = append(folders, book.listed[id].key(""), book.listed[id].key(proofDir), book.listed[id].key(prunedDir))
	}
	key := folders[random.IntN(len(folders))] + fmt.Sprintf("note-%d.txt", random.IntN(1000))
	place(w.t, book.store, key, "not ours")
	book.foreign[key] = "not ours"
	w.note("intrude: %s", key)
}

// settle has time pass and a prune clean up, and wants nothing left but what is
// listed and what is not ours.
func (w *world) settle() {
	w.t.Helper()
	for range 2 {
		time.Sleep(LeftoverAge + time.Hour)
		for i, book := range w.repos {
			result, err := planned(w.t, &Repository{store: book.store, head: book.head}, Policy{Last: Unlimited}).Apply(w.t.Context(), PruneOptions{})
			if err != nil || len(result.Removals) > 0 {
				w.t.Errorf("repository %d: settle: %+v, %v", i, result.Removals, err)
			}
		}
	}
	w.check()
	for i, book := range w.repos {
		for _, u := range checkWhole(w.t, book.store).Unfinished {
			if !u.held() {
				w.t.Errorf("repository %d: left over is %q", i, u.Keys)
			}
		}
		for _, b := range book.listed {
			if b.Pruned != nil {
				w.t.Errorf("repository %d: %s is marked still", i, b.ID())
			}
		}
	}
}

// campaign runs random steps, each of which may meet a crash or a fault.
func campaign(w *world, random *rand.Rand, steps int) {
	for range steps {
		if random.IntN(6) == 0 {
			w.intrude(random)
		}
		crash := storagetest.Fault{Kind: []storagetest.Kind{storagetest.Crash, storagetest.CrashAfter}[random.IntN(2)]}
		n := 0
		if random.IntN(3) == 0 {
			n = 1 + random.IntN(40)
		}
		randomStep(random).take(w, n, crash)
		if w.check(); w.t.Failed() {
			return
		}
	}
	w.settle()
}

// report fails the test for good, with all that was done.
func (w *world) report(seed uint64) {
	w.t.Helper()
	if !w.t.Failed() {
		return
	}
	w.t.Logf("seed %d:\n%s", seed, strings.Join(w.log, "\n"))
	for i, book := range w.repos {
		w.t.Logf("repository %d:\n%s", i, objectsIn(w.t, book.store))
	}
	w.t.FailNow()
}

func TestModel(t *testing.T) {
	seeds(t, soak(t, 8), func(seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			campaign(w, rand.New(rand.NewPCG(seed, 2)), 60)
			w.report(seed)
		})
	})
}

// seeds calls do with seeds, or with the one in LIFEBOAT_SEED.
func seeds(t *testing.T, n int, do func(seed uint64)) {
	t.Helper()
	if text := os.Getenv("LIFEBOAT_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("LIFEBOAT_SEED=%s: want a number", text)
		}
		do(seed)
		return
	}
	for seed := range uint64(n) {
		if do(seed); t.Failed() {
			t.Fatalf("repeat with LIFEBOAT_SEED=%d", seed)
		}
	}
}

// TestModelCrashes takes each step of a campaign again and again from where it
// began, to die at its first, second, third … operation, before and after its
// effect; then once more from there unharmed; and then goes on from where
// nobody died.
func TestModelCrashes(t *testing.T) {
	seeds(t, soak(t, 1), func(seed uint64) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			w, deaths := newWorld(t), 0
			for range 15 {
				s := randomStep(random)
				s.faulty = false
				for _, kind := range []storagetest.Kind{storagetest.Crash, storagetest.CrashAfter} {
					for n, met := 1, true; met; n++ {
						dies := w.clone()
						met = s.take(dies, n, storagetest.Fault{Kind: kind})
						dies.check()
						s.take(dies, 0, storagetest.Fault{})
						dies.check()
						dies.settle()
						dies.report(seed)
						deaths++
					}
				}
				s.take(w, 0, storagetest.Fault{})
				w.check()
				w.report(seed)
			}
			t.Logf("seed %d: %d deaths", seed, deaths)
		})
	})
}

package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Errors of a [Faulty], unless its faults name others.
var (
	ErrInjected = errors.New("injected fault")
	ErrCrashed  = errors.New("injected crash")
)

// Kind is what a fault does to an operation.
type Kind string

// The kinds of faults.
const (
	None Kind = ""
	// Fail fails the operation before its effect; a Put has then read
	// Fault.After bytes of its body.
	Fail Kind = "fail"
	// LoseAnswer lets it take effect, and fails nevertheless.
	LoseAnswer Kind = "lose the answer of"
	// Cut breaks off what a Get reads, or a List yields, after Fault.After
	// bytes or objects; other operations it fails.
	Cut Kind = "cut"
	// End is as Cut, but a Get looks as if it had come to its end.
	End Kind = "end early"
	// Repeat performs it twice, as a client does that got no first answer,
	// and returns the second answer.
	Repeat Kind = "repeat"
	// Crash fails this and every later operation, and breaks off those under
	// way.
	Crash Kind = "crash before"
	// CrashAfter does so once this operation took effect.
	CrashAfter Kind = "crash after"
)

// Fault is what happens to one operation. The zero value lets it be.
type Fault struct {
	Kind  Kind
	After int64         // bytes, or objects of a List
	Delay time.Duration // before anything else
	Err   error         // nil: ErrInjected, or ErrCrashed
}

func (f Fault) err() error {
	switch {
	case f.Err != nil:
		return f.Err
	case f.Kind == Crash, f.Kind == CrashAfter:
		return ErrCrashed
	}
	return ErrInjected
}

// Op is one operation on a [Faulty].
type Op struct {
	N      int    // from 1
	Method string // "Put", "Get", "Stat", "List", "Delete", "Sweep", "Retain"
	Key    string // or prefix
}

func (o Op) String() string { return fmt.Sprintf("%d: %s %s", o.N, o.Method, o.Key) }

// Plan decides the fault of each operation. It is called by one goroutine at a
// time.
type Plan func(Op) Fault

// At is the plan in which only the nth operation, from 1, meets a fault.
func At(n int, f Fault) Plan {
	return func(op Op) Fault {
		if op.N == n {
			return f
		}
		return Fault{}
	}
}

// Random is the plan in which each operation meets one of the faults with a
// probability of rate. The same operations in the same order meet the same.
func Random(seed uint64, rate float64, faults ...Fault) Plan {
	random := rand.New(rand.NewPCG(seed, 0))
	return func(Op) Fault {
		if random.Float64() >= rate {
			return Fault{}
		}
		return faults[random.IntN(len(faults))]
	}
}

// Each yields stores, each on a new inner one, whose first, second, third …
// operation meets the fault, until one of them is used without meeting it.
func Each(f Fault, inner func() storage.Store) iter.Seq[*Faulty] {
	return func(yield func(*Faulty) bool) {
		for n := 1; ; n++ {
			s := NewFaulty(inner(), At(n, f))
			if !yield(s) || len(s.Ops()) < n {
				return
			}
		}
	}
}

// Faulty is a store whose operations fail by plan. It counts them. With no
// fault it behaves as the store that it wraps.
type Faulty struct {
	inner storage.Store
	plan  Plan

	mu      sync.Mutex
	ops     []Op
	met     []string
	crashed error
}

// NewFaulty wraps a store.
func NewFaulty(inner storage.Store, plan Plan) *Faulty {
	return &Faulty{inner: inner, plan: plan}
}

// Inner is the store as a process sees it that starts after a crash.
func (f *Faulty) Inner() storage.Store { return f.inner }

// Ops are the operations so far.
func (f *Faulty) Ops() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ops)
}

// Met says which faults struck so far, for messages of tests.
func (f *Faulty) Met() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.met)
}

// String implements [storage.Store].
func (f *Faulty) String() string { return f.inner.String() }

// begin counts an operation, and waits and fails as planned.
func (f *Faulty) begin(ctx context.Context, method, key string) (Fault, error) {
	fault, err := f.next(method, key)
	if err == nil && fault.Delay > 0 {
		err = sleep(ctx, fault.Delay)
	}
	if err != nil {
		return fault, fmt.Errorf("%s %s: %w", method, key, err)
	}
	return fault, nil
}

func (f *Faulty) next(method, key string) (Fault, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	op := Op{len(f.ops) + 1, method, key}
	f.ops = append(f.ops, op)
	if f.crashed != nil {
		return Fault{}, f.crashed
	}
	fault := f.plan(op)
	if fault.Kind != None || fault.Delay > 0 {
		f.met = append(f.met, fmt.Sprintf("%s %s", fault.Kind, op))
	}
	if fault.Kind == Crash {
		f.crashed = fault.err()
	}
	return fault, nil
}

// end gives an operation that took effect its answer.
func (f *Faulty) end(fault Fault, method, key string, err error) error {
	if err != nil {
		return err
	}
	switch fault.Kind {
	case CrashAfter:
		f.mu.Lock()
		f.crashed = fault.err()
		f.mu.Unlock()
	case LoseAnswer:
	default:
		return nil
	}
	return fmt.Errorf("%s %s: %w", method, key, fault.err())
}

// alive fails once the store crashed.
func (f *Faulty) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fails tells whether the fault keeps an operation from any effect.
func (f Fault) fails() bool { return f.Kind == Fail || f.Kind == Crash }

// run performs an operation that only has an effect and an answer.
func (f *Faulty) run(ctx context.Context, method, key string, do func() error) error {
	fault, err := f.begin(ctx, method, key)
	if err != nil {
		return err
	}
	switch {
	case fault.fails(), fault.Kind == Cut, fault.Kind == End:
		return fmt.Errorf("%s %s: %w", method, key, fault.err())
	case fault.Kind == Repeat:
		_ = do() // this answer is lost
	}
	return f.end(fault, method, key, do())
}

// Put implements [storage.Store].
func (f *Faulty) Put(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	fault, err := f.begin(ctx, "Put", key)
	if err != nil {
		return storage.Object{}, err
	}
	body = &brokenReader{r: body, left: -1, alive: f.alive}
	switch {
	case fault.fails(), fault.Kind == Cut, fault.Kind == End:
		_, err := io.CopyN(io.Discard, body, fault.After)
		return storage.Object{}, fmt.Errorf("put %s: %w", key, errors.Join(fault.err(), ignoreEnd(err)))
	case fault.Kind == Repeat:
		return f.putTwice(ctx, key, body, o)
	}
	obj, err := f.inner.Put(ctx, key, body, o)
	if err := f.end(fault, "Put", key, err); err != nil {
		return storage.Object{}, err
	}
	return obj, nil
}

func (f *Faulty) putTwice(ctx context.Context, key string, body io.Reader, o storage.PutOptions) (storage.Object, error) {
	var sent bytes.Buffer
	if _, err := f.inner.Put(ctx, key, io.TeeReader(body, &sent), o); err != nil {
		return storage.Object{}, err
	}
	return f.inner.Put(ctx, key, &sent, o)
}

func ignoreEnd(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// Get implements [storage.Store].
func (f *Faulty) Get(ctx context.Context, key string, r storage.Range) (io.ReadCloser, error) {
	fault, err := f.begin(ctx, "Get", key)
	if err != nil {
		return nil, err
	}
	if fault.fails() {
		return nil, fmt.Errorf("get %s: %w", key, fault.err())
	}
	if fault.Kind == Repeat {
		if twin, err := f.inner.Get(ctx, key, r); err == nil {
			twin.Close()
		}
	}
	body, err := f.inner.Get(ctx, key, r)
	if err := f.end(fault, "Get", key, err); err != nil {
		if body != nil {
			body.Close()
		}
		return nil, err
	}
	return f.broken(fault, key, body), nil
}

// broken is what a Get reads, as a fault leaves it.
func (f *Faulty) broken(fault Fault, key string, body io.ReadCloser) io.ReadCloser {
	b := &brokenReader{r: body, c: body, left: -1, alive: f.alive}
	switch fault.Kind {
	case Cut:
		b.left, b.err = fault.After, fmt.Errorf("read %s: %w", key, fault.err())
	case End:
		b.left, b.err = fault.After, io.EOF
	}
	return b
}

// Stat implements [storage.Store].
func (f *Faulty) Stat(ctx context.Context, key string) (obj storage.Object, err error) {
	err = f.run(ctx, "Stat", key, func() (err error) {
		obj, err = f.inner.Stat(ctx, key)
		return err
	})
	if err != nil {
		return storage.Object{}, err
	}
	return obj, nil
}

// List implements [storage.Store].
func (f *Faulty) List(ctx context.Context, prefix string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		fault, err := f.begin(ctx, "List", prefix)
		left := int64(-1)
		switch fault.Kind {
		case Fail, Crash:
			err = fmt.Errorf("list %s: %w", prefix, fault.err())
		case LoseAnswer, CrashAfter:
			err = f.end(fault, "List", prefix, nil)
		case Cut, End:
			left = fault.After
		}
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		f.list(ctx, prefix, left, fault, yield)
	}
}

// list yields left objects and then fails; all of them if left is negative.
func (f *Faulty) list(ctx context.Context, prefix string, left int64, fault Fault, yield func(storage.Object, error) bool) {
	for obj, err := range f.inner.List(ctx, prefix) {
		if err == nil {
			err = f.alive()
		}
		if err == nil && left == 0 {
			err = fmt.Errorf("list %s: %w", prefix, fault.err())
		}
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		if !yield(obj, nil) {
			return
		}
		left--
	}
	if left >= 0 {
		yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, fault.err()))
	}
}

// Delete implements [storage.Store].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.run(ctx, "Delete", key, func() error { return f.inner.Delete(ctx, key) })
}

// Unwrap implements [storage.Wrapper]: what the inner store can do besides
// fails by plan too.
func (f *Faulty) Unwrap() storage.Store {
	sweeper, sweeps := storage.As[storage.Sweeper](f.inner)
	retainer, retains := storage.As[storage.Retainer](f.inner)
	switch {
	case sweeps && retains:
		return struct {
			storage.Store
			faultySweeper
			faultyRetainer
		}{f.inner, faultySweeper{f, sweeper}, faultyRetainer{f, retainer}}
	case sweeps:
		return struct {
			storage.Store
			faultySweeper
		}{f.inner, faultySweeper{f, sweeper}}
	case retains:
		return struct {
			storage.Store
			faultyRetainer
		}{f.inner, faultyRetainer{f, retainer}}
	}
	return f.inner
}

type faultySweeper struct {
	faulty  *Faulty
	sweeper storage.Sweeper
}

func (s faultySweeper) Sweep(ctx context.Context, prefix string, before time.Time) (n int, err error) {
	err = s.faulty.run(ctx, "Sweep", prefix, func() (err error) {
		n, err = s.sweeper.Sweep(ctx, prefix, before)
		return err
	})
	return n, err
}

type faultyRetainer struct {
	faulty   *Faulty
	retainer storage.Retainer
}

func (r faultyRetainer) Retain(ctx context.Context, key string, until time.Time) error {
	return r.faulty.run(ctx, "Retain", key, func() error { return r.retainer.Retain(ctx, key, until) })
}

// brokenReader reads left bytes and then fails with err; all of them if left is
// negative. It fails once alive does.
type brokenReader struct {
	r     io.Reader
	c     io.Closer // nil for none
	left  int64     // bytes
	err   error
	alive func() error
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if err := b.alive(); err != nil {
		return 0, err
	}
	if b.left < 0 {
		return b.r.Read(p)
	}
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *brokenReader) Close() error {
	if b.c == nil {
		return nil
	}
	return b.c.Close()
}

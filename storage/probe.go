package storage

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// ProbePrefix begins the keys of the objects that [Probe] makes and removes.
const ProbePrefix = ".lifeboat-check-"

// Step is one thing that [Probe] tried.
type Step struct {
	Name   string
	Detail string
	Took   time.Duration
	Err    error // nil: it went as a store promises
}

// Probe takes a small object on a round trip through a store, and tells how
// each step went. What it made it removes; a step after one that failed is not
// tried. The last step is the removal.
func Probe(ctx context.Context, s Store) []Step {
	p := probe{store: s, key: ProbePrefix + strings.ToLower(rand.Text()), data: []byte(rand.Text())}
	defer p.cleanUp(ctx)
	p.step(ctx, "write", p.write)
	p.step(ctx, "no overwriting", p.refuse)
	p.step(ctx, "clock", p.clock)
	p.step(ctx, "read", p.read)
	p.step(ctx, "list", p.list)
	p.step(ctx, "remove", p.remove)
	return p.steps
}

type probe struct {
	store  Store
	key    string
	data   []byte
	steps  []Step
	failed bool
	there  bool
	object Object
}

func (p *probe) step(ctx context.Context, name string, do func(context.Context) (string, error)) {
	if p.failed {
		return
	}
	began := time.Now()
	detail, err := do(ctx)
	p.steps = append(p.steps, Step{Name: name, Detail: detail, Took: time.Since(began), Err: err})
	p.failed = err != nil
}

func (p *probe) write(ctx context.Context) (string, error) {
	p.there = true
	_, err := p.store.Put(ctx, p.key, bytes.NewReader(p.data), PutOptions{CreateOnly: true})
	return fmt.Sprintf("%d bytes as %s", len(p.data), p.key), err
}

func (p *probe) refuse(ctx context.Context) (string, error) {
	_, err := p.store.Put(ctx, p.key, strings.NewReader("another"), PutOptions{CreateOnly: true})
	switch {
	case err == nil:
		return "", errors.New("a second create-only put of the same key succeeded")
	case !errors.Is(err, ErrExist):
		return "", err
	}
	return "a second create-only put is refused", nil
}

// maxSkew is how far the clocks of store and machine may be apart: what is
// cleaned is told by both.
const maxSkew = 10 * time.Minute

func (p *probe) clock(ctx context.Context) (string, error) {
	var err error
	if p.object, err = p.store.Stat(ctx, p.key); err != nil {
		return "", err
	}
	skew := time.Since(p.object.Modified).Round(time.Second)
	if skew.Abs() > maxSkew {
		return "", fmt.Errorf("the store's clock and this machine's are %v apart", skew.Abs())
	}
	return fmt.Sprintf("%v apart", skew.Abs()), nil
}

func (p *probe) read(ctx context.Context) (string, error) {
	for _, r := range []Range{{}, {Offset: 5, Length: 10}} {
		want := p.data
		if r.Length > 0 {
			want = want[r.Offset : r.Offset+r.Length]
		}
		rc, err := p.store.Get(ctx, p.key, r)
		if err != nil {
			return "", err
		}
		got, err := io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil {
			return "", err
		}
		if !bytes.Equal(got, want) {
			return "", fmt.Errorf("%s: read other bytes than were written", p.key)
		}
	}
	return "whole, and a range", nil
}

func (p *probe) list(ctx context.Context) (string, error) {
	for o, err := range p.store.List(ctx, p.key) {
		if err != nil {
			return "", err
		}
		if o.Key == p.key && o.Size == int64(len(p.data)) {
			return "it is listed", nil
		}
	}
	return "", fmt.Errorf("%s: is there, and not listed", p.key)
}

func (p *probe) remove(ctx context.Context) (string, error) {
	err := p.store.Delete(ctx, p.key)
	if errors.Is(err, ErrRetained) {
		p.there = false
		return "refused, as the objects are locked: " + p.key + " stays until its lock ends", nil
	}
	if err != nil {
		return "", err
	}
	p.there = false
	switch _, err := p.store.Stat(ctx, p.key); {
	case err == nil:
		return "", fmt.Errorf("%s: was removed, and is there", p.key)
	case !errors.Is(err, ErrNotExist):
		return "", err
	}
	return "it is gone", nil
}

// cleanUp removes the object after a step that failed.
func (p *probe) cleanUp(ctx context.Context) {
	if p.there {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = p.store.Delete(ctx, p.key) // the step that failed is what counts
	}
}

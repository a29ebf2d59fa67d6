package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// probePrefix begins the names of objects that are none of the store's own; it
// does not list them.
const probePrefix = ".lifeboat-probe-"

var probeData = []byte("a probe of If-None-Match; may be removed\n")

// support of If-None-Match by a server.
type support int

const (
	unknown support = iota
	honoured
	ignored
)

// probe is a request that may take a condition.
type probe struct {
	known func(*Store) *support
	again func(ctx context.Context, w *write, ifNoneMatch *string) error // writes what is there already
}

var (
	probePut  = probe{func(s *Store) *support { return &s.putCond }, putAgain}
	probeJoin = probe{func(s *Store) *support { return &s.joinCond }, joinAgain}
)

// honours tells whether the server heeds the condition with a request.
func (s *Store) honours(ctx context.Context, p probe) (bool, error) {
	if s.amazon {
		return true, nil
	}
	s.probing.Lock()
	defer s.probing.Unlock()
	known := p.known(s)
	if *known == unknown {
		found, err := s.tryCondition(ctx, p)
		if err != nil {
			return false, s.fail(ctx, opProbe, probePrefix, err)
		}
		*known = found
	}
	return *known == honoured, nil
}

// tryCondition puts an object, and again on the condition that it isn't there.
func (s *Store) tryCondition(ctx context.Context, p probe) (support, error) {
	key := probePrefix + rand.Text()
	first, second := &write{s: s, key: key, token: rand.Text()}, &write{s: s, key: key, token: rand.Text()}
	if err := first.putObject(ctx, probeData, nil); err != nil {
		return unknown, err
	}
	err := p.again(ctx, second, aws.String("*"))
	after, cancel := s.afterwards(ctx)
	defer cancel()
	cleanErr := s.remove(after, key)
	if status(cleanErr) == http.StatusForbidden { // keys that may only add
		cleanErr = nil
	}
	switch {
	case err == nil:
		return ignored, cleanErr
	case status(err) == http.StatusPreconditionFailed:
		return honoured, cleanErr
	case status(err) == http.StatusNotImplemented, status(err) == http.StatusBadRequest:
		return ignored, cleanErr
	}
	return unknown, errors.Join(err, cleanErr)
}

func putAgain(ctx context.Context, w *write, ifNoneMatch *string) error {
	return w.putObject(ctx, probeData, ifNoneMatch)
}

func joinAgain(ctx context.Context, w *write, ifNoneMatch *string) error {
	u, err := w.begin(ctx)
	if err != nil {
		return err
	}
	u.count(probeData)
	err = u.sendPart(ctx, 1, probeData)
	if err == nil {
		err = u.join(ctx, ifNoneMatch)
	}
	if err != nil {
		err = u.abort(ctx, err)
	}
	return err
}

func isProbe(key string) bool { return strings.HasPrefix(key, probePrefix) }

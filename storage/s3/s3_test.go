package s3

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// quick are limits for tests in which a server misbehaves.
func quick() limits {
	return limits{
		dial: 5 * time.Second, stall: 2 * time.Second, patience: 4 * time.Second,
		parts: maxParts, tries: 5, early: 2, backoff: 300 * time.Millisecond, settle: 50 * time.Millisecond, cleanup: 5 * time.Second,
	}
}

// on are options for a server, with nothing below the prefix.
func on(server *s3server.Server, prefix string) Options {
	return Options{Bucket: s3server.Bucket, Prefix: prefix, Endpoint: server.Endpoint(), PathStyle: true, CAFile: server.CAFile()}
}

func mustOpen(t testing.TB, o Options, l limits) *Store {
	t.Helper()
	s, err := open(context.Background(), o, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reopened is a store that opens again as another process would.
type reopened struct{ *Store }

func (r reopened) Reopen(t *testing.T) storage.Store { return mustOpen(t, r.o, r.limits) }

func TestStore(t *testing.T) {
	for name, o := range map[string]s3server.Options{
		"plain": {},
		"TLS":   {TLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := s3server.Start(t, o)
			server.Setenv(t)
			var places atomic.Int64
			storagetest.Run(t, func(t *testing.T) storage.Store {
				return reopened{mustOpen(t, on(server, fmt.Sprintf("place/%d", places.Add(1))), defaultLimits())}
			})
		})
	}
}

package s3

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

func TestVersions(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	for name, data := range map[string][]byte{"small": noise(10), "large": noise(15 << 20)} {
		t.Run(name, func(t *testing.T) {
			createOnly := storage.PutOptions{CreateOnly: true}
			for range 2 { // the second time there is a delete marker
				if err := put(s, name, data, createOnly); err != nil {
					t.Fatal(err)
				}
				wantData(t, s, name, data)
				if err := put(s, name, data, createOnly); !errors.Is(err, storage.ErrExist) {
					t.Errorf("create again: %v, want ErrExist", err)
				}
				if err := s.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				wantAbsent(t, s, name)
			}
		})
	}
	for obj, err := range s.List(t.Context(), "") {
		t.Errorf("listed %+v, %v", obj, err)
	}
}

// lockOf asks the server itself.
func lockOf(t *testing.T, server *s3server.Server, key string) (types.ObjectLockRetentionMode, time.Time) {
	t.Helper()
	bucket := s3server.Bucket
	out, err := server.Client().GetObjectRetention(context.Background(), &awss3.GetObjectRetentionInput{Bucket: &bucket, Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	return out.Retention.Mode, *out.Retention.RetainUntilDate
}

func TestLock(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	for _, mode := range []string{Governance, Compliance} {
		t.Run(mode, func(t *testing.T) {
			o := on(server, mode)
			o.ObjectLock, o.LockFor = mode, time.Hour
			testLock(t, server, mustOpen(t, o, quick()))
		})
	}
}

func testLock(t *testing.T, server *s3server.Server, s *Store) {
	want := types.ObjectLockRetentionMode(strings.ToUpper(s.o.ObjectLock))
	for name, data := range map[string][]byte{"small": noise(10), "large": noise(15 << 20)} {
		if err := put(s, name, data, storage.PutOptions{CreateOnly: true}); err != nil {
			t.Fatal(err)
		}
		mode, until := lockOf(t, server, s.prefix+name)
		if mode != want || time.Until(until) < 59*time.Minute {
			t.Errorf("%s is locked by %s until %v, want %s for an hour", name, mode, until, want)
		}
		if told, err := s.LockedUntil(t.Context(), name); err != nil || !told.Equal(until) {
			t.Errorf("%s is said to be locked until %v, %v, want %v", name, told, err, until)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, storage.ErrRetained) {
			t.Errorf("delete %s: %v, want ErrRetained", name, err)
		}
		wantData(t, s, name, data)
	}
	later := time.Now().Add(48*time.Hour + 1)
	for _, until := range []time.Time{later, time.Now().Add(time.Minute)} { // the second changes nothing
		if err := s.Retain(t.Context(), "small", until); err != nil {
			t.Fatal(err)
		}
		if mode, got := lockOf(t, server, s.prefix+"small"); mode != want || got.Before(later) || got.After(later.Add(time.Second)) {
			t.Errorf("locked by %s until %v, want %s until %v", mode, got, want, later)
		}
	}
	if err := s.Retain(t.Context(), "missing", later); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("retain what is missing: %v, want ErrNotExist", err)
	}
	if _, err := s.LockedUntil(t.Context(), "missing"); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("the lock of what is missing: %v, want ErrNotExist", err)
	}
}

// TestRetainAlone locks nothing with Put, but what Retain is called for.
func TestRetainAlone(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	plain := mustOpen(t, on(server, "p"), quick())
	o := on(server, "p")
	o.ObjectLock = Governance
	locking := mustOpen(t, o, quick())
	o.ObjectLock = Compliance
	stricter := mustOpen(t, o, quick())

	if err := put(locking, "a", noise(10), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	if err := plain.Retain(t.Context(), "a", until); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("retain without a mode: %v, want ErrUnsupported", err)
	}
	for _, step := range []struct {
		s     *Store
		until time.Time
		mode  types.ObjectLockRetentionMode
		want  time.Time
	}{
		{locking, until, "GOVERNANCE", until},
		{plain, until.Add(time.Hour), "GOVERNANCE", until.Add(time.Hour)},
		{stricter, until, "GOVERNANCE", until.Add(time.Hour)},
		{stricter, until.Add(2 * time.Hour), "GOVERNANCE", until.Add(2 * time.Hour)},
	} {
		if err := step.s.Retain(t.Context(), "a", step.until); err != nil {
			t.Fatal(err)
		}
		if mode, got := lockOf(t, server, "p/a"); mode != step.mode || !got.Equal(step.want) {
			t.Errorf("locked by %s until %v, want %s until %v", mode, got, step.mode, step.want)
		}
	}
	if err := plain.Delete(t.Context(), "a"); !errors.Is(err, storage.ErrRetained) {
		t.Errorf("delete: %v, want ErrRetained", err)
	}
}

func TestLegalHold(t *testing.T) {
	server := s3server.Start(t, s3server.Options{Lock: true})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	if err := put(s, "a", noise(10), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	bucket, key := s3server.Bucket, "p/a"
	hold := func(status types.ObjectLockLegalHoldStatus) {
		_, err := server.Client().PutObjectLegalHold(t.Context(), &awss3.PutObjectLegalHoldInput{
			Bucket: &bucket, Key: &key, LegalHold: &types.ObjectLockLegalHold{Status: status},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	hold(types.ObjectLockLegalHoldStatusOn)
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, storage.ErrRetained) {
		t.Errorf("delete: %v, want ErrRetained", err)
	}
	if _, err := s.LockedUntil(t.Context(), "a"); !errors.Is(err, storage.ErrRetained) {
		t.Errorf("the end of the lock: %v, want ErrRetained", err)
	}
	hold(types.ObjectLockLegalHoldStatusOff)
	if until, err := s.LockedUntil(t.Context(), "a"); err != nil || !until.IsZero() {
		t.Errorf("without a lock: locked until %v, %v", until, err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

// TestLockOfABucketWithout says what is missing.
func TestLockOfABucketWithout(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	o := on(server, "p")
	o.ObjectLock, o.LockFor = Governance, time.Hour
	s := mustOpen(t, o, quick())
	err := put(s, "a", noise(10), storage.PutOptions{})
	if err == nil || !strings.Contains(err.Error(), "was not made with object lock") {
		t.Errorf("put: %v, want object lock told", err)
	}
}

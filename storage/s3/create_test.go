package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// forget takes the condition from requests of that kind, and signs them again.
func forget(kind func(*http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("If-None-Match") == "" || !kind(r) {
			return false
		}
		r.Header.Del("If-None-Match")
		keys := aws.Credentials{AccessKeyID: s3server.AccessKey, SecretAccessKey: s3server.SecretKey}
		err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
			SignHTTP(r.Context(), keys, r, r.Header.Get("X-Amz-Content-Sha256"), "s3", s3server.Region, time.Now())
		if err != nil {
			panic(err)
		}
		return false
	}
}

func refuseCondition(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("If-None-Match") == "" {
		return false
	}
	sayError(w, http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented")
	return true
}

// TestCreateWithoutConditions asks servers that know less of conditions than
// Amazon.
func TestCreateWithoutConditions(t *testing.T) {
	for name, ask := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"ignored":              forget(func(*http.Request) bool { return true }),
		"ignored with parts":   forget(isJoin),
		"ignored without them": forget(isPut),
		"refused":              refuseCondition,
	} {
		t.Run(name, func(t *testing.T) {
			s, m, server := behind(t, s3server.Options{})
			m.set(ask, nil)
			for key, data := range map[string][]byte{"small": noise(1000), "large": noise(15 << 20)} {
				if err := put(s, key, data, storage.PutOptions{CreateOnly: true}); err != nil {
					t.Fatal(err)
				}
				if err := put(s, key, data[1:], storage.PutOptions{CreateOnly: true}); !errors.Is(err, storage.ErrExist) {
					t.Errorf("create %s again: %v, want ErrExist", key, err)
				}
				wantData(t, s, key, data)
			}
			wantNoProbe(t, server)
			if n := uploads(t, server); n != 0 {
				t.Errorf("%d uploads left", n)
			}
		})
	}
}

// TestCreateAtOnceWithoutConditions lets writers race whose looks and writes
// all fall within the time after which they read back.
func TestCreateAtOnceWithoutConditions(t *testing.T) {
	const writers = 5
	s, m, _ := behind(t, s3server.Options{})
	m.set(forget(func(*http.Request) bool { return true }), nil)
	s.limits.settle = 2 * time.Second
	if err := put(s, "warm", noise(10), storage.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
	var won atomic.Int32
	var users sync.WaitGroup
	for i := range writers {
		users.Go(func() {
			err := put(s, "race", fmt.Append(nil, "writer ", i), storage.PutOptions{CreateOnly: true})
			if err == nil {
				won.Store(int32(i + 1))
			} else if !errors.Is(err, storage.ErrExist) {
				t.Error(err)
			}
		})
	}
	users.Wait()
	if won.Load() == 0 {
		t.Fatal("nobody won")
	}
	wantData(t, s, "race", fmt.Append(nil, "writer ", won.Load()-1))
}

func wantNoProbe(t *testing.T, server *s3server.Server) {
	t.Helper()
	bucket := s3server.Bucket
	out, err := server.Client().ListObjectsV2(context.Background(), &awss3.ListObjectsV2Input{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		if strings.Contains(*o.Key, "probe") {
			t.Errorf("%s was left", *o.Key)
		}
	}
}

// TestProbe wants one probe a store, no trace of it, and nothing learnt from
// one that failed.
func TestProbe(t *testing.T) {
	s, m, server := behind(t, s3server.Options{})
	probes := 0
	m.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, probePrefix) || r.Header.Get("If-None-Match") == "" {
			return false
		}
		probes++
		if probes == 1 {
			sayError(w, http.StatusForbidden, "AccessDenied", "a test says so")
		}
		return probes == 1
	}, nil)
	for i, want := range []error{storage.ErrDenied, nil, storage.ErrExist} {
		if err := put(s, "a", noise(10), storage.PutOptions{CreateOnly: true}); !errors.Is(err, want) {
			t.Errorf("create %d: %v, want %v", i, err, want)
		}
	}
	if probes != 2 {
		t.Errorf("%d probes, want 2", probes)
	}
	wantNoProbe(t, server)
}

// TestProbeByKeysThatMayOnlyAdd leaves the probe, and works.
func TestProbeByKeysThatMayOnlyAdd(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	m.set(refuse(1000, 403, "AccessDenied", func(r *http.Request) bool { return r.Method == http.MethodDelete }), nil)
	for i, want := range []error{nil, storage.ErrExist} {
		if err := put(s, "a", noise(10), storage.PutOptions{CreateOnly: true}); !errors.Is(err, want) {
			t.Errorf("create %d: %v, want %v", i, err, want)
		}
	}
}

// TestProbeIsLeft has a process die between its probe and the removal.
func TestProbeIsLeft(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	w := &write{s: s, key: probePrefix + "X"}
	if err := w.putObject(t.Context(), probeData, nil); err != nil {
		t.Fatal(err)
	}
	for obj, err := range s.List(t.Context(), "") {
		t.Errorf("listed %+v, %v", obj, err)
	}
	for _, test := range []struct {
		prefix string
		before time.Time
		want   int
	}{
		{"", time.Now().Add(-time.Hour), 0},
		{"clusters", time.Now().Add(time.Hour), 0},
		{"", time.Now().Add(time.Hour), 1},
	} {
		if n, err := s.Sweep(t.Context(), test.prefix, test.before); n != test.want || err != nil {
			t.Errorf("sweep %q: %d, %v, want %d", test.prefix, n, err, test.want)
		}
	}
	wantNoProbe(t, server)
}

package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// noise is as hard to compress as what is stored, and the same each time.
func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

func put(s *Store, key string, data []byte, o storage.PutOptions) error {
	_, err := s.Put(context.Background(), key, bytes.NewReader(data), o)
	return err
}

func read(s *Store, key string, r storage.Range) ([]byte, error) {
	body, err := s.Get(context.Background(), key, r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func wantData(t *testing.T, s *Store, key string, want []byte) {
	t.Helper()
	got, err := read(s, key, storage.Range{})
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: read %d bytes, not the %d written", key, len(got), len(want))
	}
}

func wantAbsent(t *testing.T, s *Store, key string) {
	t.Helper()
	if _, err := s.Stat(context.Background(), key); !errors.Is(err, storage.ErrNotExist) {
		t.Errorf("stat %s: %v, want ErrNotExist", key, err)
	}
}

// uploads counts what multipart uploads left on the server.
func uploads(t *testing.T, server *s3server.Server) int {
	t.Helper()
	bucket := s3server.Bucket
	out, err := server.Client().ListMultipartUploads(context.Background(), &awss3.ListMultipartUploadsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	return len(out.Uploads)
}

// behind is a store that reaches its server through a meddler.
func behind(t *testing.T, o s3server.Options) (*Store, *meddler, *s3server.Server) {
	t.Helper()
	server := s3server.Start(t, o)
	server.Setenv(t)
	m := meddle(t, server)
	options := on(server, "p")
	options.Endpoint = m.url
	return mustOpen(t, options, quick()), m, server
}

func TestLostAnswers(t *testing.T) {
	s, m, server := behind(t, s3server.Options{})
	small, large := noise(1000), noise(20<<20)
	createOnly := storage.PutOptions{CreateOnly: true}
	for _, data := range [][]byte{small, large} { // learn about the server
		if err := put(s, "warm/"+noiseName(data), data, createOnly); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		kind func(*http.Request) bool
		n    int
		data []byte
		o    storage.PutOptions
	}{
		{"create a small one", isPut, 1, small, createOnly},
		{"create a small one, twice lost", isPut, 2, small, createOnly},
		{"create a large one", isJoin, 1, large, createOnly},
		{"replace with a large one", isJoin, 1, large, storage.PutOptions{}},
		{"parts", isPart, 3, large, createOnly},
		{"begin of an upload", isBegin, 1, large, createOnly},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := strings.ReplaceAll(strings.ReplaceAll(test.name, " ", "-"), ",", "")
			m.set(nil, loseFirst(test.n, test.kind))
			if err := put(s, key, test.data, test.o); err != nil {
				t.Fatal(err)
			}
			m.set(nil, nil)
			wantData(t, s, key, test.data)
			if err := put(s, key, test.data, createOnly); !errors.Is(err, storage.ErrExist) {
				t.Errorf("create again: %v, want ErrExist", err)
			}
		})
	}
	if n := uploads(t, server); n > 1 { // the one whose id was lost
		t.Errorf("%d uploads left, want 1 at most", n)
	}
}

func isBegin(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploads")
}

func noiseName(data []byte) string {
	if len(data) > 1<<20 {
		return "large"
	}
	return "small"
}

func TestRetries(t *testing.T) {
	s, m, server := behind(t, s3server.Options{})
	data := noise(20 << 20)
	for _, test := range []struct {
		name   string
		status int
		code   string
		kind   func(*http.Request) bool
	}{
		{"part", 503, "SlowDown", isPart},
		{"join", 500, "InternalError", isJoin},
		{"arrived-damaged", 400, "BadDigest", isPart},
		{"conflict", 409, "ConditionalRequestConflict", isJoin},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.set(refuse(2, test.status, test.code, test.kind), nil)
			if err := put(s, test.name, data, storage.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			m.set(nil, nil)
			wantData(t, s, test.name, data)
		})
	}
	t.Run("in vain", func(t *testing.T) {
		m.set(refuse(1000, 503, "SlowDown", isPart), nil)
		defer m.set(nil, nil)
		if err := put(s, "never", data, storage.PutOptions{}); !errors.Is(err, storage.ErrUnreachable) {
			t.Errorf("put: %v, want ErrUnreachable", err)
		}
		wantAbsent(t, s, "never")
		if n := uploads(t, server); n != 0 {
			t.Errorf("%d uploads left", n)
		}
	})
}

// TestDamageOnTheWay flips a bit of what is sent: the server refuses it, and it
// is sent again.
func TestDamageOnTheWay(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	for name, data := range map[string][]byte{"small": noise(1000), "large": noise(20 << 20)} {
		t.Run(name, func(t *testing.T) {
			left := 2
			m.set(func(_ http.ResponseWriter, r *http.Request) bool {
				if left > 0 && r.Method == http.MethodPut {
					left--
					r.Body = &flipped{ReadCloser: r.Body, at: 500}
				}
				return false
			}, nil)
			if err := put(s, name, data, storage.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			if left != 0 {
				t.Errorf("%d of 2 flips left", left)
			}
			m.set(nil, nil)
			wantData(t, s, name, data)
		})
	}
}

// flipped flips a bit of the byte at an offset.
type flipped struct {
	io.ReadCloser
	at int
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at] ^= 1
	}
	f.at -= n
	return n, err
}

func TestNothingIsLeft(t *testing.T) {
	s, m, server := behind(t, s3server.Options{})
	broken := errors.New("the snapshot broke off")
	t.Run("body fails", func(t *testing.T) {
		body := io.MultiReader(bytes.NewReader(noise(20<<20)), failing{broken})
		_, err := s.Put(t.Context(), "a", body, storage.PutOptions{})
		if !errors.Is(err, broken) || errors.Is(err, storage.ErrUnreachable) {
			t.Errorf("put: %v, want the body's error", err)
		}
	})
	t.Run("context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		body := io.MultiReader(bytes.NewReader(noise(20<<20)), calling{cancel}, bytes.NewReader(noise(20<<20)))
		if _, err := s.Put(ctx, "a", body, storage.PutOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("put: %v, want context.Canceled", err)
		}
	})
	t.Run("too many parts", func(t *testing.T) {
		s := mustOpen(t, s.o, quick())
		s.limits.parts = 2
		if err := put(s, "fits", noise(2*defaultPartSize), storage.PutOptions{}); err != nil {
			t.Errorf("put of 2 parts of 2: %v", err)
		}
		err := put(s, "a", noise(2*defaultPartSize+1), storage.PutOptions{})
		if err == nil || !strings.Contains(err.Error(), "give a larger part size") {
			t.Errorf("put of 3 parts of 2: %v", err)
		}
	})
	t.Run("refused part", func(t *testing.T) {
		m.set(refuse(1, 403, "AccessDenied", isPart), nil)
		defer m.set(nil, nil)
		if err := put(s, "a", noise(20<<20), storage.PutOptions{}); !errors.Is(err, storage.ErrDenied) {
			t.Errorf("put: %v, want ErrDenied", err)
		}
	})
	t.Run("taken", func(t *testing.T) {
		if err := put(s, "taken", noise(10), storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := put(s, "taken", noise(20<<20), storage.PutOptions{CreateOnly: true}); !errors.Is(err, storage.ErrExist) {
			t.Errorf("put: %v, want ErrExist", err)
		}
	})
	wantAbsent(t, s, "a")
	if n := uploads(t, server); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type calling struct{ f func() }

func (c calling) Read([]byte) (int, error) {
	c.f()
	return 0, io.EOF
}

// TestTakenMeanwhile has another writer win while the parts are sent.
func TestTakenMeanwhile(t *testing.T) {
	s, _, server := behind(t, s3server.Options{})
	body := io.MultiReader(bytes.NewReader(noise(20<<20)), calling{func() {
		if err := put(s, "a", []byte("first"), storage.PutOptions{CreateOnly: true}); err != nil {
			t.Error(err)
		}
	}})
	if _, err := s.Put(t.Context(), "a", body, storage.PutOptions{CreateOnly: true}); !errors.Is(err, storage.ErrExist) {
		t.Errorf("put: %v, want ErrExist", err)
	}
	wantData(t, s, "a", []byte("first"))
	if n := uploads(t, server); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

// TestServerRestartsDuringUpload kills the server again and again in the middle
// of one upload.
func TestServerRestartsDuringUpload(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	l := quick()
	l.tries = 20
	s := mustOpen(t, on(server, "p"), l)
	data := noise(60 << 20)
	var body io.Reader = strings.NewReader("")
	for at := 0; at < len(data); at += 20 << 20 {
		body = io.MultiReader(body, bytes.NewReader(data[at:at+20<<20]), calling{func() {
			server.Kill()
			time.AfterFunc(300*time.Millisecond, server.Restart)
			time.Sleep(100 * time.Millisecond)
		}})
	}
	if _, err := s.Put(t.Context(), "a", body, storage.PutOptions{CreateOnly: true}); err != nil {
		t.Fatal(err)
	}
	wantData(t, s, "a", data)
	if n := uploads(t, server); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

// TestServerStaysDown leaves an upload that only Sweep can remove.
func TestServerStaysDown(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	body := io.MultiReader(bytes.NewReader(noise(30<<20)), calling{server.Kill}, bytes.NewReader(noise(30<<20)))
	if _, err := s.Put(t.Context(), "deep/a", body, storage.PutOptions{}); !errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("put: %v, want ErrUnreachable", err)
	}
	server.Restart()
	wantAbsent(t, s, "deep/a")
	for _, test := range []struct {
		prefix string
		before time.Time
		want   int
	}{
		{"", time.Now().Add(-time.Hour), 0},
		{"elsewhere", time.Now().Add(time.Hour), 0},
		{"deep", time.Now().Add(time.Hour), 1},
		{"", time.Now().Add(time.Hour), 0},
	} {
		n, err := s.Sweep(t.Context(), test.prefix, test.before)
		if err != nil || n != test.want {
			t.Errorf("sweep %q: %d, %v, want %d", test.prefix, n, err, test.want)
		}
	}
	if n := uploads(t, server); n != 0 {
		t.Errorf("%d uploads left", n)
	}
}

// TestServerFallsSilent freezes the server in the middle of a part.
func TestServerFallsSilent(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	l := quick()
	l.tries, l.cleanup = 1, time.Second
	s := mustOpen(t, on(server, "p"), l)
	body := io.MultiReader(bytes.NewReader(noise(30<<20)), calling{server.Freeze}, bytes.NewReader(noise(30<<20)))
	began := time.Now()
	_, err := s.Put(t.Context(), "a", body, storage.PutOptions{})
	if !errors.Is(err, storage.ErrUnreachable) || !strings.Contains(err.Error(), "it was silent for 2s") {
		t.Errorf("put: %v, want ErrUnreachable for silence", err)
	}
	if took := time.Since(began); took > 3*l.stall+l.cleanup {
		t.Errorf("noticed after %v, with a limit of %v", took, l.stall)
	}
	server.Thaw()
}

// TestSlowUploadIsNoStall sends for longer than a server may be silent.
func TestSlowUploadIsNoStall(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	m.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			r.Body = slow{r.Body}
		}
		return false
	}, nil)
	s.limits.tries = 1
	if err := put(s, "a", noise(6<<20), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// slow lets 2 MiB a second through.
type slow struct{ io.ReadCloser }

func (s slow) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p[:min(len(p), 128<<10)])
	time.Sleep(time.Second * time.Duration(n) / (2 << 20))
	return n, err
}

// TestBadNetwork wants every promise kept while requests and answers get lost.
func TestBadNetwork(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	m := meddle(t, server)
	random := rand.New(rand.NewPCG(1, 2))
	m.set(func(w http.ResponseWriter, r *http.Request) bool {
		if random.IntN(20) == 0 {
			sayError(w, 503, "SlowDown", "a test says so")
			return true
		}
		return false
	}, func(*http.Response) error {
		if random.IntN(20) == 0 {
			return errLost
		}
		return nil
	})
	l := quick()
	l.tries, l.early, l.backoff = 20, 20, 20*time.Millisecond
	places := 0
	storagetest.Run(t, func(t *testing.T) storage.Store {
		places++
		o := on(server, "place/"+string(rune('a'+places%26))+string(rune('a'+places/26)))
		o.Endpoint = m.url
		return reopened{mustOpen(t, o, l)}
	})
}

// TestMemory samples the heap while a large object of unknown length is put.
func TestMemory(t *testing.T) {
	const size = int64(512 << 20)
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), defaultLimits())
	runtime.GC()
	runtime.GC() // what other tests left in pools
	body := &sampled{left: size}
	if _, err := s.Put(t.Context(), "large", body, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if limit := uint64(40 << 20); body.peak > limit {
		t.Errorf("%d MiB of heap in use, want %d at most", body.peak>>20, limit>>20)
	}
	if obj, err := s.Stat(t.Context(), "large"); err != nil || obj.Size != size {
		t.Errorf("stat: %+v, %v, want %d bytes", obj, err, size)
	}
	t.Logf("peak %d MiB", body.peak>>20)
}

// sampled reads left bytes, and looks at the heap meanwhile.
type sampled struct {
	left  int64
	reads int
	peak  uint64
}

func (s *sampled) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if s.reads%16 == 0 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		s.peak = max(s.peak, stats.HeapInuse)
	}
	s.reads++
	n := int(min(int64(len(p)), s.left, 256<<10))
	s.left -= int64(n)
	return n, nil
}

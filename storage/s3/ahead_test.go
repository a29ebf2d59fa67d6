package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// shelf is a server that has the same object under each key.
type shelf struct {
	data []byte
	// ask is called before each answer to a Get, by many goroutines.
	ask func(r *http.Request)

	mu     sync.Mutex
	etag   string
	ranges []string // asked for; "" is the whole
	client map[string]bool
}

func newShelf(t *testing.T, size int) (*shelf, Options) {
	t.Helper()
	setKeys(t)
	s := &shelf{data: noise(size), ask: func(*http.Request) {}, etag: `"one"`, client: map[string]bool{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, Options{Bucket: "b", Prefix: "p", Endpoint: server.URL, PathStyle: true}
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("list-type") {
		_, _ = io.WriteString(w, listing(false, ""))
		return
	}
	s.mu.Lock()
	s.ranges = append(s.ranges, r.Header.Get("Range"))
	s.client[r.RemoteAddr] = true
	s.mu.Unlock()
	s.ask(r)
	s.mu.Lock()
	w.Header().Set("Etag", s.etag)
	s.mu.Unlock()
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.data))
}

// gets are the ranges asked for so far, and how many connections it took.
func (s *shelf) gets() (ranges []string, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.ranges), len(s.client)
}

func (s *shelf) replace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.etag = `"two"`
}

// TestGetFetchesAhead answers no range before all are asked for that should be
// under way at once.
func TestGetFetchesAhead(t *testing.T) {
	const parts = 10
	shelf, o := newShelf(t, parts*minPartSize-1000)
	o.PartSize, o.Concurrency = minPartSize, 4
	want := o.Concurrency * lanes
	var mu sync.Mutex
	waiting, full := 0, make(chan struct{})
	shelf.ask = func(r *http.Request) {
		if r.Header.Get("Range") == "" {
			return
		}
		mu.Lock()
		if waiting++; waiting == want {
			close(full)
		}
		mu.Unlock()
		select {
		case <-full:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: only %d ranges were under way", r.Header.Get("Range"), waiting)
		}
	}
	s := mustOpen(t, o, quick())
	wantData(t, s, "a", shelf.data)
	ranges, connections := shelf.gets()
	if requests := 1 + lanes*(parts-1); len(ranges) != requests || connections > want+1 {
		t.Errorf("it took %d requests over %d connections, want %d over %d: %q", len(ranges), connections, requests, want+1, ranges)
	}
	if n := len(s.buffers.slots) + len(s.buffers.reads); n != 0 || s.buffers.free != nil {
		t.Errorf("buffers are left: %d", n)
	}
}

// TestGetOverOneConnection wants one request where reading ahead does not pay.
func TestGetOverOneConnection(t *testing.T) {
	for name, test := range map[string]struct {
		size      int
		r         storage.Range
		oneStream bool
	}{
		"small":                {1000, storage.Range{}, false},
		"two parts":            {2 * defaultPartSize, storage.Range{}, false},
		"a piece of a large":   {5 * defaultPartSize, storage.Range{Offset: 7, Length: 2 * defaultPartSize}, false},
		"the end of a large":   {5 * defaultPartSize, storage.Range{Offset: 3 * defaultPartSize}, false},
		"a large one, limited": {5 * defaultPartSize, storage.Range{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			shelf, o := newShelf(t, test.size)
			o.OneStream = test.oneStream
			got, err := read(mustOpen(t, o, quick()), "a", test.r)
			at, length, _ := test.r.Within(int64(test.size))
			if err != nil || !bytes.Equal(got, shelf.data[at:at+length]) {
				t.Errorf("read %d bytes, %v, want %d", len(got), err, length)
			}
			if ranges, _ := shelf.gets(); len(ranges) != 1 {
				t.Errorf("it took %d requests: %q", len(ranges), ranges)
			}
		})
	}
}

// TestGetInPieces reads ranges of all kinds, as they come and a byte at a time.
func TestGetInPieces(t *testing.T) {
	const part = minPartSize
	shelf, o := newShelf(t, 4*part+5)
	o.PartSize = part
	s := mustOpen(t, o, quick())
	for _, r := range []storage.Range{
		{}, {Offset: 1}, {Offset: part}, {Offset: 3, Length: 3 * part}, {Offset: part - 1, Length: 3*part + 6}, {Offset: part, Length: 1 << 40},
	} {
		body, err := s.Get(t.Context(), "a", r)
		if err != nil {
			t.Fatal(err)
		}
		at, length, _ := r.Within(int64(len(shelf.data)))
		if err := iotest.TestReader(body, shelf.data[at:at+length]); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if err := body.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGetWithoutBuffers has a reader that stands still, with all buffers that
// readers may have. Others read and write all the same.
func TestGetWithoutBuffers(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	data := noise(40 << 20)
	if err := put(s, "a", data, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	idle, err := s.Get(t.Context(), "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if n := len(s.buffers.reads); n != defaultConcurrency {
		t.Errorf("%d parts are fetched ahead, want %d", n, defaultConcurrency)
	}
	wantData(t, s, "a", data)
	if err := put(s, "b", data, storage.PutOptions{}); err != nil {
		t.Error(err)
	}
	wantData(t, s, "b", data)
	if got, err := io.ReadAll(idle); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(data))
	}
}

// TestGetIsStopped ends a Get whose ranges do not come.
func TestGetIsStopped(t *testing.T) {
	ends := errors.New("enough")
	for name, stop := range map[string]func(cancel context.CancelCauseFunc, body io.ReadCloser) error{
		"by Close": func(_ context.CancelCauseFunc, body io.ReadCloser) error { return body.Close() },
		"by its context": func(cancel context.CancelCauseFunc, body io.ReadCloser) error {
			cancel(ends)
			if _, err := io.Copy(io.Discard, body); !errors.Is(err, ends) {
				t.Errorf("read: %v, want %v", err, ends)
			}
			return body.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			shelf, o := newShelf(t, 40<<20)
			asked := make(chan struct{}, 10)
			shelf.ask = func(r *http.Request) {
				if r.Header.Get("Range") != "" {
					asked <- struct{}{}
					<-r.Context().Done()
				}
			}
			s := mustOpen(t, o, defaultLimits())
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			body, err := s.Get(ctx, "a", storage.Range{})
			if err != nil {
				t.Fatal(err)
			}
			for range defaultConcurrency * lanes {
				<-asked
			}
			began := time.Now()
			if err := stop(cancel, body); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > s.limits.stall/2 {
				t.Errorf("it took %v", took)
			}
			if n := len(s.buffers.slots); n != 0 {
				t.Errorf("%d buffers are not given back", n)
			}
			if _, err := body.Read(make([]byte, 1)); err == nil {
				t.Error("read after Close: no error")
			}
		})
	}
}

// TestGetOfALargeObjectReplacedMeanwhile never mixes two versions, whether the
// server looks at If-Match or not.
func TestGetOfALargeObjectReplacedMeanwhile(t *testing.T) {
	for name, deaf := range map[string]bool{"If-Match honoured": false, "If-Match ignored": true} {
		t.Run(name, func(t *testing.T) {
			shelf, o := newShelf(t, 50<<20)
			shelf.ask = func(r *http.Request) {
				if deaf {
					r.Header.Del("If-Match")
				}
			}
			s := mustOpen(t, o, quick())
			body, err := s.Get(t.Context(), "a", storage.Range{})
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if _, err := io.CopyN(io.Discard, body, 1000); err != nil {
				t.Fatal(err)
			}
			shelf.replace()
			if _, err := io.Copy(io.Discard, body); err == nil || !strings.Contains(err.Error(), "replaced while it was read") {
				t.Errorf("read: %v, want the replacement told", err)
			}
		})
	}
}

// TestGetOfAnObjectRemovedMeanwhile has it removed between two pieces.
func TestGetOfAnObjectRemovedMeanwhile(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	data := noise(50 << 20)
	if err := put(s, "a", data, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	body, err := s.Get(t.Context(), "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if !errors.Is(err, storage.ErrNotExist) || !bytes.Equal(got, data[:len(got)]) {
		t.Errorf("read %d bytes, %v, want ErrNotExist", len(got), err)
	}
}

// TestWholeSum takes the sums of "123456789", which the catalogues of CRCs name.
func TestWholeSum(t *testing.T) {
	of := func(digits string) *string {
		sum, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		text := base64.StdEncoding.EncodeToString(sum)
		return &text
	}
	parts := "4waSgw==-3"
	for name, test := range map[string]struct {
		out  awss3.GetObjectOutput
		none bool
	}{
		"CRC-32C":       {out: awss3.GetObjectOutput{ChecksumCRC32C: of("e3069283"), ChecksumType: types.ChecksumTypeFullObject}},
		"CRC-32":        {out: awss3.GetObjectOutput{ChecksumCRC32: of("cbf43926")}},
		"CRC-64":        {out: awss3.GetObjectOutput{ChecksumCRC64NVME: of("ae8b14860a799888")}},
		"SHA-1":         {out: awss3.GetObjectOutput{ChecksumSHA1: of("f7c3bc1d808e04732adf679965ccc34ca7ae3441")}},
		"SHA-256":       {out: awss3.GetObjectOutput{ChecksumSHA256: of("15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225")}},
		"none":          {none: true},
		"of the parts":  {out: awss3.GetObjectOutput{ChecksumCRC32C: &parts}, none: true},
		"said to be so": {out: awss3.GetObjectOutput{ChecksumCRC32C: of("e3069283"), ChecksumType: types.ChecksumTypeComposite}, none: true},
	} {
		t.Run(name, func(t *testing.T) {
			sum := wholeSum(&test.out)
			if (sum == nil) != test.none {
				t.Fatalf("a sum to compare with: %v, want %v", sum != nil, !test.none)
			}
			sum.write([]byte("12345"))
			if err := sum.check(); err == nil && !test.none {
				t.Error("a part of it passes for all")
			}
			sum.write([]byte("6789"))
			if err := sum.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

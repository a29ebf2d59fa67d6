package s3

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/s3server"
	"github.com/etcd-lifeboat/lifeboat/storage"
)

// cut is a body that breaks off after some bytes.
type cut struct {
	io.ReadCloser
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errLost
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// cutGets breaks off the first n bodies of Gets after some bytes.
func cutGets(n, after int) func(*http.Response) error {
	return func(resp *http.Response) error {
		if n > 0 && isGet(resp.Request) && resp.StatusCode < 300 {
			n--
			resp.Body = &cut{resp.Body, after}
		}
		return nil
	}
}

func TestGetGoesOn(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	small, large := noise(300<<10), noise(20<<20)
	for key, data := range map[string][]byte{"small": small, "large": large} {
		if err := put(s, key, data, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		key  string
		r    storage.Range
		n    int
		want []byte
	}{
		{"whole", "small", storage.Range{}, 2, small},
		{"whole, many times", "large", storage.Range{}, 15, large},
		{"from an offset", "large", storage.Range{Offset: 1 << 20}, 3, large[1<<20:]},
		{"a piece", "large", storage.Range{Offset: 7, Length: 5 << 20}, 3, large[7 : 7+5<<20]},
		{"a piece beyond the end", "small", storage.Range{Offset: 100 << 10, Length: 1 << 30}, 2, small[100<<10:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.set(nil, cutGets(test.n, 64<<10))
			defer m.set(nil, nil)
			got, err := read(s, test.key, test.r)
			if err != nil || !bytes.Equal(got, test.want) {
				t.Errorf("read %d bytes, %v, want %d", len(got), err, len(test.want))
			}
		})
	}
	t.Run("no further", func(t *testing.T) {
		m.set(func(w http.ResponseWriter, r *http.Request) bool {
			if !isGet(r) {
				return false
			}
			w.Header().Set("Content-Length", "300000")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, nil)
		defer m.set(nil, nil)
		got, err := read(s, "small", storage.Range{})
		if !errors.Is(err, storage.ErrUnreachable) || !strings.Contains(err.Error(), "broken off at byte 0") {
			t.Errorf("read %d bytes, %v, want ErrUnreachable", len(got), err)
		}
	})
}

func TestGetOfAnObjectReplacedMeanwhile(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	if err := put(s, "a", noise(1<<20), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	m.set(nil, cutGets(1, 64<<10))
	body, err := s.Get(t.Context(), "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := put(s, "a", bytes.Repeat([]byte("x"), 1<<20), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err == nil || !strings.Contains(err.Error(), "replaced while it was read") {
		t.Errorf("read %d bytes, %v, want the replacement told", len(got), err)
	}
	if want := noise(1 << 20)[:len(got)]; !bytes.Equal(got, want) {
		t.Error("bytes of two versions mixed")
	}
}

func TestGetOfAServerThatFallsSilent(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	server.Setenv(t)
	s := mustOpen(t, on(server, "p"), quick())
	data := noise(30 << 20)
	if err := put(s, "a", data, storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	body, err := s.Get(t.Context(), "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	server.Freeze()
	time.AfterFunc(s.limits.stall*3/2, server.Thaw)
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, len(data))
	}
}

func TestGetEndsWithItsContext(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	if err := put(s, "a", noise(1<<20), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	m.set(nil, cutGets(1000, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	body, err := s.Get(ctx, "a", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) || errors.Is(err, storage.ErrUnreachable) {
		t.Errorf("read: %v, want context.Canceled", err)
	}
}

// TestGetOfDamage flips a bit of a whole object on its way here.
func TestGetOfDamage(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	for key, data := range map[string][]byte{"small": noise(1000), "large": noise(20 << 20)} {
		if err := put(s, key, data, storage.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		m.set(nil, func(resp *http.Response) error {
			if isGet(resp.Request) {
				resp.Body = &flipped{resp.Body, 500}
			}
			return nil
		})
		if _, err := read(s, key, storage.Range{}); err == nil || !strings.Contains(err.Error(), "checksum did not match") {
			t.Errorf("read %s: %v, want its checksum to miss", key, err)
		}
		m.set(nil, nil)
	}
}

// TestGetOfDamageAfterABreak flips a bit of what a second connection brings,
// whose own answer has no checksum.
func TestGetOfDamageAfterABreak(t *testing.T) {
	s, m, _ := behind(t, s3server.Options{})
	if err := put(s, "a", noise(1000), storage.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	breakOff := cutGets(1, 100)
	m.set(nil, func(resp *http.Response) error {
		if isGet(resp.Request) && resp.StatusCode == http.StatusPartialContent {
			resp.Body = &flipped{resp.Body, 500}
		}
		return breakOff(resp)
	})
	if _, err := read(s, "a", storage.Range{}); err == nil || !strings.Contains(err.Error(), "checksum did not match") {
		t.Errorf("read: %v, want its checksum to miss", err)
	}
}

// TestGetOfOtherBytes has a server answer with bytes that were not asked for.
func TestGetOfOtherBytes(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"range ignored": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "20")
			_, _ = w.Write(make([]byte, 20))
		},
		"another range": func(w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 0-4/20")
			w.Header().Set("Content-Length", "5")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 5))
		},
		"no length": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, m, _ := behind(t, s3server.Options{})
			m.set(func(w http.ResponseWriter, r *http.Request) bool {
				if isGet(r) {
					answer(w)
				}
				return isGet(r)
			}, nil)
			if got, err := read(s, "a", storage.Range{Offset: 5, Length: 5}); err == nil {
				t.Errorf("read %d bytes, want an error", len(got))
			}
		})
	}
}

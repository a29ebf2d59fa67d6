package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// errBody is why a body can't be read.
var errBody = errors.New("the source broke off")

func testSizes(t *testing.T, s suite) {
	const part = 5 << 20 // the smallest part of a multipart upload
	for i, size := range []int{0, 1, 4096, 65537, part - 1, part, part + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			key, data := fmt.Sprintf("sizes/%d", size), noise(uint64(i), size)
			s.putBytes(t, key, data)
			if got := s.get(t, key, storage.Range{}); !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, which differ from the %d stored", len(got), size)
			}
			if obj, err := s.Stat(s.ctx, key); err != nil || obj.Size != int64(size) {
				t.Errorf("stat: %+v, %v; want %d bytes", obj, err, size)
			}
		})
	}
}

// testStream stores what says nothing of its length and can't be read twice.
func testStream(t *testing.T, s suite) {
	data := noise(1, 20<<20+12345)
	r, w := io.Pipe()
	var writer sync.WaitGroup
	writer.Go(func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, 10_007))
		w.CloseWithError(err)
	})
	obj, err := s.Put(s.ctx, "stream", r, storage.PutOptions{CreateOnly: true})
	r.Close()
	writer.Wait()
	if err != nil {
		t.Fatal(err)
	}
	wantObject(t, obj, "stream", int64(len(data)))
	if !bytes.Equal(s.get(t, "stream", storage.Range{}), data) {
		t.Error("what is read differs from what was stored")
	}
}

func testOddBodies(t *testing.T, s suite) {
	data := string(noise(2, 3000))
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"byte by byte":      iotest.OneByteReader,
		"half reads":        iotest.HalfReader,
		"end with the data": iotest.DataErrReader,
		"empty reads":       func(r io.Reader) io.Reader { return &stutterReader{r: r} },
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.Put(s.ctx, "odd", wrap(strings.NewReader(data)), storage.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			s.want(t, "odd", data)
		})
	}
}

// stutterReader reads nothing every other time, which readers may.
type stutterReader struct {
	r   io.Reader
	odd bool
}

func (s *stutterReader) Read(p []byte) (int, error) {
	s.odd = !s.odd
	if s.odd {
		return 0, nil
	}
	return s.r.Read(p)
}

func testReplace(t *testing.T, s suite) {
	s.put(t, "a/b", "first, and longer")
	s.put(t, "a/b", "second")
	s.want(t, "a/b", "second")
	s.wantList(t, "", "a/b")
	s.put(t, "a/b", "")
	s.want(t, "a/b", "")
}

func testCreateOnly(t *testing.T, s suite) {
	create := storage.PutOptions{CreateOnly: true}
	if _, err := s.Put(s.ctx, "a", strings.NewReader("first"), create); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"other": "second", "same": "first", "empty": "", "large": string(noise(3, 6<<20))} {
		if _, err := s.Put(s.ctx, "a", strings.NewReader(body), create); !errors.Is(err, storage.ErrExist) {
			t.Errorf("create with %s bytes what is there: %v, want ErrExist", name, err)
		}
	}
	s.want(t, "a", "first")
	if err := s.Delete(s.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(s.ctx, "a", strings.NewReader("third"), create); err != nil {
		t.Errorf("create what was deleted: %v", err)
	}
	s.want(t, "a", "third")
}

func testCreateOnlyAtOnce(t *testing.T, s suite) {
	for round, size := range []int{1, 100, 5000, 65536, 0, 1000, 6 << 20} {
		key := fmt.Sprintf("race/%d", round)
		bodies := make([][]byte, 8)
		for i := range bodies {
			bodies[i] = noise(uint64(i), size+i)
		}
		winners := s.createAtOnce(t, key, bodies)
		if len(winners) != 1 {
			t.Fatalf("%d bytes: %d of %d writers created %s", size, len(winners), len(bodies), key)
		}
		if got := s.get(t, key, storage.Range{}); !bytes.Equal(got, bodies[winners[0]]) {
			t.Errorf("%d bytes: %s is not what its only writer put there", size, key)
		}
	}
}

// createAtOnce puts all bodies under one key, and returns whose Put succeeded.
func (s suite) createAtOnce(t *testing.T, key string, bodies [][]byte) []int {
	errs := make([]error, len(bodies))
	var reading, writers sync.WaitGroup
	reading.Add(len(bodies))
	for i, body := range bodies {
		writers.Go(func() {
			body := &meetingReader{r: bytes.NewReader(body), meet: &reading}
			_, errs[i] = s.Put(s.ctx, key, body, storage.PutOptions{CreateOnly: true})
			body.arrive()
		})
	}
	writers.Wait()
	var winners []int
	for i, err := range errs {
		if err == nil {
			winners = append(winners, i)
		} else if !errors.Is(err, storage.ErrExist) {
			t.Errorf("writer %d: %v, want ErrExist", i, err)
		}
	}
	return winners
}

// meetingReader holds its first read back until all others are read too, so
// that all Puts are past whatever they look up first.
type meetingReader struct {
	r    io.Reader
	meet *sync.WaitGroup
	once sync.Once
}

func (m *meetingReader) arrive() { m.once.Do(m.meet.Done) }

func (m *meetingReader) Read(p []byte) (int, error) {
	m.arrive()
	m.meet.Wait()
	return m.r.Read(p)
}

func testFailedBody(t *testing.T, s suite) {
	s.put(t, "old", "what was there")
	for _, test := range []struct {
		err  error
		size int
	}{
		{errBody, 0},
		{errBody, 1000},
		{errBody, 11 << 20},
		{io.ErrUnexpectedEOF, 0},
		{io.ErrUnexpectedEOF, 1000},
		{io.ErrUnexpectedEOF, 6 << 20},
		{fmt.Errorf("source: %w", io.EOF), 1000},
	} {
		t.Run(fmt.Sprintf("%v after %d bytes", test.err, test.size), func(t *testing.T) {
			data := noise(4, test.size)
			for key, o := range map[string]storage.PutOptions{"new/a": {}, "new/b": {CreateOnly: true}, "old": {}} {
				body := io.MultiReader(bytes.NewReader(data), iotest.ErrReader(test.err))
				if _, got := s.Put(s.ctx, key, body, o); !errors.Is(got, test.err) {
					t.Errorf("put %s: %v, want it to wrap %q", key, got, test.err)
				}
			}
			s.wantAbsent(t, "new/a")
			s.wantAbsent(t, "new/b")
			s.want(t, "old", "what was there")
		})
	}
	s.wantList(t, "", "old")
}

func testCancelledPut(t *testing.T, s suite) {
	s.put(t, "old", "what was there")
	for _, size := range []int{0, 1000, 11 << 20} {
		t.Run(fmt.Sprintf("after %d bytes", size), func(t *testing.T) {
			data := noise(5, size)
			for key, o := range map[string]storage.PutOptions{"new/a": {}, "new/b": {CreateOnly: true}, "old": {}} {
				ctx, cancel := context.WithCancel(s.ctx)
				body := io.MultiReader(bytes.NewReader(data), cancelReader(cancel), strings.NewReader("rest"))
				if _, err := s.Put(ctx, key, body, o); !errors.Is(err, context.Canceled) {
					t.Errorf("put %s: %v, want context.Canceled", key, err)
				}
				cancel()
			}
			s.wantAbsent(t, "new/a")
			s.wantAbsent(t, "new/b")
			s.want(t, "old", "what was there")
		})
	}
}

// cancelReader calls cancel once it is read, and holds nothing.
type cancelReader context.CancelFunc

func (c cancelReader) Read([]byte) (int, error) {
	c()
	return 0, io.EOF
}

func testCancelledBefore(t *testing.T, s suite) {
	s.put(t, "a", "there")
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, put := s.Put(ctx, "b", strings.NewReader("new"), storage.PutOptions{})
	body, get := s.Get(ctx, "a", storage.Range{})
	if get == nil {
		_, get = io.ReadAll(body)
		body.Close()
	}
	_, stat := s.Stat(ctx, "a")
	var list error
	for _, err := range s.List(ctx, "") {
		list = err
	}
	del := s.Delete(ctx, "a")
	for name, err := range map[string]error{"put": put, "get": get, "stat": stat, "list": list, "delete": del} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	s.wantList(t, "", "a")
}

func testCancelledGet(t *testing.T, s suite) {
	s.putBytes(t, "large", noise(6, 12<<20))
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	body, err := s.Get(ctx, "large", storage.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, body); !errors.Is(err, context.Canceled) {
		t.Errorf("read on: %v, want context.Canceled", err)
	}
}

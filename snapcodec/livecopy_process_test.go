package snapcodec

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// writerEnv tells the test binary to be a process that writes.
const writerEnv = "SNAPCODEC_TEST_WRITER"

// pressure is how a writer writes.
type pressure struct {
	name   string
	noSync bool
	ops    int           // at most, in a transaction
	pause  time.Duration // between two, at most
	copies int
}

var pressures = []pressure{
	{"sync", false, 500, 0, 6},
	{"large transactions", true, 4000, 0, 6},
	{"pauses", true, 200, 10 * time.Millisecond, 6},
	{"as fast as it can", true, 10, 0, 2},
}

// warmUp is how many transactions come before the first copy.
const warmUp = 25

// TestLiveWriter is the process that TestCopyLiveOfProcess starts. It makes
// random transactions until its standard input ends. Each leaves in the file
// how many entries there are, and the sum of their hashes.
func TestLiveWriter(t *testing.T) {
	path := os.Getenv(writerEnv)
	if path == "" {
		t.Skip("only as a process of its own")
	}
	var p pressure
	for _, p = range pressures {
		if p.name == filepath.Base(filepath.Dir(path)) {
			break
		}
	}
	o := &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType, NoSync: p.noSync, InitialMmapSize: 1 << 30}
	db, err := bolt.Open(path, 0o600, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &summed{rnd: rand.New(rand.NewSource(time.Now().UnixNano()))}
	stop := make(chan struct{})
	go func() { io.Copy(io.Discard, os.Stdin); close(stop) }()
	for n := 0; ; n++ {
		if n == warmUp {
			fmt.Println("ready")
		}
		select {
		case <-stop:
			return
		default:
		}
		ops := 1 + w.rnd.Intn(p.ops)
		if n < warmUp {
			ops = 300
		}
		if err := db.Update(func(tx *bolt.Tx) error { return w.change(tx, ops) }); err != nil {
			t.Fatal(err)
		}
		if n > warmUp && p.pause > 0 {
			time.Sleep(time.Duration(w.rnd.Int63n(int64(p.pause))))
		}
	}
}

// summed makes random changes and keeps the sum of what there is.
type summed struct {
	rnd        *rand.Rand
	count, sum uint64
	next       uint64
}

func (w *summed) change(tx *bolt.Tx, ops int) error {
	spread, err := tx.CreateBucketIfNotExists([]byte("spread"))
	if err != nil {
		return err
	}
	grown, err := tx.CreateBucketIfNotExists([]byte("grown"))
	if err != nil {
		return err
	}
	for range ops {
		w.next++
		if err := w.put(grown, w.next, w.value()); err != nil {
			return err
		}
		for _, age := range []uint64{4000 + uint64(w.rnd.Intn(1000)), 5000} { // as compaction does
			if err := w.put(grown, w.next-min(w.next, age), nil); err != nil {
				return err
			}
		}
		value := w.value()
		if w.rnd.Intn(3) == 0 {
			value = nil
		}
		if err := w.put(spread, uint64(w.rnd.Intn(5000))<<40, value); err != nil {
			return err
		}
	}
	return w.note(tx)
}

func (w *summed) value() []byte {
	n := w.rnd.Intn(1 + w.rnd.Intn(2000))
	if w.rnd.Intn(1000) == 0 {
		n = w.rnd.Intn(200_000)
	}
	return bytes.Repeat([]byte{byte(w.rnd.Int())}, n+1)
}

// put puts a value, or deletes the key for nil.
func (w *summed) put(b *bolt.Bucket, id uint64, value []byte) error {
	key := binary.BigEndian.AppendUint64(nil, id)
	if old := b.Get(key); old != nil {
		w.count--
		w.sum -= entryHash(key, old)
	}
	if value == nil {
		return b.Delete(key)
	}
	w.count++
	w.sum += entryHash(key, value)
	return b.Put(key, value)
}

func (w *summed) note(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists([]byte("sum"))
	if err != nil {
		return err
	}
	return b.Put([]byte("sum"), fmt.Appendf(nil, "%d %d %d", tx.ID(), w.count, w.sum))
}

func entryHash(key, value []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range [][]byte{key, value[:1], binary.BigEndian.AppendUint64(nil, uint64(len(value)))} {
		for _, c := range b {
			h = (h ^ uint64(c)) * 1099511628211
		}
	}
	return h
}

// checkSummed reads all of a copy, with our reader and with bbolt, and compares
// it with what the transaction noted.
func checkSummed(t *testing.T, f *os.File, c LiveCopy) {
	t.Helper()
	checkCopy(t, f.Name(), c)
	db, err := OpenDB(f, c.Size, DBOptions{Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	if report, err := db.Check(); err != nil || report.Total > 0 {
		t.Fatalf("check: %v, %v", err, report.Problems)
	}
	var count, sum uint64
	for _, name := range []string{"spread", "grown"} {
		err := db.forEach(name, func(k, v []byte) error {
			if len(bytes.TrimLeft(v, string(v[:1]))) > 0 {
				return fmt.Errorf("key %x: a value of several", k)
			}
			count++
			sum += entryHash(k, v)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := db.Bucket("sum")
	if err != nil {
		t.Fatal(err)
	}
	noted, err := b.Get([]byte("sum"))
	if want := fmt.Sprintf("%d %d %d", c.TxID, count, sum); err != nil || string(noted) != want {
		t.Fatalf("commit %d holds %s, and says %s (%v)", c.TxID, want, noted, err)
	}
}

// TestCopyLiveOfProcess copies what another process writes, with and without
// delays that make it miss commits.
func TestCopyLiveOfProcess(t *testing.T) {
	for _, p := range pressures {
		t.Run(p.name, func(t *testing.T) {
			path := startWriter(t, p)
			copies := p.copies
			if testing.Short() {
				copies = min(copies, 3)
			}
			var sum replaySum
			for n := range copies {
				copyWritten(t, path, n, &sum)
			}
			t.Logf("%+v", sum)
			if p.ops > 10 && sum.Copies < copies/4 {
				t.Errorf("of %d copies: %+v", copies, sum)
			}
		})
	}
}

// startWriter starts the process and waits until there is something to copy.
func startWriter(t *testing.T, p pressure) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), p.name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "db")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLiveWriter$")
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	var said bytes.Buffer
	for b := make([]byte, 100); !bytes.Contains(said.Bytes(), []byte("ready")); {
		n, err := stdout.Read(b)
		said.Write(b[:n])
		if err != nil {
			t.Fatalf("the writer said %s", said.Bytes())
		}
	}
	go io.Copy(io.Discard, stdout)
	return path
}

// slow is a file whose reads now and then take long.
type slow struct{ io.ReaderAt }

func (s slow) ReadAt(b []byte, off int64) (int, error) {
	if rand.Intn(20) == 0 {
		time.Sleep(time.Duration(rand.Intn(20)) * time.Millisecond)
	}
	return s.ReaderAt.ReadAt(b, off)
}

// copyWritten makes the n-th copy: one in four with delays, one in four on one
// processor.
func copyWritten(t *testing.T, path string, n int, sum *replaySum) {
	t.Helper()
	src, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst := tempFile(t)
	var c LiveCopy
	switch o := (LiveCopyOptions{Attempts: 5}); n % 4 {
	case 1:
		size := func() (int64, error) { info, err := src.Stat(); return info.Size(), err }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c, err = copyLive(ctx, liveSource{slow{src}, size, "db"}, dst, o)
	case 2:
		procs := runtime.GOMAXPROCS(1)
		c, err = CopyLive(t.Context(), src, dst, o)
		runtime.GOMAXPROCS(procs)
	default:
		c, err = CopyLive(t.Context(), src, dst, o)
	}
	if errors.Is(err, ErrBusy) || errors.Is(err, context.DeadlineExceeded) {
		sum.Busy++
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	checkSummed(t, dst, c)
	sum.add(c)
}

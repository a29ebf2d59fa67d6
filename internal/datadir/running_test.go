package datadir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Segments that are purged meanwhile stay readable, and new ones are seen.
func TestSegmentsOutliveAPurge(t *testing.T) {
	dir := t.TempDir()
	log, err := walcodec.NewLogWriter(folder(dir), walcodec.Metadata{NodeID: 1, ClusterID: 2}, walcodec.LogWriterOptions{SegmentSize: 512})
	if err != nil {
		t.Fatal(err)
	}
	writeEntries := func(from, to uint64) {
		for i := from; i <= to; i++ {
			if err := log.WriteEntry(walcodec.Entry{Term: 1, Index: i, Data: make([]byte, 64)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeEntries(1, 40)
	s := newSegments(dir)
	defer s.close()
	if _, err := walcodec.OpenLog(s, walcodec.LogOptions{FromIndex: 10}); err != nil {
		t.Fatal(err)
	}
	held, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	writeEntries(41, 80)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range held {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	all, err := walcodec.OpenLog(s, walcodec.LogOptions{FromIndex: 10})
	if err != nil {
		t.Fatal(err)
	}
	report, err := all.Verify(t.Context(), walcodec.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if report.FirstIndex > 10 || report.LastIndex != 80 || len(report.Gaps) > 0 {
		t.Errorf("entries %d to %d, gaps %v", report.FirstIndex, report.LastIndex, report.Gaps)
	}
	for _, seg := range report.Segments {
		f, err := s.Open(seg.Name)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, io.LimitReader(f, seg.Used)); err != nil || n != seg.Used {
			t.Errorf("%s: %d bytes of %d (%v)", seg.Name, n, seg.Used, err)
		}
	}
}

// folder makes segments in a folder.
type folder string

func (f folder) CreateSegment(name string) (io.WriteCloser, error) {
	return os.Create(filepath.Join(string(f), name))
}

// copyBackend has a dir copy its backend.
func copyBackend(t *testing.T, d *Dir) (*os.File, error) {
	t.Helper()
	dst, err := os.Create(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dst.Close() })
	return dst, d.CopyBackend(t.Context(), dst, func(int64) {})
}

// What a dir tells with a copy of its backend is what it tells without, though
// log and base are gone from their places by then.
func TestCopyBackendTellsTheSame(t *testing.T) {
	for _, name := range []string{"3.4.23-mixed", "3.5.33"} {
		t.Run(name, func(t *testing.T) {
			path := fixture.DataDir(t, name)
			want, d := inspect(t, path), inspect(t, path)
			for _, gone := range []string{"member/snap/*.snap", "member/wal/*.wal"} {
				files, err := filepath.Glob(filepath.Join(path, gone))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				}
			}
			dst, err := copyBackend(t, d)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := tell(d), tell(want); got != want || !d.copied {
				t.Errorf("with a copy\n%s, without\n%s", got, want)
			}
			if b, err := readBackendFile(dst, "copy"); err != nil || b.ConsistentIndex != want.Backend.ConsistentIndex {
				t.Errorf("copy %+v (%v)", b, err)
			}
		})
	}
}

// tell is what a dir says of itself, but for the size of its backend: a copy
// ends at the last page.
func tell(d *Dir) string {
	b, mark := *d.Backend, *d.Log.Mark
	b.Size = 0
	return fmt.Sprintf("%+v\n%+v\n%+v\n%v %v %v\n", d.Facts, d.IDs, b, d.Started, d.Removed, d.PeerURLs) +
		fmt.Sprintf("%d-%d %d %+v %d %+v", d.Log.First, d.Log.Last, d.Log.Commit, d.Log.State, mark.Index, *mark.ConfState)
}

// A copy has to reach back to the base, and the log has to reach the copy.
func TestCopiesThatDoNotFit(t *testing.T) {
	d := inspect(t, fixture.DataDir(t, "3.4.23-mixed"))
	d.Live = Running
	d.Base.Index = d.Backend.ConsistentIndex + 1
	if _, err := copyBackend(t, d); !errors.Is(err, ErrChanged) {
		t.Errorf("a copy older than the base: %v, want ErrChanged", err)
	}

	d = inspect(t, fixture.DataDir(t, "3.5.33"))
	d.Live = Running
	segment := d.report.Segments[0].Name
	data, err := os.ReadFile(filepath.Join(d.WAL, segment))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.TrimRight(data, "\x00")
	if err := os.WriteFile(filepath.Join(d.WAL, segment), data[:len(data)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := copyBackend(t, d); !errors.Is(err, ErrChanged) {
		t.Errorf("a log that ends before the copy: %v, want ErrChanged", err)
	}
}

func TestWhatAnotherTryMayCure(t *testing.T) {
	cause := errors.New("gone")
	for name, c := range map[string]struct {
		live Liveness
		err  error
		want bool
	}{
		"running":  {Running, cause, true},
		"unknown":  {LiveUnknown, cause, true},
		"stopped":  {Stopped, cause, false},
		"busy":     {Running, fmt.Errorf("copy: %w", snapcodec.ErrBusy), false},
		"damage":   {Running, &walcodec.CorruptError{Cause: cause}, false},
		"canceled": {Running, context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.live.MayChange(c.err)
			if errors.Is(err, ErrChanged) != c.want || !errors.Is(err, c.err) || err.Error() != c.err.Error() {
				t.Errorf("%v, may change: %t", err, !c.want)
			}
		})
	}
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, told := 0, 0
		err := Retry(t.Context(), func() error { tries++; return ErrChanged }, func(error) { told++ })
		if !errors.Is(err, ErrChanged) || tries != changedTries+1 || told != changedTries {
			t.Errorf("%v after %d tries, told %d times", err, tries, told)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		tries = 0
		if err := Retry(ctx, func() error { tries++; return ErrChanged }, func(error) {}); !errors.Is(err, ErrChanged) || tries != 1 {
			t.Errorf("canceled: %v after %d tries", err, tries)
		}
	})
}

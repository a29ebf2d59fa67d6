package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one run of a contender.
type sample struct {
	elapsed time.Duration
	memory  int64 // peak of anonymous resident memory, bytes
}

// runner runs contenders on the data of one row.
type runner struct {
	paths paths
	talk  io.Writer
	scale float64
}

// once runs c: its old output removed and everything on disk before the clock
// starts; started and waited for within it.
func (r *runner) once(ctx context.Context, c contender) (sample, error) {
	if err := os.RemoveAll(r.paths.out); err != nil {
		return sample{}, err
	}
	unix.Sync()
	var stderr bytes.Buffer
	cmd := r.command(ctx, c)
	cmd.Stderr = &stderr
	s, err := timed(cmd)
	if err != nil {
		return s, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(stderr.String(), 10))
	}
	return s, nil
}

// command is c's command line; its standard output goes nowhere.
func (r *runner) command(ctx context.Context, c contender) *exec.Cmd {
	argv := c.argv(r.paths)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Dir = filepath.Dir(r.paths.out)
	return cmd
}

// timed runs cmd and watches its memory.
func timed(cmd *exec.Cmd) (sample, error) {
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return sample{}, err
	}
	done := make(chan struct{})
	peak := make(chan int64)
	go func() { peak <- watchMemory(cmd.Process.Pid, done) }()
	err := cmd.Wait()
	elapsed := time.Since(start)
	close(done)
	return sample{elapsed: elapsed, memory: max(<-peak, maxRSS(cmd.ProcessState))}, err
}

// tail returns the last n lines of s.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// available says whether c's program is there.
func available(c contender, p paths) error {
	if _, err := exec.LookPath(c.argv(p)[0]); err != nil {
		return fmt.Errorf("%w: %s", err, c.missing)
	}
	return nil
}

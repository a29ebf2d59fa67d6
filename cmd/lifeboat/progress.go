package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// progress shows how far a long work is: a line that renews itself on a
// terminal, a plain line now and then elsewhere, nothing for short work.
type progress struct {
	w     io.Writer
	what  string
	total atomic.Int64 // bytes
	begun time.Time
	seen  atomic.Int64
	stop  chan struct{}
	wait  sync.WaitGroup
}

const (
	terminalEvery = 200 * time.Millisecond
	logEvery      = 10 * time.Second
)

// newProgress starts to show; total is in bytes.
func newProgress(w io.Writer, what string, total int64) *progress {
	p := &progress{w: w, what: what, begun: time.Now(), stop: make(chan struct{})}
	p.total.Store(total)
	every, format := logEvery, "%s\n"
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		every, format = terminalEvery, "\r\x1b[K%s"
	}
	p.wait.Go(func() { p.show(every, format) })
	return p
}

func (p *progress) show(every time.Duration, format string) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(p.w, format, p.line(time.Since(p.begun)))
		case <-p.stop:
			if every == terminalEvery {
				fmt.Fprint(p.w, "\r\x1b[K")
			}
			return
		}
	}
}

// line says how much is done, how fast, and how long the rest will take.
func (p *progress) line(elapsed time.Duration) string {
	seen, total := p.seen.Load(), p.total.Load()
	rate := float64(seen) / max(elapsed.Seconds(), 0.001)
	text := fmt.Sprintf("%s: %s of %s, %s/s", p.what, formatBytes(seen), formatBytes(total), formatBytes(int64(rate)))
	if left := total - seen; left > 0 && rate > 0 {
		text += fmt.Sprintf(", %s left", (time.Duration(float64(left)/rate) * time.Second).Round(time.Second))
	}
	return text
}

// add counts n bytes; it may be called from several goroutines.
func (p *progress) add(n int64) { p.seen.Add(n) }

// set says how far the work is, and of how much.
func (p *progress) set(done, total int64) {
	p.seen.Store(done)
	p.total.Store(total)
}

// done stops showing.
func (p *progress) done() {
	close(p.stop)
	p.wait.Wait()
}

// formatBytes writes a size in decimal units, as etcd counts its segments.
func formatBytes(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	size, unit := float64(n), 0
	for size >= 1000 && unit < len(units)-1 {
		size, unit = size/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

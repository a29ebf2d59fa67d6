package scheduler

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// mercy is how long processes have between SIGTERM and SIGKILL.
	mercy = 2 * time.Second
	// lastWords is how long to read on when all of the group are gone: what
	// left the group may hold the output open for ever.
	lastWords = 200 * time.Millisecond
	// keepOutput is how much of the end of the output is kept, in bytes.
	keepOutput = 4 << 10
)

// errTimeout is why a command was ended.
var errTimeout = errors.New("timed out")

// process is a command to run in a process group of its own.
type process struct {
	argv    []string
	env     []string
	stdin   []byte
	timeout time.Duration
	secrets []string // to blank in what it printed
}

// name is the program, without arguments: those may hold what is not to be
// printed.
func (p *process) name() string {
	if len(p.argv) == 0 {
		return "without a program"
	}
	return filepath.Base(p.argv[0])
}

// run starts the command, waits for it, and leaves nothing of it behind: no
// process of its group, no goroutine, no open file.
func (p *process) run(ctx context.Context) error {
	if len(p.argv) == 0 {
		return errors.New("no program is named")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("%w after %v", errTimeout, p.timeout))
	defer cancel()
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	out, err := newOutput(p.secrets)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = p.env
	cmd.Stdout, cmd.Stderr = out.write, out.write
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = p.wait(ctx, cmd)
	if text := out.end(); err != nil && text != "" {
		return fmt.Errorf("%w; it printed %q", err, text)
	}
	return err
}

// wait starts the command and waits until it and its group are gone.
func (p *process) wait(ctx context.Context, cmd *exec.Cmd) error {
	feed, err := p.feed(cmd)
	if err != nil {
		return err
	}
	defer feed()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		endGroup(cmd.Process.Pid) // what it left in the background
		return err
	case <-ctx.Done():
		endGroup(cmd.Process.Pid)
		<-ended
		return context.Cause(ctx)
	}
}

// feed gives the command its standard input. A temporary file can't block, as a
// pipe does when nobody reads it.
func (p *process) feed(cmd *exec.Cmd) (done func(), err error) {
	if p.stdin == nil {
		return func() {}, nil
	}
	f, err := os.CreateTemp("", "lifeboat-stdin-")
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	_ = os.Remove(f.Name())
	_, err = f.Write(p.stdin)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("standard input: %w", err)
	}
	cmd.Stdin = f
	return func() { f.Close() }, nil
}

// endGroup ends the processes of a group: asks, waits for a moment, and kills.
// The leader has to be waited for at the same time.
func endGroup(pgid int) {
	if syscall.Kill(-pgid, syscall.SIGTERM) != nil {
		return // none is left
	}
	for waited := time.Duration(0); waited < mercy; waited += 10 * time.Millisecond {
		if syscall.Kill(-pgid, 0) != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(-pgid, syscall.SIGKILL)
}

// output collects the end of what a command prints.
type output struct {
	read, write *os.File
	secrets     []string
	longest     int // of the secrets, in bytes
	tail        []byte
	cut         bool // there was more before the tail
	reading     sync.WaitGroup
}

func newOutput(secrets []string) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe for the output: %w", err)
	}
	o := &output{read: r, write: w, secrets: secrets}
	for _, s := range secrets {
		o.longest = max(o.longest, len(s))
	}
	o.reading.Go(o.collect)
	return o, nil
}

// collect reads until all who write are gone. It never stops to read, lest the
// command stand still.
func (o *output) collect() {
	most := keepOutput + o.longest
	buf := make([]byte, 32<<10)
	for {
		n, err := o.read.Read(buf)
		o.tail = append(o.tail, buf[:n]...)
		if extra := len(o.tail) - most; extra > 0 {
			o.cut = true
			o.tail = append(o.tail[:0], o.tail[extra:]...)
		}
		if err != nil {
			return
		}
	}
}

// end stops reading and returns what was printed last, without secrets. The
// first bytes of a tail that was cut go: they may be the rest of a secret.
func (o *output) end() string {
	o.write.Close()
	_ = o.read.SetReadDeadline(time.Now().Add(lastWords))
	o.reading.Wait()
	o.read.Close()
	text := markSecrets(o.tail, o.secrets)
	if o.cut {
		text = text[min(o.longest, len(text)):]
	}
	return strings.TrimSpace(blankMarked(text))
}

// secretMark stands for each byte of a secret.
const secretMark = 0

// markSecrets replaces secrets, and each line of them, by marks of the same
// length.
func markSecrets(text []byte, secrets []string) []byte {
	var lines []string
	for _, s := range secrets {
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
	}
	// One may be a part of another.
	slices.SortFunc(lines, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	text = bytes.ReplaceAll(text, []byte{secretMark}, []byte{'?'})
	for _, line := range lines {
		text = bytes.ReplaceAll(text, []byte(line), bytes.Repeat([]byte{secretMark}, len(line)))
	}
	return text
}

// blankMarked writes "***" for each row of marks.
func blankMarked(text []byte) string {
	var b strings.Builder
	for i, c := range text {
		switch {
		case c != secretMark:
			b.WriteByte(c)
		case i == 0 || text[i-1] != secretMark:
			b.WriteString("***")
		}
	}
	return strings.ToValidUTF8(b.String(), "?")
}

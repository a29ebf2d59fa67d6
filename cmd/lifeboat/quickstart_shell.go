package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// shell runs command lines in a dir, and prints each before. The lifeboat on
// its PATH is this very program.
type shell struct {
	ctx    context.Context
	env    *env
	dir    string
	vars   []string // environment of the commands
	url    string   // of the server that was started last
	server *exec.Cmd
	output chan error // closed when the server's output ended
}

// stopTimeout is how long a command may take to end when it is told to.
const stopTimeout = 10 * time.Second

func newShell(ctx context.Context, e *env, dir string) (*shell, error) {
	s := &shell{ctx: ctx, env: e, dir: dir}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	bin := filepath.Join(dir, ".bin")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Symlink(self, filepath.Join(bin, "lifeboat"))); err != nil {
		return s, err
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD") && !strings.HasPrefix(v, "PATH=") {
			s.vars = append(s.vars, v)
		}
	}
	s.vars = append(s.vars, "PATH="+bin+string(os.PathListSeparator)+e.Getenv("PATH"))
	return s, nil
}

// say prints a remark.
func (s *shell) say(text string) { fmt.Fprintf(s.env.Stdout, "\n# %s\n", text) }

func (s *shell) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.vars, s.env.Stdout, s.env.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTimeout
	return cmd
}

// run runs a command line to its end, which must be a good one.
func (s *shell) run(line string) error {
	fmt.Fprintf(s.env.Stdout, "$ %s\n", line)
	if err := s.command(line).Run(); err != nil {
		return fmt.Errorf("%s: %w", line, s.cause(err))
	}
	return nil
}

// cause is why a command failed: because the story was stopped, if it was.
func (s *shell) cause(err error) error {
	if stopped := context.Cause(s.ctx); stopped != nil {
		return stopped
	}
	return err
}

// refused runs a command line that must fail.
func (s *shell) refused(line string) error {
	fmt.Fprintf(s.env.Stdout, "$ %s\n", line)
	err := s.command(line).Run()
	var exit *exec.ExitError
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case err == nil:
		return fmt.Errorf("%s: went well, and should not have", line)
	case !errors.As(err, &exit):
		return fmt.Errorf("%s: %w", line, err)
	}
	fmt.Fprintf(s.env.Stdout, "(exit code %d: it no longer boots)\n", exit.ExitCode())
	return nil
}

// servingLine is the line with which a server says where it listens.
var servingLine = regexp.MustCompile(`^Serving .* on (https?://\S+) `)

// serve starts a server and waits until it listens; the commands that follow
// talk to it.
func (s *shell) serve(line string) error {
	fmt.Fprintf(s.env.Stdout, "$ %s &\n", line)
	cmd := s.command("exec " + line)
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.server, s.output = cmd, make(chan error, 1)
	first, err := bufio.NewReader(out).ReadString('\n')
	go func() {
		_, err := io.Copy(io.Discard, out)
		s.output <- err
	}()
	match := servingLine.FindStringSubmatch(first)
	if err != nil || match == nil {
		return fmt.Errorf("%s: said %q and not where it listens", line, first)
	}
	s.url = match[1]
	fmt.Fprintf(s.env.Stdout, "%s$ export ETCDCTL_ENDPOINTS=%s\n", first, s.url)
	s.vars = append(s.vars, "ETCDCTL_ENDPOINTS="+s.url)
	return nil
}

// kill stops the server.
func (s *shell) kill() error {
	fmt.Fprintln(s.env.Stdout, "$ kill %1")
	return s.close()
}

// close stops the server, if there is one, and waits for its end.
func (s *shell) close() error {
	if s.server == nil {
		return nil
	}
	cmd := s.server
	s.server = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	hard := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() })
	defer hard.Stop()
	<-s.output
	if err := cmd.Wait(); err != nil && s.ctx.Err() == nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	return nil
}

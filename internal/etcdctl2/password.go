package etcdctl2

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// credentials splits "name:password", and asks for the password of a bare
// name.
func (s *session) credentials(ctx context.Context, prompt, user string) (name, password string, err error) {
	name, password, found := strings.Cut(user, ":")
	if !found {
		password, err = s.askPassword(ctx, prompt)
	}
	return name, password, err
}

// askPassword reads one line without showing it, and takes the spaces around
// it away. The prompt goes to Stderr, so that Stdout holds results only.
func (s *session) askPassword(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(s.Stderr, prompt)
	line, err := readHidden(ctx, s.Stdin)
	fmt.Fprintln(s.Stderr)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// readHidden reads a line, without echo where stdin is a terminal.
func readHidden(ctx context.Context, stdin io.Reader) (string, error) {
	f, ok := stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return readLine(stdin)
	}
	return readTerminal(ctx, int(f.Fd()))
}

// readTerminal gives the terminal its echo back also when ctx ends the wait;
// the read itself can't be ended, and dies with the process.
func readTerminal(ctx context.Context, fd int) (string, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return string(r.line), r.err
	case <-ctx.Done():
		if err := term.Restore(fd, before); err != nil {
			return "", err
		}
		return "", ctx.Err()
	}
}

// readLine reads up to a line's end, and not a byte beyond it: what follows
// may be for somebody else.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for {
		n, err := r.Read(b)
		if n > 0 && b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[:n]...)
		if err == io.EOF {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
}

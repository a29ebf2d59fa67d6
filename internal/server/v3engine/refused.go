package v3engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
)

// RefusedError says that etcd would not boot a dir, or hung.
type RefusedError struct {
	Engine string
	Cause  string   // in etcd's words
	Log    []string // the last lines that it logged
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", e.Engine, e.Cause) }

// refused tells of an etcd that has ended.
func (s *Server) refused() error {
	lines := s.tail.lines()
	cause := causeIn(lines)
	if cause == "" {
		cause = "ended without a word"
		if s.waitErr != nil {
			cause += " (" + s.waitErr.Error() + ")"
		}
	}
	return &RefusedError{Engine: s.Engine.String(), Cause: cause, Log: lines}
}

// hangs tells of an etcd that runs and does not serve.
func (s *Server) hangs(timeout time.Duration, last error) error {
	cause := fmt.Sprintf("does not serve after %s: %v", timeout, last)
	lines := s.tail.lines()
	if said := causeIn(lines); said != "" {
		cause += ": " + said
	}
	return &RefusedError{Engine: s.Engine.String(), Cause: cause, Log: lines}
}

// mayPass tells errors of a server that is not ready yet from answers.
func mayPass(err error) bool {
	var answer rpctypes.EtcdError
	if !errors.As(err, &answer) {
		return true
	}
	return answer.Code() == codes.Unavailable || answer == rpctypes.ErrNotCapable
}

// tail keeps the last lines of a log, and of a panic the first.
type tail struct {
	mu    sync.Mutex
	kept  []string
	part  string // of a line
	ended bool   // by a panic: what follows is its stack
}

const (
	tailLines = 40
	tailWidth = 1000 // bytes of a line
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := t.part + string(p)
	for {
		line, rest, found := strings.Cut(text, "\n")
		if !found {
			t.part = text[:min(len(text), tailWidth)]
			return len(p), nil
		}
		t.keep(line)
		text = rest
	}
}

func (t *tail) keep(line string) {
	if t.ended || strings.TrimSpace(line) == "" {
		return
	}
	t.ended = isPanic(line)
	t.kept = append(t.kept, line[:min(len(line), tailWidth)])
	t.kept = t.kept[max(0, len(t.kept)-tailLines):]
}

func isPanic(line string) bool {
	return strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := append([]string(nil), t.kept...)
	if t.part != "" && !t.ended {
		lines = append(lines, t.part)
	}
	return lines
}

// causeIn finds why etcd ended: the first thing it called fatal, else the last
// error.
func causeIn(lines []string) string {
	for _, line := range lines {
		if cause := causeOf(line); cause != "" {
			return cause
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		if entry, ok := parseLine(lines[i]); ok && entry.Level == "error" {
			return entry.String()
		}
		if text, ok := strings.CutPrefix(lines[i], "lifeboat: "); ok {
			return text
		}
	}
	return ""
}

// causeOf is what a line says if it is the end of etcd.
func causeOf(line string) string {
	if entry, ok := parseLine(line); ok {
		if entry.Level == "fatal" || entry.Level == "panic" {
			return entry.String()
		}
		return ""
	}
	if isPanic(line) {
		return line
	}
	return ""
}

// logLine is a line of etcd's log, of zap's JSON.
type logLine struct {
	Level   string `json:"level"`
	Message string `json:"msg"`
	Error   string `json:"error"`
}

func parseLine(line string) (logLine, bool) {
	var l logLine
	return l, json.Unmarshal([]byte(line), &l) == nil && l.Message != ""
}

func (l logLine) String() string {
	if l.Error == "" {
		return l.Message
	}
	return l.Message + ": " + l.Error
}

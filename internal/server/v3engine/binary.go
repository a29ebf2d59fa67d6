package v3engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// Engine is an etcd that can be started.
type Engine struct {
	Path    string // empty: the built-in one
	Version string // such as 3.5.35
	Release datadir.Release
}

func (e Engine) String() string {
	if e.Path == "" {
		return "etcd " + e.Version + " (built in)"
	}
	return fmt.Sprintf("etcd %s (%s)", e.Version, e.Path)
}

// versionTimeout is how long etcd --version may take.
const versionTimeout = 10 * time.Second

// FindEngine asks the binary for its version; an empty path is the built-in
// etcd.
func FindEngine(ctx context.Context, path string) (Engine, error) {
	if path == "" {
		return Engine{Version: version.Version, Release: datadir.R37}, nil
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return Engine{}, err
	}
	if found, err = filepath.Abs(found); err != nil {
		return Engine{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, found, "--version")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		return Engine{}, fmt.Errorf("%s --version: %w", found, err)
	}
	return parseVersion(found, string(out))
}

// parseVersion reads "etcd Version: 3.5.35".
func parseVersion(path, out string) (Engine, error) {
	const prefix = "etcd Version: "
	for line := range strings.Lines(out) {
		number, ok := strings.CutPrefix(strings.TrimSpace(line), prefix)
		if !ok {
			continue
		}
		release, err := datadir.ParseRelease(number)
		if err != nil {
			return Engine{}, fmt.Errorf("%s: %w", path, err)
		}
		if release.Before(datadir.R34) {
			return Engine{}, fmt.Errorf("%s is etcd %s: 3.4 and later can be run here", path, number)
		}
		return Engine{Path: path, Version: number, Release: release}, nil
	}
	return Engine{}, fmt.Errorf("%s: is no etcd: its --version says %.60q", path, out)
}

// command makes the process; the built-in etcd is this program started again.
func (e Engine) command(args []string) *exec.Cmd {
	if e.Path != "" {
		return exec.Command(e.Path, args...)
	}
	return &exec.Cmd{Path: self(), Args: append([]string{os.Args[0], EmbeddedCommand}, args...)}
}

// self is this program's file.
func self() string {
	if path, err := os.Executable(); err == nil {
		return path
	}
	return os.Args[0]
}

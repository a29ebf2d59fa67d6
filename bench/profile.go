package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// profileEnv tells the profiled lifeboat where its profile goes.
const profileEnv = "LIFEBOAT_BENCH_CPUPROFILE"

// profileSource joins package main of a lifeboat that is built for a profile;
// the one that people run has no such thing.
const profileSource = `package main

import (
	"os"
	"runtime/pprof"
)

func startProfile() (stop func()) {
	f, err := os.Create(os.Getenv("` + profileEnv + `"))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		panic(err)
	}
	return pprof.StopCPUProfile
}
`

// profileRow runs ours once more, in a build that profiles itself.
func profileRow(ctx context.Context, o options, r row, p paths, talk io.Writer) error {
	if o.cpuProfile == "" {
		return nil
	}
	dir, err := filepath.Abs(o.cpuProfile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	p.lifeboat = filepath.Join(dir, "lifeboat")
	if err := buildProfiled(ctx, p.lifeboat); err != nil {
		return err
	}
	c, out := r.ours, filepath.Join(dir, r.name+".pprof")
	c.env = append(c.env, profileEnv+"="+out)
	run := &runner{paths: p, talk: talk}
	if _, err := run.once(ctx, c); err != nil {
		return err
	}
	fmt.Fprintf(talk, "go tool pprof -top %s %s\n", p.lifeboat, out)
	return os.RemoveAll(p.out)
}

// buildProfiled builds lifeboat with an overlay: main.go with the profile
// started first and stopped last, and profileSource beside it.
func buildProfiled(ctx context.Context, binary string) error {
	dir, err := os.MkdirTemp("", "lifeboat-profile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := writeOverlay(dir)
	if err != nil {
		return err
	}
	return build(ctx, "-overlay", overlay, "-o", binary, "./cmd/lifeboat")
}

func writeOverlay(dir string) (string, error) {
	cmd, err := filepath.Abs(filepath.Join("cmd", "lifeboat"))
	if err != nil {
		return "", err
	}
	main, err := os.ReadFile(filepath.Join(cmd, "main.go"))
	if err != nil {
		return "", err
	}
	profiled, err := profiledMain(main)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for name, source := range map[string][]byte{"main.go": profiled, "benchprofile.go": []byte(profileSource)} {
		replace[filepath.Join(cmd, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), source, 0o644); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o644)
}

// profiledMain puts the profile around everything in main.
func profiledMain(main []byte) ([]byte, error) {
	for _, edit := range [][2]string{
		{"func main() {\n", "func main() {\n\tstopProfile := startProfile()\n"},
		{"\tos.Exit(", "\tstopProfile()\n\tos.Exit("},
	} {
		if n := bytes.Count(main, []byte(edit[0])); n != 1 {
			return nil, fmt.Errorf("main.go of lifeboat has %q %d times: profile.go must change with it", edit[0], n)
		}
		main = bytes.Replace(main, []byte(edit[0]), []byte(edit[1]), 1)
	}
	return main, nil
}

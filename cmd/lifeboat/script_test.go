package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lifeboat": main})
}

// TestScripts runs the command scripts of testdata/script, named by command.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		Setup:         scriptSetup,
		Cmds:          scriptCommands,
		Condition:     scriptCondition,
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
	})
}

// scriptCondition knows [root].
func scriptCondition(name string) (bool, error) {
	if name != "root" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return os.Geteuid() == 0, nil
}

func TestRunReportsUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown command": {"bakcup"},
		"unknown flag":    {"version", "--nope"},
		"too many":        {"version", "extra"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, talk discard
			if code := run(context.Background(), args, &env{Stdout: &out, Stderr: &talk, Getenv: os.Getenv}); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			if talk == 0 || out != 0 {
				t.Errorf("%d bytes on stderr, %d on stdout: want the message on stderr", talk, out)
			}
		})
	}
}

// discard counts what is written to it.
type discard int

func (d *discard) Write(p []byte) (int, error) {
	*d += discard(len(p))
	return len(p), nil
}

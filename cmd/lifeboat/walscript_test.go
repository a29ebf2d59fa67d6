package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// scriptCommands are what the scripts may use beside testscript's own.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"fixture":  scriptFixture,
	"flip":     scriptFlip,
	"cut":      scriptCut,
	"hold":     scriptHold,
	"exitcode": scriptExitCode,
}

// scriptTest is the key of the running test among a script's values.
type scriptTest struct{}

func scriptSetup(e *testscript.Env) error {
	t, ok := e.T().(testing.TB)
	if !ok {
		return fmt.Errorf("%T is no testing.TB", e.T())
	}
	e.Values[scriptTest{}] = t
	return nil
}

// scriptFixture unpacks a fixture and names its data dir: fixture NAME VAR.
func scriptFixture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fixture NAME VARIABLE")
	}
	ts.Setenv(args[1], fixture.DataDir(ts.Value(scriptTest{}).(testing.TB), args[0]))
}

// scriptFlip changes a bit: flip FILE OFFSET.
func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	path, n := fileAndNumber(ts, neg, args, "flip FILE OFFSET")
	data, err := os.ReadFile(path)
	ts.Check(err)
	data[n] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// scriptCut cuts a file: cut FILE SIZE.
func scriptCut(ts *testscript.TestScript, neg bool, args []string) {
	path, n := fileAndNumber(ts, neg, args, "cut FILE SIZE")
	ts.Check(os.Truncate(path, n))
}

// scriptExitCode runs a program that must end so: exitcode CODE PROGRAM ARG...
func scriptExitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE PROGRAM ARG...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

func fileAndNumber(ts *testscript.TestScript, neg bool, args []string, usage string) (path string, n int64) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: %s", usage)
	}
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	return ts.MkAbs(args[0]), n
}

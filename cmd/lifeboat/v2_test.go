package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestV2KeepsEtcdctlExitCodes checks that the codes of v2 are etcdctl's, and
// that nothing is said twice.
func TestV2KeepsEtcdctlExitCodes(t *testing.T) {
	dead := "--endpoints=http://127.0.0.1:1"
	for _, c := range []struct {
		args   []string
		code   int
		stderr string // its first line
	}{
		{[]string{"get"}, 1, "Error:  key required"},
		{[]string{"get", "--nosuch"}, 1, "flag provided but not defined: -nosuch"},
		{[]string{dead, "get", "/k"}, 2, "Error:  client: etcd cluster is unavailable or misconfigured; error #0: dial tcp 127.0.0.1:1: connect: connection refused"},
		{[]string{"nosuch"}, 3, "No help topic for 'nosuch'"},
		{[]string{dead, "-no-sync", "get", "/k"}, 4, "Error:  client: etcd cluster is unavailable or misconfigured; error #0: dial tcp 127.0.0.1:1: connect: connection refused"},
		{[]string{"help"}, 0, ""},
	} {
		var out, talk bytes.Buffer
		e := &env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk, Getenv: func(string) string { return "" }}
		root := &cobra.Command{Use: "lifeboat", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(newV2Command(e))
		root.SetArgs(append([]string{"v2"}, c.args...))
		err := root.ExecuteContext(t.Context())
		code := 0
		var exit *exitError
		if errors.As(err, &exit) {
			code = exit.code
		}
		if first, _, _ := strings.Cut(talk.String(), "\n"); code != c.code || first != c.stderr {
			t.Errorf("%v: exit code %d, %q; want %d, %q", c.args, code, first, c.code, c.stderr)
		}
		if err != nil && err.Error() != "" {
			t.Errorf("%v: says once more: %v", c.args, err)
		}
	}
}

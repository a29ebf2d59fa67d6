package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/etcdctl2"
)

// newV2Command is the etcdctl v2 client. Its exit codes are etcdctl's.
func newV2Command(e *env) *cobra.Command {
	cmd := etcdctl2.New(etcdctl2.IO{Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr, Getenv: e.Getenv})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var failure *etcdctl2.Failure
		if errors.As(err, &failure) {
			return withExit(failure.Code, errSilent)
		}
		return err
	}
	return cmd
}

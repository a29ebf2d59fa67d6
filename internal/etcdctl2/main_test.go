package etcdctl2_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/etcdctl2"
)

// TestMain lets the tests run this binary as "lifeboat v2".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lifeboat": lifeboat})
}

func lifeboat() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	root := &cobra.Command{Use: "lifeboat", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(etcdctl2.New(etcdctl2.IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv}))
	err := root.ExecuteContext(ctx)
	var failure *etcdctl2.Failure
	if errors.As(err, &failure) {
		os.Exit(failure.Code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lifeboat:", err)
		os.Exit(1)
	}
}

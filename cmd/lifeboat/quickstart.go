package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// quickstartLimit is how long the whole story may take.
const quickstartLimit = 2 * time.Minute

func newQuickstartCommand(e *env) *cobra.Command {
	var v2 bool
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "Show a backup, an accident and the way back, on a server in a temporary dir",
		Long: `Quickstart plays the whole story with real data in a temporary dir: start an
etcd, write keys, save an encrypted backup into a repository, wreck the data dir,
see that it no longer boots, verify the backup by booting it, restore it, boot
that, and compare every key. With --v2 it is the story of a data dir with v2 data
and 'lifeboat backup'.

Each command is printed before it runs, as you could type it. It listens on
loopback ports that the kernel picks, and leaves nothing behind.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), quickstartLimit)
			defer cancel()
			if v2 {
				return quickstart(ctx, e, storyV2)
			}
			return quickstart(ctx, e, storyV3)
		},
	}
	cmd.Flags().BoolVar(&v2, "v2", false, "with v2 data, and a backup from dir to dir")
	return cmd
}

// quickstart plays the story, and cleans up after it however it ends.
func quickstart(ctx context.Context, e *env, story func(*shell) error) error {
	dir, err := atomicfile.NewTempDir("", "quickstart")
	if err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	s, err := newShell(ctx, e, dir.Path)
	if err == nil {
		err = story(s)
	}
	err = errors.Join(err, s.close(), dir.Remove())
	if err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	fmt.Fprintf(e.Stdout, "\nThe temporary dir is removed. To do it with your own data: lifeboat save --help\n")
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

type holdOptions struct {
	repo    repoFlag
	cluster string
	reason  string
	release bool
}

func newHoldCommand(e *env) *cobra.Command {
	var o holdOptions
	cmd := &cobra.Command{
		Use:   "hold --repo REPO ID --reason TEXT",
		Short: "Keep a backup from being pruned, or let it go again",
		Long: `Hold keeps a backup from being pruned for as long as the hold stands, whatever
the rules; --release takes it away. ID is an id or the beginning of one, latest
or latest-verified.`,
		Example: `  lifeboat hold --repo /backup/etcd latest --reason 'before the upgrade to 3.7'
  lifeboat hold --repo /backup/etcd 20261120T030000Z --release`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.reason == "") != o.release {
				return withExit(exitUsage, errors.New("one of --reason and --release is needed"))
			}
			if err := o.run(cmd.Context(), e, args[0]); err != nil {
				return repoExit(fmt.Errorf("hold: %w", err))
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.cluster, "cluster", "", "name of the cluster in the repository (default: the only one there)")
	f.StringVar(&o.reason, "reason", "", "why, for whoever finds the hold later")
	f.BoolVar(&o.release, "release", false, "take the hold away")
	return cmd
}

func (o *holdOptions) run(ctx context.Context, e *env, id string) error {
	sel, err := (&pickFlags{cluster: o.cluster}).selector(id)
	if err != nil {
		return err
	}
	repo, err := o.repo.open(ctx, e)
	if err != nil {
		return err
	}
	b, _, err := repo.Find(ctx, sel)
	if err != nil {
		return err
	}
	if o.release && b.Hold == nil {
		_, err = fmt.Fprintf(e.Stdout, "%s of %s is not held\n", b.ID(), b.Cluster())
		return err
	}
	if o.release {
		if err := repo.Release(ctx, b); err != nil {
			return err
		}
		_, err = fmt.Fprintf(e.Stdout, "Released %s of %s: the next prune decides by its rules\n", b.ID(), b.Cluster())
		return err
	}
	if err := repo.Hold(ctx, b, o.reason); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "Held %s of %s: no prune removes it\n", b.ID(), b.Cluster())
	return err
}

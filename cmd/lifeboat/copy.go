package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

type copyOptions struct {
	repo repoFlag
	to   string
	pick pickFlags
	all  bool
	init bool
}

func newCopyCommand(e *env) *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "copy --repo REPO --to REPO [ID|latest]",
		Short: "Copy backups to another repository",
		Long: `Copy puts a backup, or with --all every one, into another repository too: the
stored bytes as they are, encrypted for the same keys, under the same id. Each
byte is checked against the manifest on the way; one that is damaged is not
copied. What is there already is left as it is, so a copy that was broken off is
just started again.

Proofs and holds stay where they are: verify the copies where they lie.`,
		Example: `  lifeboat copy --repo /backup/etcd --to s3://backups/etcd latest
  lifeboat copy --repo /backup/etcd --to s3://backups/etcd --all`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.Join(args, "")
			switch {
			case o.to == "":
				return withExit(exitUsage, errors.New("--to is needed: the repository to copy to"))
			case o.all && (id != "" || o.pick.before != ""):
				return withExit(exitUsage, errors.New("--all takes no id and no --before"))
			}
			if err := o.run(cmd.Context(), e, id); err != nil {
				return repoExit(fmt.Errorf("copy: %w", err))
			}
			return nil
		},
	}
	f := cmd.Flags()
	o.repo.addFlag(cmd)
	f.StringVar(&o.to, "to", "", "the repository to copy to")
	o.pick.addFlags(cmd)
	f.BoolVar(&o.all, "all", false, "copy every backup that --cluster and --label leave")
	f.BoolVar(&o.init, "init", false, "make the repository to copy to, if its place is empty")
	return cmd
}

func (o *copyOptions) run(ctx context.Context, e *env, id string) error {
	from, err := o.repo.open(ctx, e)
	if err != nil {
		return err
	}
	chosen, err := o.choose(ctx, e, from, id)
	if err != nil {
		return err
	}
	to, err := o.target(ctx, e)
	if err != nil {
		return err
	}
	if from.ID() == to.ID() {
		return fmt.Errorf("%s and %s are the same repository", from, to)
	}
	var errs []error
	for _, b := range chosen {
		if err := copyOne(ctx, e, from, to, b); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return worst(errs)
}

// target opens the repository to copy to, and makes it if that is wanted.
func (o *copyOptions) target(ctx context.Context, e *env) (*repository.Repository, error) {
	flag := repoFlag{location: o.to}
	if !o.init {
		return flag.open(ctx, e)
	}
	store, err := flag.store(ctx, e, location.Options{Create: true})
	if err != nil {
		return nil, err
	}
	return repository.OpenOrInit(ctx, store, repository.InitOptions{Tool: tool()})
}

func (o *copyOptions) choose(ctx context.Context, e *env, from *repository.Repository, id string) ([]*repository.Backup, error) {
	sel, err := o.pick.selector(id)
	if err != nil {
		return nil, withExit(exitUsage, err)
	}
	if !o.all {
		b, why, err := from.Find(ctx, sel)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(e.Stderr, "copying %s: %s\n", b.ID(), why)
		return []*repository.Backup{b}, nil
	}
	listing, err := from.List(ctx, sel.Cluster)
	if err != nil {
		return nil, err
	}
	if err := listingDamage(from, listing); err != nil {
		fmt.Fprintf(e.Stderr, "warning: %v\n", err)
	}
	var chosen []*repository.Backup
	for _, b := range listing.Backups {
		if hasLabels(b, sel.Labels) {
			chosen = append(chosen, b)
		}
	}
	return chosen, noneOf(from, chosen)
}

func copyOne(ctx context.Context, e *env, from, to *repository.Repository, b *repository.Backup) error {
	_, size := b.Size()
	bar := newProgress(e.Stderr, "copy "+b.ID(), size)
	err := repository.Copy(ctx, from, to, b, bar.set)
	bar.done()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.Stdout, "Copied %s of %s to %s\n", b.ID(), b.Cluster(), to)
	return err
}

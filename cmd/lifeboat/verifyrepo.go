package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/prove"
	"github.com/etcd-lifeboat/lifeboat/repository"
)

// verifyRepoOptions are the flags of verify that are for a repository.
type verifyRepoOptions struct {
	repo       repoFlag
	pick       pickFlags
	identities identityFlags
	all        bool
	share      string
	scratch    string
}

// runRepo verifies backups in a repository, the one whose proof is oldest first.
func (o *verifyOptions) runRepo(ctx context.Context, e *env, level prove.Level) error {
	ids, err := o.stored.identities.read(e)
	if err != nil {
		return err
	}
	repo, err := o.stored.repo.open(ctx, e)
	if err != nil {
		return err
	}
	chosen, unread, err := o.choose(ctx, e, repo)
	if err != nil {
		return err
	}
	options := prove.StoredOptions{Level: level, Identities: ids, Binary: o.binary, Scratch: o.stored.scratch, Tool: tool()}
	reports := []*prove.Report{}
	var errs []error
	for _, b := range chosen {
		report, err := verifyStored(ctx, e, repo, b, options)
		if report != nil {
			reports = append(reports, report)
			err = errors.Join(err, verdict(report))
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return errors.Join(o.printProofs(e, reports), worst(append(errs, unread)))
}

// choose picks one backup, or all or a share of them; unread is what is wrong
// with what can't be chosen.
func (o *verifyOptions) choose(ctx context.Context, e *env, repo *repository.Repository) (chosen []*repository.Backup, unread, err error) {
	if !o.stored.all && o.stored.share == "" {
		sel, err := o.stored.pick.selector(o.path)
		if err != nil {
			return nil, nil, withExit(exitUsage, err)
		}
		sel.Damaged = true // an older one that is sound must not hide it
		b, why, err := repo.Find(ctx, sel)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(e.Stderr, "verifying %s: %s\n", b.ID(), why)
		return []*repository.Backup{b}, nil, nil
	}
	listing, err := repo.List(ctx, o.stored.pick.cluster)
	if err != nil {
		return nil, nil, err
	}
	if len(listing.Backups)+len(listing.Damaged) == 0 {
		return nil, nil, fmt.Errorf("%s: %w", repo, errNoBackups)
	}
	chosen, err = o.stored.part(listing.Backups)
	if err == nil {
		fmt.Fprintf(e.Stderr, "verifying %d of %d backups, that with the oldest proof first\n", len(chosen), len(listing.Backups))
	}
	return chosen, unreadable(repo, listing, chosen), err
}

// unreadable is the error for what the listing found damaged, but for the parts
// of chosen backups, of which their reports will tell.
func unreadable(repo *repository.Repository, l *repository.Listing, chosen []*repository.Backup) error {
	var errs []error
	for _, d := range l.Damaged {
		same := func(err error) bool { return errors.Is(err, d.Err) }
		if !slices.ContainsFunc(chosen, func(b *repository.Backup) bool { return slices.ContainsFunc(b.Damaged, same) }) {
			errs = append(errs, withExit(exitDamage, fmt.Errorf("%s: what can't be read can't be verified: %w", repo, d.Err)))
		}
	}
	return errors.Join(errs...)
}

// part is all, or the share of them whose proofs are oldest; of those never
// proven the newest comes first, since it is the one that would be restored.
func (o *verifyRepoOptions) part(all []*repository.Backup) ([]*repository.Backup, error) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b *repository.Backup) int {
		return cmp.Or(lastProof(a).Compare(lastProof(b)), b.Manifest.Started.Compare(a.Manifest.Started))
	})
	if o.share == "" || len(all) == 0 {
		return all, nil
	}
	share, err := parseShare(o.share)
	if err != nil {
		return nil, withExit(exitUsage, err)
	}
	return all[:max(1, int(math.Ceil(share*float64(len(all)))))], nil
}

// lastProof is when a backup was last verified, the zero time if never.
func lastProof(b *repository.Backup) time.Time {
	if n := len(b.Proofs); n > 0 {
		return b.Proofs[n-1].Time
	}
	return time.Time{}
}

// parseShare reads a percentage, as a part of 1.
func parseShare(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(number, 64)
	if err != nil || !ok || !(share > 0 && share <= 100) {
		return 0, fmt.Errorf("--share %q: want a percentage above 0, such as 25%%", text)
	}
	return share / 100, nil
}

func verifyStored(ctx context.Context, e *env, repo *repository.Repository, b *repository.Backup, o prove.StoredOptions) (*prove.Report, error) {
	_, size := b.Size()
	bar := newProgress(e.Stderr, "verify "+b.ID(), size)
	defer bar.done()
	o.Progress = bar.set
	report, err := prove.Stored(ctx, repo, b, o)
	if err != nil {
		err = fmt.Errorf("verify %s: %w", b.ID(), err)
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w\nIt is unpacked for this: give --scratch-dir DIR, or TMPDIR, with more room", err)
	}
	return report, err
}

func (o *verifyOptions) printProofs(e *env, reports []*prove.Report) error {
	if o.output == outputJSON {
		return printJSON(e.Stdout, reports)
	}
	var errs []error
	for _, r := range reports {
		errs = append(errs, printProof(e.Stdout, r))
	}
	return errors.Join(errs...)
}

// worst joins errors so that the exit code is that of damage, if one of them is
// about damage.
func worst(errs []error) error {
	slices.SortStableFunc(errs, func(a, b error) int { return cmp.Compare(urgency(a), urgency(b)) })
	return errors.Join(errs...)
}

func urgency(err error) int {
	var exit *exitError
	switch {
	case !errors.As(err, &exit):
		return 2
	case exit.code == exitDamage:
		return 0
	}
	return 1
}

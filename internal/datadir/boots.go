package datadir

import (
	"errors"
	"fmt"
)

// A Step is one change to a copy of a data dir, made so that a release boots it.
type Step string

// The steps, in the order in which they are taken.
const (
	// StepBackend makes a backend that holds nothing but the consistent index.
	// From 3.1.17 on etcd refuses a .snap without one.
	StepBackend Step = "make an empty v3 backend"
	// StepVersion sets the cluster version to 3.0.0. From 3.4.32 on etcd does
	// not raise it across a major release, and its v3 API stays shut.
	StepVersion Step = "raise the cluster version to 3.0.0"
	// StepPeerURL moves the peer URL that --force-new-cluster gives to the copy
	// away from the member that has it: 3.x refuses the copy as a member whose
	// URL is taken, and panics for want of a voter.
	StepPeerURL Step = "move the old member off the peer URL that the copy will get"
	// StepBlankV2 turns v2 requests into entries without data, at the same
	// index and term. 3.6 refuses any but its own, 3.7 panics on every one.
	StepBlankV2 Step = "blank the v2 requests in the log"
	// StepRaiseIndex raises the backend's consistent index past conf changes
	// that it holds already: 3.6 refuses to apply them twice.
	StepRaiseIndex Step = "raise the backend's consistent index past the membership changes"
	// StepRecord adds a snapshot record that says who votes. 3.7 takes the
	// voters from there, and from nowhere else waits for an election for ever.
	StepRecord Step = "add a snapshot record with the voters to the log"
)

// Tested are the releases whose verdict [Facts.Boots] knows, oldest first.
func Tested() []Release { return []Release{R23, R34, R35, R36, R37} }

// Boots says why release r would not boot the dir with --force-new-cluster, or
// nil. The rules are those of docs/versions.md.
func (f Facts) Boots(r Release) error {
	if r.Before(R30) {
		return f.boots2()
	}
	return f.boots3(r)
}

// boots2 is for 2.3.
func (f Facts) boots2() error {
	switch {
	case f.Backend:
		return errors.New("it has a v3 backend, which 2.x refuses")
	case f.Padded:
		return errors.New("its log has padded records, on which 2.x panics")
	case R23.Before(f.ClusterVersion):
		return fmt.Errorf("its cluster version is %s", f.ClusterVersion)
	}
	return nil
}

func (f Facts) boots3(r Release) error {
	switch {
	case r.Before(f.StorageVersion) && !(f.Fresh && r == R35): // 3.5 does not look at it
		return fmt.Errorf("its storage version is %s", f.StorageVersion)
	case r.Before(f.ClusterVersion) && !(f.Fresh && r.Before(R36)): // up to 3.5 the v2 store's counts
		return fmt.Errorf("its cluster version is %s, and etcd refuses a downgrade", f.ClusterVersion)
	case f.Snapshot && !f.Backend:
		return errors.New("it has a .snap and no v3 backend, on which etcd panics")
	case f.PeerURLTaken:
		return fmt.Errorf("a member has the peer URL %s, which --force-new-cluster gives to the copy", ForcedPeerURL)
	}
	if r.Before(R36) {
		return nil
	}
	return f.bootsWithoutV2(r)
}

// bootsWithoutV2 is for 3.6 and later, which have no v2 store for users.
func (f Facts) bootsWithoutV2(r Release) error {
	switch {
	case f.V2Data != "":
		return fmt.Errorf("it holds v2 user data (%s), which has no home in 3.6 and later", f.V2Data)
	case f.Origin.Before(R34):
		return fmt.Errorf("%s data has to pass through 3.4 or 3.5 first", f.Origin)
	case r == R36 && f.V2Others:
		return errors.New("its log holds v2 requests, which 3.6 refuses")
	case r == R37 && f.V2Entries:
		return errors.New("its log holds v2 requests, on which 3.7 panics")
	case f.ConfUnmarked:
		return errors.New("its backend holds membership changes past its consistent index, which 3.6 and later refuse to repeat")
	case r == R37 && f.BareRecord:
		return errors.New("its log does not say who votes, and 3.7 would wait for the old members")
	}
	return nil
}

// For returns the steps that make release r boot a copy, none if it does
// already. The error says what no step can change.
func (f Facts) For(r Release) ([]Step, error) {
	var steps []Step
	for _, step := range []Step{StepBackend, StepVersion, StepPeerURL, StepBlankV2, StepRaiseIndex, StepRecord} {
		if f.needs(step, r) {
			f = f.After(step)
			steps = append(steps, step)
		}
	}
	if err := f.Boots(r); err != nil {
		return nil, fmt.Errorf("etcd %s can't be made to boot it: %w", r, err)
	}
	return steps, nil
}

// ForOwn returns the steps without which not even the release that wrote the
// dir boots a copy of it.
func (f Facts) ForOwn() []Step {
	if f.needs(StepPeerURL, f.Origin) {
		return []Step{StepPeerURL}
	}
	return nil
}

func (f Facts) needs(step Step, r Release) bool {
	switch step {
	case StepBackend:
		return !r.Before(R30) && f.Snapshot && !f.Backend
	case StepVersion:
		return !r.Before(R34) && f.ClusterVersion != Release{} && f.ClusterVersion.Before(R30)
	case StepPeerURL:
		return !r.Before(R30) && f.PeerURLTaken
	case StepBlankV2:
		return r == R36 && f.V2Others || r == R37 && f.V2Entries
	case StepRaiseIndex:
		return !r.Before(R36) && f.ConfUnmarked
	case StepRecord:
		return r == R37 && f.BareRecord && f.Mark
	default:
		return false
	}
}

// After is what holds once the step is taken.
func (f Facts) After(step Step) Facts {
	switch step {
	case StepBackend:
		f.Backend = true
	case StepVersion:
		f.ClusterVersion = R30
	case StepPeerURL:
		f.PeerURLTaken = false
	case StepBlankV2:
		f.V2Entries, f.V2Others = false, false
	case StepRaiseIndex:
		f.ConfUnmarked = false
	case StepRecord:
		f.BareRecord = false
	}
	return f
}

package v3engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/restore"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Finding is what one check saw. Detail says what exactly was compared;
// Problems are differences and damage.
type Finding struct {
	Detail   string
	Problems []error
}

func (f *Finding) problem(format string, args ...any) {
	f.Problems = append(f.Problems, fmt.Errorf(format, args...))
}

// Checks takes the checks as they are made. An error says that a check could
// not be done: then it has not passed.
type Checks func(name string, check func(*Finding) error)

// VerifyOptions adjust a verification; the zero value uses the built-in etcd.
type VerifyOptions struct {
	Binary  string        // an etcd to boot the copy with
	Timeout time.Duration // for the boot; default: by size
	CloneOptions
}

// A Verification proves that v3 data is what it was, and boots.
//
// Start with [OfDir] or [OfFile], then CheckDigest, CheckSource, CheckBoot,
// Close.
type Verification struct {
	opts   VerifyOptions
	dir    *datadir.Dir    // nil for a file
	file   *restore.Source // nil for a dir
	source *backendFile    // nil: the dir has no backend
	want   figures
	log    *logLook // nil for a file
	looked bool     // CheckSource has run
	broken bool     // the source is
	absent bool     // there is no v3 data in the source, though the log tells of it

	ctx    context.Context // of CheckBoot
	server *Server
	copy   *Copy
	got    served
}

// OfDir is about a data dir: its backend is compared with its log; a copy is
// booted, asked for what the backend says must be there, and written to.
func OfDir(d *datadir.Dir, o VerifyOptions) *Verification {
	return &Verification{opts: o, dir: d, want: emptyFigures}
}

// OfFile is about a snapshot or a copied backend, which is restored to boot it.
func OfFile(src *restore.Source, o VerifyOptions) *Verification {
	return &Verification{opts: o, file: src, want: emptyFigures}
}

// Close closes the source's backend. It removes nothing: CheckBoot did.
func (v *Verification) Close() error {
	if v.source == nil {
		return nil
	}
	return v.source.Close()
}

// CheckDigest compares a snapshot with the SHA-256 at its end. Nothing else has
// one.
func (v *Verification) CheckDigest(checks Checks) {
	if v.file != nil && v.file.Kind == restore.KindSnapshot {
		v.check(checks, "v3 sha-256", v.trailer)
	}
}

// CheckSource looks at what lies there, and computes what a boot must bring.
func (v *Verification) CheckSource(checks Checks) {
	v.looked = true
	if v.backendPath() != "" {
		v.check(checks, "v3 contents", v.contents)
	}
	if v.dir != nil && !v.absent {
		v.check(checks, "v3 log and backend", v.withLog)
	}
}

// check runs a check of the source, unless one before it failed.
func (v *Verification) check(checks Checks, name string, run func(*Finding) error) {
	if v.broken {
		return
	}
	checks(name, func(f *Finding) error {
		err := run(f)
		v.broken = err != nil || len(f.Problems) > 0
		return err
	})
}

// backendPath is the source's; empty if a dir has none.
func (v *Verification) backendPath() string {
	switch {
	case v.file != nil:
		return v.file.Path
	case v.dir.Backend != nil:
		return v.dir.Backend.Path
	}
	return ""
}

func (v *Verification) trailer(f *Finding) error {
	b, err := os.Open(v.file.Path)
	if err != nil {
		return err
	}
	defer b.Close()
	f.Detail = fmt.Sprintf("over %d bytes", v.file.Size)
	return snapcodec.VerifyTrailer(b, v.file.Size+snapcodec.TrailerSize, snapcodec.DBOptions{Name: v.file.Path})
}

// contents reads all of the backend.
func (v *Verification) contents(f *Finding) error {
	b, err := openBackend(v.backendPath())
	if err != nil {
		return err
	}
	v.source = b
	report, err := b.Check()
	if err != nil {
		return err
	}
	absent, missing, err := bucketsOf(b.DB)
	if err != nil {
		return err
	}
	if f.Problems = slices.Concat(report.Problems, missing); len(f.Problems) > 0 {
		return nil
	}
	if v.absent = absent; absent {
		f.Detail = "a backend that a backup made: the v3 data is NOT in here"
		return nil
	}
	v.want, err = figuresOf(b.DB)
	f.Detail = fmt.Sprintf("%d entries; revision %d, %s, %d keys, hashKV %d",
		report.Entries, v.want.revision, Compacted(v.want.compact), v.want.keys, v.want.hash)
	return err
}

// withLog compares the backend with what the log still has of it.
func (v *Verification) withLog(f *Finding) (err error) {
	if v.log, err = lookAtLog(v.dir, v.want); err != nil || v.source == nil {
		f.Detail = "no backend: the boot makes it from the log"
		return err
	}
	c, err := v.log.compare(v.source.DB, v.log.applied, v.want.revision, v.want.compact)
	f.Problems, f.Detail = c.problems, c.String()
	if n := v.log.pending.requests; n > 0 {
		f.Detail += fmt.Sprintf("; the log is ahead by %d v3 requests", n)
	}
	return err
}

func (c comparison) String() string {
	return fmt.Sprintf("%d of %d records in the backend compared with the puts in the log", c.compared, c.records)
}

// CheckBoot boots a copy and asks it. The copy is removed. Nothing is booted
// whose source is not sound.
func (v *Verification) CheckBoot(ctx context.Context, checks Checks) {
	if v.absent {
		return
	}
	v.ctx = ctx
	checks("v3 boot", v.start)
	if v.copy != nil {
		defer v.copy.Remove()
	}
	if v.server == nil {
		return
	}
	checks("v3 revision", v.revision)
	checks("v3 hash", v.hash)
	checks("v3 keys", v.keys)
	checks("v3 leases", v.leases)
	checks("v3 auth", v.auth)
	checks("v3 alarms", v.alarms)
	checks("v3 write", v.write)
	if err := v.server.Close(); err != nil {
		checks("v3 stop", func(*Finding) error { return err })
		return
	}
	checks("v3 records", v.records)
}

func (v *Verification) clone(release datadir.Release) (*Copy, error) {
	if v.file != nil {
		return CloneFile(v.ctx, v.file)
	}
	return Clone(v.ctx, v.dir, release, v.opts.CloneOptions)
}

func (v *Verification) start(f *Finding) error {
	if v.broken || !v.looked {
		return errors.New("not tried: the v3 data is not sound")
	}
	engine, err := FindEngine(v.ctx, v.opts.Binary)
	if err != nil {
		return err
	}
	if v.copy, err = v.clone(engine.Release); err != nil {
		return err
	}
	began := time.Now()
	v.server, err = v.startOpen(engine)
	var refused *RefusedError
	if errors.As(err, &refused) {
		f.problem("%w%s", err, v.wayOut(engine.Release))
		f.Problems = append(f.Problems, logTail(refused)...)
		return nil
	}
	if err != nil {
		return err
	}
	if v.got, err = v.ask(); err != nil {
		err = errors.Join(err, v.server.Close())
		v.server = nil
		return err
	}
	f.Detail = fmt.Sprintf("%s, in %.1f s", engine, time.Since(began).Seconds())
	if len(v.copy.Steps) > 0 {
		var steps []string
		for _, s := range v.copy.Steps {
			steps = append(steps, string(s))
		}
		f.Detail += "; the copy was given: " + strings.Join(steps, ", ")
	}
	if v.log != nil && v.got.applied < v.log.commit {
		f.problem("it has applied up to index %d, and the log ends at %d", v.got.applied, v.log.commit)
	}
	return nil
}

// shownLines is how much of etcd's log a refusal shows.
const shownLines = 5

func logTail(e *RefusedError) []error {
	var lines []error
	for _, line := range e.Log[max(0, len(e.Log)-shownLines):] {
		lines = append(lines, errors.New("etcd's log: "+line))
	}
	return lines
}

// wayOut says what else boots the dir.
func (v *Verification) wayOut(tried datadir.Release) string {
	if v.dir == nil {
		return ""
	}
	var boots []string
	for _, r := range datadir.Tested() {
		if _, err := v.dir.Facts.For(r); err == nil && r != tried && !r.Before(datadir.R34) {
			boots = append(boots, r.String())
		}
	}
	if len(boots) == 0 {
		return ""
	}
	return fmt.Sprintf("\nA copy should boot in etcd %s: try --etcd-binary with one of these", strings.Join(boots, ", "))
}

// startOpen boots the copy. With users checked, nobody could look: then they
// are switched off in the copy, once everything is applied.
func (v *Verification) startOpen(engine Engine) (*Server, error) {
	o := Options{NoSync: true, Timeout: v.timeout()}
	s, err := engine.start(v.ctx, v.copy.Dir, o)
	if err != nil {
		return nil, err
	}
	on, err := s.authOn(v.ctx)
	if err != nil || !on {
		return s, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	if err := disableAuth(v.copy.backendPath()); err != nil {
		return nil, err
	}
	return engine.start(v.ctx, v.copy.Dir, o)
}

// What a slow machine manages: bytes of backend and entries of log a second.
const (
	loadRate   = 10 << 20
	replayRate = 500
)

func (v *Verification) timeout() time.Duration {
	if v.opts.Timeout > 0 {
		return v.opts.Timeout
	}
	t := defaultBootTimeout
	if v.source != nil {
		t += time.Duration(v.source.Size()/loadRate) * time.Second
	}
	if v.dir != nil {
		t += time.Duration(v.dir.Log.Entries/replayRate) * time.Second
	}
	return t
}

// pending is what the boot adds to the source's backend.
func (v *Verification) pending() pending {
	if v.log == nil {
		return pending{}
	}
	return v.log.pending
}

func (v *Verification) revision(f *Finding) error {
	p := v.pending()
	low, high := v.want.revision+p.sure, v.want.revision+p.sure+p.maybe
	if v.got.revision > high && len(v.want.leases)+p.leases > 0 {
		f.Detail = "leases ran out since: "
		high = v.got.revision
	}
	f.Detail += fmt.Sprintf("%d", v.got.revision)
	switch {
	case v.got.revision < low || v.got.revision > high:
		f.problem("revision %d, want %s", v.got.revision, between(low, high))
	case p.requests > 0:
		f.Detail += fmt.Sprintf(": the backend's %d and the %d v3 requests after it in the log make %s",
			v.want.revision, p.requests, between(low, high))
	}
	lowest, highest := v.want.compact, max(v.want.compact, p.compacted)
	f.Detail += ", " + Compacted(v.got.compact)
	if v.got.compact < lowest || v.got.compact > highest {
		f.problem("compacted at revision %d, want %s", v.got.compact, between(lowest, highest))
	}
	return nil
}

func between(low, high int64) string {
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// hash compares at the backend's revision: what came after does not count.
func (v *Verification) hash(f *Finding) error {
	switch {
	case v.got.compact != v.want.compact:
		f.Detail = fmt.Sprintf("the log compacts past the backend (%d, then %d): its records are compared one by one instead", v.want.compact, v.got.compact)
	case v.want.compact > 0 && v.server.Engine.oldHash():
		f.Detail = fmt.Sprintf("%s hashes compacted deletions otherwise: the records are compared one by one instead", v.server.Engine)
	case v.got.hash != v.want.hash:
		f.problem("hashKV %d at revision %d, want %d", v.got.hash, v.want.revision, v.want.hash)
	default:
		f.Detail = fmt.Sprintf("hashKV %d at revision %d", v.got.hash, v.want.revision)
	}
	return nil
}

func (v *Verification) keys(f *Finding) error {
	if v.got.compact > v.want.revision {
		f.Detail = fmt.Sprintf("%d now; the log compacts past revision %d of the backend, which has %d", v.got.keysNow, v.want.revision, v.want.keys)
		return nil
	}
	f.Detail = fmt.Sprintf("%d at revision %d", v.got.keys, v.want.revision)
	if v.got.keys != v.want.keys {
		f.problem("%d keys at revision %d, want %d", v.got.keys, v.want.revision, v.want.keys)
	}
	return nil
}

// leases may run out while we look: those granted for no longer than that.
func (v *Verification) leases(f *Finding) error {
	f.Detail = fmt.Sprintf("%d", len(v.got.leases))
	if v.pending().leases > 0 {
		f.Detail += fmt.Sprintf("; the backend has %d, the log changes some after it: not compared one by one", len(v.want.leases))
		return nil
	}
	short, err := v.shortLeases()
	if err != nil {
		return err
	}
	for _, id := range v.want.leases {
		if _, held := slices.BinarySearch(v.got.leases, id); !held && !short[id] {
			f.problem("lease %x is gone", id)
		}
	}
	for _, id := range v.got.leases {
		if _, known := slices.BinarySearch(v.want.leases, id); !known {
			f.problem("lease %x came from nowhere", id)
		}
	}
	return nil
}

// shortLeases are those that may have run out since the boot.
func (v *Verification) shortLeases() (map[int64]bool, error) {
	short := map[int64]bool{}
	if v.source == nil {
		return short, nil
	}
	limit := int64(v.got.asked.Seconds()) + 2
	err := v.source.Leases(func(l snapcodec.Lease) error {
		left := l.TTL
		if l.RemainingTTL > 0 {
			left = l.RemainingTTL
		}
		short[l.ID] = left <= limit
		return nil
	})
	return short, err
}

func (v *Verification) auth(f *Finding) error {
	f.Detail = fmt.Sprintf("%d users, %d roles", len(v.got.users), len(v.got.roles))
	if v.pending().auth > 0 {
		f.Detail += fmt.Sprintf("; the backend has %d and %d, the log changes some after it: not compared one by one", len(v.want.users), len(v.want.roles))
		return nil
	}
	if !slices.Equal(v.got.users, v.want.users) {
		f.problem("users %q, want %q", v.got.users, v.want.users)
	}
	if !slices.Equal(v.got.roles, v.want.roles) {
		f.problem("roles %q, want %q", v.got.roles, v.want.roles)
	}
	return nil
}

// alarms that the dir brings along stop writes: a dir that can't be written to
// is no good to restore, though it boots.
func (v *Verification) alarms(f *Finding) error {
	f.Detail = "none"
	for _, a := range v.got.alarms {
		f.problem("alarm %s: it boots, but refuses writes until the cause is gone and the alarm cleared (compact, defrag, etcdctl alarm disarm)", a)
	}
	if v.pending().alarms == 0 && !slices.Equal(v.got.alarms, v.want.alarms) {
		f.problem("alarms %q, want %q", v.got.alarms, v.want.alarms)
	}
	return nil
}

// records compares the copy's backend, now at rest, with the source's.
func (v *Verification) records(f *Finding) error {
	booted, err := openBackend(v.copy.backendPath())
	if err != nil {
		return err
	}
	defer booted.Close()
	if v.source != nil {
		n, problems, err := compareRecords(v.source.DB, booted.DB, v.want.revision, v.got.compact)
		if err != nil {
			return err
		}
		f.Problems, f.Detail = problems, fmt.Sprintf("%d records are the source's", n)
	}
	if v.pending().requests == 0 {
		return nil
	}
	c, err := v.log.compare(booted.DB, v.log.commit, v.got.revision, v.got.compact)
	if err != nil {
		return err
	}
	f.Problems = append(f.Problems, c.problems...)
	f.Detail = strings.TrimPrefix(f.Detail+"; after the boot "+c.String(), "; ")
	return nil
}

// Compacted says up to where history is gone; etcd keeps -1 for nowhere.
func Compacted(revision int64) string {
	if revision <= 0 {
		return "never compacted"
	}
	return fmt.Sprintf("compacted at %d", revision)
}

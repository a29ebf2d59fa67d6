package prove

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// StoredOptions adjust [Stored]; the zero value goes up to a boot.
type StoredOptions struct {
	Level      Level // "": Boot
	Identities repository.Identities
	Binary     string // an etcd to boot v3 data with; "": the built-in 3.7
	Scratch    string // where the backup is unpacked; "": TMPDIR
	Tool       string // that the proof names
	Progress   func(done, total int64)
}

// Stored verifies a backup in a repository and writes the proof beside it. At
// level digest the stored bytes are compared with the manifest, for which no
// key is needed; at the others the backup is also unpacked to a temporary dir,
// verified there as [Verify] does, and what it holds compared with what the
// manifest says. The error says that the verification could not be done or its
// proof not be written.
func Stored(ctx context.Context, repo *repository.Repository, b *repository.Backup, o StoredOptions) (*Report, error) {
	if o.Level == "" {
		o.Level = Boot
	}
	began := time.Now()
	m := b.Manifest
	s := stored{repo: repo, backup: b, opts: o, report: &Report{
		Path: fmt.Sprintf("%s, backup %s of %s", repo, b.ID(), b.Cluster()), Kind: "backup (" + string(m.Kind) + ")",
		Level: o.Level, Etcd: m.EtcdVersion, NodeID: m.MemberID, ClusterID: m.ClusterID,
		Result: Passed, Checks: []Check{}, Time: began.UTC().Format(time.RFC3339),
	}}
	if err := s.verify(ctx); err != nil {
		return nil, err
	}
	s.report.Seconds = time.Since(began).Seconds()
	return s.report, repo.AddProof(ctx, b, s.proof(began))
}

// stored is a backup under verification.
type stored struct {
	repo   *repository.Repository
	backup *repository.Backup
	opts   StoredOptions
	report *Report
	found  facts
}

// facts are what the unpacked backend holds.
type facts struct {
	known    bool
	revision int64
	compact  int64
	hash     uint32
	keys     int64
}

func (s *stored) verify(ctx context.Context) error {
	var failed error
	s.report.check(Digest, "stored parts", func(f *finding) error {
		failed = s.digests(ctx, f)
		return failed
	})
	if failed != nil || s.report.Result != Passed || s.opts.Level == Digest {
		return failed
	}
	tmp, err := atomicfile.NewTempDir(s.opts.Scratch, "verify")
	if err != nil {
		return err
	}
	return errors.Join(s.unpacked(ctx, tmp.Path), tmp.Remove())
}

// digests reads everything that is stored.
func (s *stored) digests(ctx context.Context, f *finding) error {
	_, size := s.backup.Size()
	f.detail = fmt.Sprintf("%s, %d bytes", count(len(s.backup.Manifest.Parts), "part"), size)
	damage, err := s.repo.CheckDigests(ctx, s.backup, s.progress)
	for _, d := range damage {
		f.problem(d)
	}
	if len(damage) == 0 && err == nil {
		f.detail += ", SHA-256 as in the manifest"
	}
	return err
}

func (s *stored) progress(done, total int64) {
	if s.opts.Progress != nil {
		s.opts.Progress(done, total)
	}
}

// unpacked verifies what the parts hold.
func (s *stored) unpacked(ctx context.Context, dir string) error {
	var failed error
	s.report.check(Digest, "unpacked parts", func(f *finding) error {
		failed = s.unpack(ctx, dir, f)
		return failed
	})
	if failed != nil || s.report.Result != Passed {
		return failed
	}
	path := dir
	if s.backup.Manifest.Kind == repository.Live {
		path = filepath.Join(dir, liveDB)
	}
	inner, err := Verify(ctx, path, Options{Level: s.opts.Level, Binary: s.opts.Binary})
	if err != nil {
		return err
	}
	s.report.Note = inner.Note
	s.report.check(Structure, "manifest", func(f *finding) error { return s.manifest(dir, f) })
	for _, c := range inner.Checks {
		s.report.add(c)
	}
	return nil
}

// liveDB is the part that a live backup has: the snapshot.
const liveDB = "db"

// unpack loads the parts that a restore needs. Damage is the report's; any
// other error ends the verification.
func (s *stored) unpack(ctx context.Context, dir string, f *finding) error {
	plain, _ := s.backup.Size()
	f.detail = fmt.Sprintf("decrypted and decompressed: %d bytes, SHA-256 as in the manifest", plain)
	err := s.repo.Load(ctx, s.backup, dir, s.opts.Identities, repository.LoadOptions{Progress: s.progress})
	var damage *repository.DamageError
	if errors.As(err, &damage) {
		f.problem(damage)
		return nil
	}
	return err
}

// manifest compares what the manifest says of the keys with what is there.
func (s *stored) manifest(dir string, f *finding) error {
	part, ok := s.backend()
	if !ok {
		f.detail = "it has no v3 backend to compare"
		return nil
	}
	if err := s.look(filepath.Join(dir, filepath.FromSlash(part.Name))); err != nil {
		return err
	}
	m, got := s.backup.Manifest, s.found
	f.detail = fmt.Sprintf("revision %d, %s, hashKV %d, %s", got.revision, v3engine.Compacted(got.compact), got.hash, count(int(got.keys), "key"))
	differ := func(what string, got, want int64) {
		if got != want {
			f.problem(fmt.Errorf("%s %d, the manifest says %d", what, got, want))
		}
	}
	differ("revision", got.revision, m.Revision)
	differ("compact revision", max(got.compact, 0), max(m.CompactRevision, 0))
	if m.HashKV != nil && m.HashRevision == got.revision {
		differ("hashKV", int64(got.hash), int64(*m.HashKV))
	}
	if m.Keys != nil {
		differ("number of keys", got.keys, *m.Keys)
	}
	return nil
}

func (s *stored) backend() (repository.Part, bool) {
	for _, p := range s.backup.Manifest.Parts {
		if p.Role == repository.RoleDB {
			return p, true
		}
	}
	return repository.Part{}, false
}

// look reads the facts of the backend at path.
func (s *stored) look(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if snapcodec.HasTrailer(size) {
		size -= snapcodec.TrailerSize
	}
	db, err := snapcodec.OpenDB(file, size, snapcodec.DBOptions{Name: filepath.Base(path)})
	if err != nil {
		return err
	}
	status, err := db.Status()
	if err != nil {
		return err
	}
	hash, err := db.HashKV(0)
	if err != nil {
		return err
	}
	s.found = facts{known: true, revision: hash.CurrentRevision, compact: hash.CompactRevision, hash: hash.Hash, keys: status.TotalKey}
	return nil
}

// proof is the report as the repository keeps it.
func (s *stored) proof(began time.Time) repository.Proof {
	host, _ := os.Hostname() // for people to read; without one it is empty
	p := repository.Proof{
		Time: began.UTC(), Seconds: s.report.Seconds, Level: s.report.Level, Result: s.report.Result,
		Tool: s.opts.Tool, Etcd: s.opts.Binary, Host: host,
	}
	for _, c := range s.report.Checks {
		check := repository.Check{Name: c.Name, Result: c.Result, Detail: c.Detail}
		if len(c.Problems) > 0 {
			check.Detail = c.Problems[0]
		}
		p.Checks = append(p.Checks, check)
	}
	if s.found.known {
		p.Revision, p.HashKV, p.Keys = s.found.revision, &s.found.hash, &s.found.keys
	}
	return p
}

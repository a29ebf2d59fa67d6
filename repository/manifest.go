package repository

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Kind is how a backup was taken.
type Kind string

// The kinds.
const (
	Live  Kind = "live"  // a snapshot streamed by a running member
	Files Kind = "files" // a member's own files
)

// Role is what a part is for.
type Role string

// The roles.
const (
	RoleDB      Role = "db"      // the v3 backend, or a v3 snapshot with the SHA-256 at its end
	RoleSnap    Role = "snap"    // a .snap file
	RoleWAL     Role = "wal"     // a segment of the log
	RoleInclude Role = "include" // a file that was saved along
)

// Manifest describes a backup. Its presence is the backup's commit.
//
// Pointers are nil for what is not known; Notes say why.
type Manifest struct {
	Format int `json:"format"`

	ID       string    `json:"id"`
	Cluster  string    `json:"cluster"` // name in the repository
	Kind     Kind      `json:"kind"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`

	ClusterID  string   `json:"cluster_id,omitempty"` // hex, as etcd prints it
	MemberID   string   `json:"member_id,omitempty"`  // hex, as etcd prints it
	MemberName string   `json:"member_name,omitempty"`
	Endpoint   string   `json:"endpoint,omitempty"` // that served a live backup
	Members    []Member `json:"members,omitempty"`

	EtcdVersion     string  `json:"etcd_version,omitempty"`
	StorageVersion  string  `json:"storage_version,omitempty"`
	RaftTerm        uint64  `json:"raft_term,omitempty"`
	RaftIndex       uint64  `json:"raft_index,omitempty"`
	Revision        int64   `json:"revision,omitempty"`
	CompactRevision int64   `json:"compact_revision,omitempty"`
	HashKV          *uint32 `json:"hash_kv,omitempty"`
	HashRevision    int64   `json:"hash_revision,omitempty"` // that HashKV is of
	Keys            *int64  `json:"keys,omitempty"`          // live keys at Revision
	V2              bool    `json:"v2,omitempty"`            // holds v2 data

	Parts       []Part            `json:"parts"`
	Compression string            `json:"compression"`          // "zstd"
	Encryption  string            `json:"encryption,omitempty"` // "age" or empty
	Recipients  []string          `json:"recipients,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Notes       []string          `json:"notes,omitempty"`
	Tool        string            `json:"tool"` // that wrote it, with its version
}

// Member is a member of the cluster at the time of the backup.
type Member struct {
	ID         string   `json:"id"` // hex
	Name       string   `json:"name,omitempty"`
	PeerURLs   []string `json:"peer_urls,omitempty"`
	ClientURLs []string `json:"client_urls,omitempty"`
	Learner    bool     `json:"learner,omitempty"`
}

// Part is one file of a backup.
type Part struct {
	// Name is the file's path, with slashes, below where it is restored to:
	// "db", "member/wal/0000000000000000-0000000000000000.wal",
	// "include/etc/kubernetes/pki/ca.crt".
	Name   string   `json:"name"`
	Object string   `json:"object"` // file name below the backup's folder in the store
	Role   Role     `json:"role"`
	Mode   FileMode `json:"mode,omitempty"` // permissions to restore; 0: those of a new file

	Size         int64  `json:"size"`          // plain, bytes
	SHA256       string `json:"sha256"`        // plain, hex
	StoredSize   int64  `json:"stored_size"`   // compressed and encrypted, bytes
	StoredSHA256 string `json:"stored_sha256"` // compressed and encrypted, hex
}

// FileMode is the permissions of a file; in JSON octal, as "0600".
type FileMode uint32

// Perm returns the permission bits.
func (m FileMode) Perm() fs.FileMode { return fs.FileMode(m) & fs.ModePerm }

// MarshalText writes m in octal.
func (m FileMode) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%04o", uint32(m)), nil
}

// UnmarshalText reads octal.
func (m *FileMode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 12)
	*m = FileMode(n)
	return err
}

// Hold keeps a backup from being pruned.
type Hold struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason"`
	Host    string    `json:"host,omitempty"`
}

// PruneMark says that the removal of a backup is under way.
type PruneMark struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host,omitempty"`
}

// Backup is a committed backup with what is known of it.
type Backup struct {
	Manifest Manifest
	Proofs   []Proof    // oldest first
	Unread   []Damaged  // proofs that can't be read: each may be the one that found damage
	Hold     *Hold      // set too if there is a hold that can't be read
	Pruned   *PruneMark // set too if there is a mark that can't be read
	// Damaged is what the listing found wrong: parts that are gone or have
	// another size. No digest was checked for it.
	Damaged []error
	// Stray are objects in the backup's folder that the manifest doesn't name:
	// left by a Put that was tried again. They go with the backup.
	Stray []string

	repo   *Repository
	digest string // SHA-256 of the manifest's compact JSON
}

// ID is the backup's id.
func (b *Backup) ID() string { return b.Manifest.ID }

// Cluster is the name of the cluster that it is of.
func (b *Backup) Cluster() string { return b.Manifest.Cluster }

// Digest is the SHA-256, in hex, of the manifest's content: backups with the
// same one are the same backup.
func (b *Backup) Digest() string { return b.digest }

// Size returns the plain and the stored bytes of all parts.
func (b *Backup) Size() (plain, stored int64) {
	for _, p := range b.Manifest.Parts {
		plain += p.Size
		stored += p.StoredSize
	}
	return plain, stored
}

// Part returns a part by its name, or fails with [ErrNotExist].
func (b *Backup) Part(name string) (Part, error) {
	for _, p := range b.Manifest.Parts {
		if p.Name == name {
			return p, nil
		}
	}
	return Part{}, fmt.Errorf("backup %s: part %s: %w", b.ID(), name, ErrNotExist)
}

// key is where an object of the backup lies.
func (b *Backup) key(name string) string {
	return backupPrefix(b.Manifest.Cluster, b.Manifest.ID) + name
}

// The only ways in which format 1 stores parts.
const (
	compressionZstd = "zstd"
	encryptionAge   = "age"
)

var roles = []Role{RoleDB, RoleSnap, RoleWAL, RoleInclude}

func checkRole(r Role) error {
	if !slices.Contains(roles, r) {
		return fmt.Errorf("role %q: want one of %v", r, roles)
	}
	return nil
}

// check says what no manifest of this format holds.
func (b *Backup) check() error {
	m := &b.Manifest
	began, err := idBegan(m.ID)
	if err := errors.Join(err, CheckCluster(m.Cluster), checkLabels(m.Labels)); err != nil {
		return err
	}
	switch {
	case m.Kind != Live && m.Kind != Files:
		return fmt.Errorf("kind %q: want %s or %s", m.Kind, Live, Files)
	case !m.Started.Truncate(time.Second).Equal(began):
		return fmt.Errorf("started %s, but the id is %s", m.Started.Format(time.RFC3339), m.ID)
	case m.Finished.Before(m.Started):
		return fmt.Errorf("finished %v before it started", m.Started.Sub(m.Finished))
	case m.Compression != compressionZstd:
		return fmt.Errorf("compression %q", m.Compression)
	case m.Encryption != "" && m.Encryption != encryptionAge:
		return fmt.Errorf("encryption %q", m.Encryption)
	case (m.Encryption == "") != (len(m.Recipients) == 0):
		return fmt.Errorf("encryption %q for %d recipients", m.Encryption, len(m.Recipients))
	}
	return checkParts(m.Parts)
}

func checkParts(parts []Part) error {
	names, objects := map[string]bool{}, map[string]bool{}
	for _, p := range parts {
		if err := p.check(); err != nil {
			return fmt.Errorf("part %q: %w", p.Name, err)
		}
		if names[p.Name] || objects[p.Object] {
			return fmt.Errorf("part %q: it is there twice", p.Name)
		}
		names[p.Name], objects[p.Object] = true, true
	}
	for name := range names {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if names[dir] {
				return fmt.Errorf("part %q: %q can't be a file and a folder", name, dir)
			}
		}
	}
	return nil
}

var sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (p Part) check() error {
	if err := errors.Join(checkPartName(p.Name), checkRole(p.Role), storage.CheckKey(p.Object)); err != nil {
		return err
	}
	switch {
	case !isPartObject(p.Object):
		return fmt.Errorf("object %q is not the name of a part's", p.Object)
	case p.Size < 0 || p.StoredSize <= 0:
		return fmt.Errorf("sizes %d and %d", p.Size, p.StoredSize)
	case !sha256Pattern.MatchString(p.SHA256), !sha256Pattern.MatchString(p.StoredSHA256):
		return fmt.Errorf("SHA-256 %q and %q", p.SHA256, p.StoredSHA256)
	case p.Mode > FileMode(fs.ModePerm):
		return fmt.Errorf("mode %o has more than permissions", uint32(p.Mode))
	}
	return nil
}

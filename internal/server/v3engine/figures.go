package v3engine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// figures sum up a backend, as far as its server can tell them.
type figures struct {
	revision int64
	compact  int64 // revision; -1: never compacted
	hash     uint32
	keys     int64
	leases   []int64 // ids
	users    []string
	roles    []string
	authOn   bool
	alarms   []string
}

// emptyFigures are those of an etcd that starts with nothing.
var emptyFigures = figures{revision: 1, compact: -1}

// backendFile is a backend opened for reading.
type backendFile struct {
	*snapcodec.DB
	file *os.File
}

func openBackend(path string) (*backendFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	db, err := snapcodec.OpenDB(f, info.Size(), snapcodec.DBOptions{Name: path})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &backendFile{DB: db, file: f}, nil
}

func (b *backendFile) Close() error { return b.file.Close() }

// figuresOf reads all of them.
func figuresOf(db *snapcodec.DB) (figures, error) {
	var f figures
	h, err := db.HashKV(0)
	if err != nil {
		return f, err
	}
	f.revision, f.compact, f.hash = h.CurrentRevision, h.CompactRevision, h.Hash
	status, err := db.Status()
	if err != nil {
		return f, err
	}
	f.keys = status.TotalKey
	if err := db.Leases(func(l snapcodec.Lease) error { f.leases = append(f.leases, l.ID); return nil }); err != nil {
		return f, err
	}
	auth, err := db.Auth()
	if err != nil {
		return f, err
	}
	f.authOn = auth.Enabled
	for _, u := range auth.Users {
		f.users = append(f.users, u.Name)
	}
	for _, r := range auth.Roles {
		f.roles = append(f.roles, r.Name)
	}
	alarms, err := db.Alarms()
	for _, a := range alarms {
		f.alarms = append(f.alarms, alarmName(a.Type.String(), a.MemberID))
	}
	slices.Sort(f.leases)
	slices.Sort(f.alarms)
	return f, err
}

func alarmName(kind string, member uint64) string {
	return fmt.Sprintf("%s of member %s", strings.ToUpper(kind), snapcodec.FormatID(member))
}

// etcdBuckets are what every etcd 3 makes before it writes a key (from 3.0 on;
// server/storage/schema/bucket.go).
var etcdBuckets = []string{"key", "meta"}

// bucketsOf tells which of them are missing. Holding meta alone is absent: a
// backup made it for a dir whose v3 data it left out.
func bucketsOf(db *snapcodec.DB) (absent bool, missing []error, err error) {
	buckets, err := db.Buckets()
	if err != nil {
		return false, nil, err
	}
	have := map[string]bool{}
	for _, b := range buckets {
		have[b.Name] = true
	}
	if len(have) == 1 && have["meta"] {
		return true, nil, nil
	}
	for _, name := range etcdBuckets {
		if !have[name] {
			missing = append(missing, fmt.Errorf("bucket %s is missing: etcd would start with an empty one and say nothing", name))
		}
	}
	return false, missing, nil
}

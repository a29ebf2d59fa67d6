package v3engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
)

// served is what a booted server answered.
type served struct {
	figures
	keysNow int64  // at its own revision
	applied uint64 // raft index
	asked   time.Duration
}

// askTimeout is for each question. A hash reads the whole backend.
const askTimeout = time.Minute

// ask puts all questions to the server, those about keys at the revision of
// the source's backend.
func (v *Verification) ask() (served, error) {
	began := time.Now()
	client, err := v.server.Dial()
	if err != nil {
		return served{}, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(v.ctx, askTimeout)
	defer cancel()
	q := questions{ctx: ctx, client: client}
	err = errors.Join(q.status(), q.hash(v.want.revision), q.keys(v.want.revision), q.leases(), q.auth(), q.alarms())
	q.got.asked = time.Since(began)
	return q.got, err
}

type questions struct {
	ctx    context.Context
	client *clientv3.Client
	got    served
}

func (q *questions) status() error {
	r, err := pb.NewMaintenanceClient(q.client.ActiveConnection()).Status(q.ctx, &pb.StatusRequest{})
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	q.got.applied = r.RaftAppliedIndex
	return nil
}

func (q *questions) hash(revision int64) error {
	client := pb.NewMaintenanceClient(q.client.ActiveConnection())
	r, err := client.HashKV(q.ctx, &pb.HashKVRequest{Revision: revision})
	if isCompacted(err) {
		r, err = client.HashKV(q.ctx, &pb.HashKVRequest{})
	}
	if err != nil {
		return fmt.Errorf("hash at revision %d: %w", revision, err)
	}
	q.got.hash, q.got.compact, q.got.revision = r.Hash, r.CompactRevision, r.Header.Revision
	return nil
}

func isCompacted(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) }

func (q *questions) keys(revision int64) error {
	now, err := q.client.Get(q.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count keys: %w", err)
	}
	q.got.keysNow = now.Count
	then, err := q.client.Get(q.ctx, "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly(), clientv3.WithRev(revision))
	if isCompacted(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("count keys at revision %d: %w", revision, err)
	}
	q.got.keys = then.Count
	return nil
}

func (q *questions) leases() error {
	r, err := q.client.Leases(q.ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range r.Leases {
		q.got.leases = append(q.got.leases, int64(l.ID))
	}
	slices.Sort(q.got.leases)
	return nil
}

func (q *questions) auth() error {
	users, err := q.client.UserList(q.ctx)
	if err != nil {
		return fmt.Errorf("list users: %w", err)
	}
	roles, err := q.client.RoleList(q.ctx)
	if err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	q.got.users, q.got.roles = users.Users, roles.Roles
	slices.Sort(q.got.users)
	slices.Sort(q.got.roles)
	return nil
}

func (q *questions) alarms() error {
	r, err := q.client.AlarmList(q.ctx)
	if err != nil {
		return fmt.Errorf("list alarms: %w", err)
	}
	for _, a := range r.Alarms {
		q.got.alarms = append(q.got.alarms, alarmName(a.Alarm.String(), a.MemberID))
	}
	slices.Sort(q.got.alarms)
	return nil
}

// write puts a key, and reads it through raft.
func (v *Verification) write(f *Finding) error {
	client, err := v.server.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(v.ctx, writeTimeout)
	defer cancel()
	var random [16]byte
	rand.Read(random[:])
	key, value := "lifeboat-verify-"+hex.EncodeToString(random[:8]), hex.EncodeToString(random[8:])
	put, err := client.Put(ctx, key, value)
	if err != nil {
		f.problem("it boots, but can't be written to: %w", err)
		return nil
	}
	r, err := client.Get(ctx, key)
	switch {
	case err != nil:
		f.problem("what was written can't be read: %w", err)
	case len(r.Kvs) != 1 || string(r.Kvs[0].Value) != value || r.Kvs[0].ModRevision != put.Header.Revision:
		f.problem("what was written is read back as %v", r.Kvs)
	default:
		f.Detail = fmt.Sprintf("a key written at revision %d, and read through raft", put.Header.Revision)
	}
	return nil
}

const writeTimeout = 20 * time.Second

// authOn asks whether users are checked.
func (s *Server) authOn(ctx context.Context) (bool, error) {
	client, err := s.Dial()
	if err != nil {
		return false, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err = client.UserList(ctx)
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrInvalidAuthToken):
		return true, nil
	}
	return false, err
}

// disableAuth switches the check of users off in a clone. Source:
// server/storage/schema/auth.go, etcd 3.7.
func disableAuth(path string) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return fmt.Errorf("switch off auth in the clone: %w", err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("auth"))
		if b == nil {
			return errors.New("there is no auth bucket")
		}
		return b.Put([]byte("authEnabled"), []byte{0})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("switch off auth in the clone: %w", err)
	}
	return nil
}

// oldHash tells releases whose hash counts a deletion at the very revision
// that was compacted: before 3.4.34 and 3.5.16.
func (e Engine) oldHash() bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(e.Version, "%d.%d.%d", &major, &minor, &patch); n < 3 {
		return false
	}
	return e.Release == datadir.R34 && patch < 34 || e.Release == datadir.R35 && patch < 16
}

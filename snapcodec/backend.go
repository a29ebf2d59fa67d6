package snapcodec

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// BackendMeta is the backend's meta bucket: how far it is.
type BackendMeta struct {
	ConsistentIndex  uint64     // raft index of the last entry applied; 0: not written
	Term             uint64     // of that entry; 0 before etcd 3.5
	ConfState        *ConfState // nil before etcd 3.5
	StorageVersion   string     // such as 3.6.0; empty before etcd 3.6
	ScheduledCompact int64      // revision; -1: never compacted
	FinishedCompact  int64      // revision; -1: never
}

// Meta reads the meta bucket. Source: storage/schema, etcd 3.7.
func (db *DB) Meta() (BackendMeta, error) {
	m := BackendMeta{ScheduledCompact: -1, FinishedCompact: -1}
	err := db.forEach("meta", func(k, v []byte) error {
		if err := m.set(string(k), v); err != nil {
			return db.entryError("meta", k, err)
		}
		return nil
	})
	return m, err
}

func (m *BackendMeta) set(key string, v []byte) (err error) {
	switch key {
	case "consistent_index":
		m.ConsistentIndex, err = bigEndian(v)
	case "term":
		m.Term, err = bigEndian(v)
	case "confState":
		m.ConfState = new(ConfState)
		err = json.Unmarshal(v, m.ConfState)
	case "storageVersion":
		m.StorageVersion = string(v)
	case "scheduledCompactRev":
		m.ScheduledCompact, err = compactRevision(v)
	case "finishedCompactRev":
		m.FinishedCompact, err = compactRevision(v)
	}
	return err
}

// entryError is damage in an entry of a bucket whose pages are sound.
func (db *DB) entryError(bucket string, key []byte, err error) error {
	return db.corrupt(0, fmt.Errorf("bucket %s: key %.64q: %w", bucket, key, err))
}

func bigEndian(v []byte) (uint64, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("%d bytes, want 8", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func compactRevision(v []byte) (int64, error) {
	rev, _, err := ParseRevision(v)
	return rev.Main, err
}

// Membership reads the members, members_removed and cluster buckets. etcd 3.4
// and later keep them; only 3.6 and later go by them.
func (db *DB) Membership() (Membership, error) {
	var m Membership
	err := db.forEach("members", func(k, v []byte) error {
		member, err := parseBackendMember(k, v)
		if err != nil {
			return db.entryError("members", k, err)
		}
		m.Members = append(m.Members, member)
		return nil
	})
	if err != nil {
		return Membership{}, err
	}
	err = db.forEach("members_removed", func(k, _ []byte) error {
		id, err := ParseID(string(k))
		if err != nil {
			return db.entryError("members_removed", k, err)
		}
		m.Removed = append(m.Removed, id)
		return nil
	})
	if err != nil {
		return Membership{}, err
	}
	c, err := db.Cluster()
	m.ClusterVersion = c.Version
	sortMembership(&m)
	return m, err
}

// backendMember is the JSON of a member in the backend. Source:
// membership.Member, etcdserver/api/membership/member.go, etcd 3.7.
type backendMember struct {
	ID uint64 `json:"id"`
	raftAttributes
	attributes
}

// parseBackendMember reads a member; the key, its id in hex, counts.
func parseBackendMember(k, v []byte) (Member, error) {
	id, err := ParseID(string(k))
	if err != nil {
		return Member{}, err
	}
	var b backendMember
	if err := json.Unmarshal(v, &b); err != nil {
		return Member{}, err
	}
	return Member{ID: id, PeerURLs: b.PeerURLs, IsLearner: b.IsLearner, Name: b.Name, ClientURLs: b.ClientURLs}, nil
}

// BackendMember is the entry of a member in the members bucket, byte for byte
// as etcd writes it: key and value.
func BackendMember(m Member) (key, value []byte) {
	value, _ = json.Marshal(backendMember{m.ID, raftAttributes{m.PeerURLs, m.IsLearner}, attributes{m.Name, m.ClientURLs}})
	return []byte(FormatID(m.ID)), value
}

// Cluster is the cluster bucket: etcd 3.5 and later.
type Cluster struct {
	Version   string // cluster version, such as 3.5.0
	Downgrade Downgrade
}

// Downgrade tells of a downgrade under way.
type Downgrade struct {
	TargetVersion string `json:"target-version"`
	Enabled       bool   `json:"enabled"`
}

// Cluster reads the cluster bucket.
func (db *DB) Cluster() (Cluster, error) {
	var c Cluster
	err := db.forEach("cluster", func(k, v []byte) error {
		switch string(k) {
		case "clusterVersion":
			c.Version = string(v)
		case "downgrade":
			if err := json.Unmarshal(v, &c.Downgrade); err != nil {
				return db.entryError("cluster", k, err)
			}
		}
		return nil
	})
	return c, err
}

// Alarm is an alarm that a member raised.
type Alarm struct {
	MemberID uint64
	Type     AlarmType
}

// AlarmType is what an alarm is about.
type AlarmType int32

// The alarms of etcd 3.7.
const (
	AlarmNone AlarmType = iota
	AlarmNoSpace
	AlarmCorrupt
)

func (t AlarmType) String() string {
	switch t {
	case AlarmNone:
		return "NONE"
	case AlarmNoSpace:
		return "NOSPACE"
	case AlarmCorrupt:
		return "CORRUPT"
	}
	return fmt.Sprintf("alarm %d", int32(t))
}

// Alarms reads the alarm bucket, whose keys are the alarms.
func (db *DB) Alarms() ([]Alarm, error) {
	var all []Alarm
	err := db.forEach("alarm", func(k, _ []byte) error {
		m, err := parseMessage(k)
		if err != nil {
			return db.entryError("alarm", k, err)
		}
		all = append(all, Alarm{MemberID: m.varint(1), Type: AlarmType(m.varint(2))})
		return nil
	})
	return all, err
}

// Lease is a lease as granted; who holds it is in the keys.
type Lease struct {
	ID           int64
	TTL          int64 // seconds, as granted
	RemainingTTL int64 // seconds, at the last checkpoint; 0: none
}

// Leases visits the lease bucket by id.
func (db *DB) Leases(fn func(Lease) error) error {
	return db.forEach("lease", func(k, v []byte) error {
		m, err := parseMessage(v)
		if err == nil && len(k) != 8 {
			err = fmt.Errorf("lease id of %d bytes", len(k))
		}
		if err != nil {
			return db.entryError("lease", k, err)
		}
		return fn(Lease{ID: int64(m.varint(1)), TTL: int64(m.varint(2)), RemainingTTL: int64(m.varint(3))})
	})
}

// Auth is the state of v3 authentication. Password hashes are left out.
type Auth struct {
	Enabled  bool
	Revision uint64
	Users    []AuthUser
	Roles    []AuthRole
}

// AuthUser is a user and the roles granted to it.
type AuthUser struct {
	Name        string
	Roles       []string
	HasPassword bool
}

// AuthRole is a role and what it permits.
type AuthRole struct {
	Name        string
	Permissions []Permission
}

// Permission is access to a key, or to the range up to RangeEnd.
type Permission struct {
	Type          PermissionType
	Key, RangeEnd []byte
}

// PermissionType is read, write or both.
type PermissionType int32

// Permission types.
const (
	PermRead PermissionType = iota
	PermWrite
	PermReadWrite
)

func (t PermissionType) String() string {
	switch t {
	case PermRead:
		return "READ"
	case PermWrite:
		return "WRITE"
	case PermReadWrite:
		return "READWRITE"
	}
	return fmt.Sprintf("permission %d", int32(t))
}

// Auth reads the auth, authUsers and authRoles buckets.
func (db *DB) Auth() (Auth, error) {
	var a Auth
	for _, b := range []struct {
		name string
		add  func(k, v []byte) error
	}{
		{"auth", func(k, v []byte) error { return a.set(string(k), v) }},
		{"authUsers", a.addUser},
		{"authRoles", a.addRole},
	} {
		err := db.forEach(b.name, func(k, v []byte) error {
			if err := b.add(k, v); err != nil {
				return db.entryError(b.name, k, err)
			}
			return nil
		})
		if err != nil {
			return Auth{}, err
		}
	}
	return a, nil
}

func (a *Auth) set(key string, v []byte) (err error) {
	switch key {
	case "authEnabled":
		a.Enabled = len(v) == 1 && v[0] == 1
	case "authRevision":
		a.Revision, err = bigEndian(v)
	}
	return err
}

// addUser decodes authpb.User {1 name, 2 password, 3 roles}.
func (a *Auth) addUser(k, v []byte) error {
	m, err := parseMessage(v)
	if err != nil {
		return err
	}
	u := AuthUser{Name: string(k), HasPassword: len(m.bytes(2)) > 0}
	for _, r := range m.all(3) {
		u.Roles = append(u.Roles, string(r.data))
	}
	a.Users = append(a.Users, u)
	return nil
}

// addRole decodes authpb.Role {1 name, 2 keyPermission{1 type, 2 key, 3 range_end}}.
func (a *Auth) addRole(k, v []byte) error {
	m, err := parseMessage(v)
	if err != nil {
		return err
	}
	r := AuthRole{Name: string(k)}
	for _, f := range m.all(2) {
		p, err := parseMessage(f.data)
		if err != nil {
			return err
		}
		r.Permissions = append(r.Permissions, Permission{
			PermissionType(p.varint(1)), slices.Clone(p.bytes(2)), slices.Clone(p.bytes(3)),
		})
	}
	a.Roles = append(a.Roles, r)
	return nil
}

// message is a decoded protobuf message; data aliases the input.
type message []messageField

type messageField struct {
	num  protowire.Number
	val  uint64
	data []byte
}

// parseMessage decodes the varint and bytes fields of a message.
func parseMessage(b []byte) (message, error) {
	var m message
	for len(b) > 0 {
		f, n, err := parseField(b)
		if err != nil {
			return nil, err
		}
		m = append(m, f)
		b = b[n:]
	}
	return m, nil
}

func parseField(b []byte) (messageField, int, error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return messageField{}, 0, protowire.ParseError(n)
	}
	f := messageField{num: num}
	var l int
	switch typ {
	case protowire.VarintType:
		f.val, l = protowire.ConsumeVarint(b[n:])
	case protowire.BytesType:
		f.data, l = protowire.ConsumeBytes(b[n:])
	default:
		l = protowire.ConsumeFieldValue(num, typ, b[n:])
	}
	if l < 0 {
		return messageField{}, 0, fmt.Errorf("field %d: %w", num, protowire.ParseError(l))
	}
	return f, n + l, nil
}

// varint is the value of the last field num; 0 when it is not there.
func (m message) varint(num protowire.Number) (v uint64) {
	for _, f := range m {
		if f.num == num {
			v = f.val
		}
	}
	return v
}

func (m message) bytes(num protowire.Number) (b []byte) {
	for _, f := range m {
		if f.num == num {
			b = f.data
		}
	}
	return b
}

func (m message) all(num protowire.Number) (fields []messageField) {
	for _, f := range m {
		if f.num == num {
			fields = append(fields, f)
		}
	}
	return fields
}

package walcodec

import (
	"errors"
	"fmt"
	"strconv"
)

// InternalRequest is a v3 operation as the log holds it: one
// etcdserverpb.InternalRaftRequest of any version from the preview in 2.3 on
// (raft_internal.proto of 3.0 to 3.7). Exactly one of the pointers is set, as
// Op says; operations without a body have none. Bytes alias what the request
// was parsed from.
type InternalRequest struct {
	ID           uint64 // of the request; in the header since 3.0
	Username     string // empty without auth
	AuthRevision uint64 // since 3.1
	Op           string // etcd's field name, such as put; "field N" for one not known here

	V2              *Request
	Range           *RangeRequest
	Put             *PutRequest
	DeleteRange     *DeleteRangeRequest
	Txn             *TxnRequest
	Compaction      *CompactionRequest
	Lease           *LeaseRequest  // lease_grant, lease_revoke
	LeaseCheckpoint []LeaseRequest // since 3.4
	Alarm           *AlarmRequest
	Auth            *AuthRequest       // authenticate, auth_user_*, auth_role_*
	ClusterVersion  *string            // cluster_version_set
	MemberAttr      *MemberAttrRequest // cluster_member_attr_set
	Downgrade       *DowngradeRequest  // downgrade_info_set, downgrade_version_test
}

// RangeRequest reads keys; in a log it is part of a txn, or was a
// linearizable read before 3.1.
type RangeRequest struct {
	Key, RangeEnd                        []byte
	Limit, Revision                      int64
	Serializable, KeysOnly, CountOnly    bool
	SortOrder, SortTarget                int32
	MinModRevision, MaxModRevision       int64
	MinCreateRevision, MaxCreateRevision int64
}

// PutRequest writes a key.
type PutRequest struct {
	Key, Value                       []byte
	Lease                            int64 // id, 0: none
	PrevKV, IgnoreValue, IgnoreLease bool
}

// DeleteRangeRequest deletes keys.
type DeleteRangeRequest struct {
	Key, RangeEnd []byte
	PrevKV        bool
}

// TxnRequest runs Success if every compare holds, else Failure.
type TxnRequest struct {
	Compare          []Compare
	Success, Failure []RequestOp
}

// RequestOp is one operation of a txn: one pointer is set, or none if the
// operation is not known here.
type RequestOp struct {
	Range       *RangeRequest
	Put         *PutRequest
	DeleteRange *DeleteRangeRequest
	Txn         *TxnRequest // since 3.3
}

// Compare is a condition of a txn.
type Compare struct {
	Result        CompareResult
	Target        CompareTarget
	Key, RangeEnd []byte
	Number        int64  // what to compare to, for every target but value
	Value         []byte // what to compare to, for value
}

// CompareResult is how a Compare compares.
type CompareResult int32

// String returns =, >, < or !=.
func (r CompareResult) String() string {
	return nameOf([]string{"=", ">", "<", "!="}, int(r))
}

// CompareTarget is what a Compare compares.
type CompareTarget int32

// The target that compares Value and not Number.
const CompareValue CompareTarget = 3

// String returns version, create, mod, value or lease, as etcdctl txn calls them.
func (t CompareTarget) String() string {
	return nameOf([]string{"version", "create", "mod", "value", "lease"}, int(t))
}

func nameOf(names []string, i int) string {
	if i >= 0 && i < len(names) {
		return names[i]
	}
	return strconv.Itoa(i)
}

// CompactionRequest discards revisions below one.
type CompactionRequest struct {
	Revision int64
	Physical bool
}

// LeaseRequest grants or revokes a lease, or keeps its remaining time.
type LeaseRequest struct {
	ID           int64
	TTL          int64 // seconds, of lease_grant
	RemainingTTL int64 // seconds, of lease_checkpoint
}

// AlarmRequest raises or clears an alarm.
type AlarmRequest struct {
	Action   AlarmAction
	MemberID uint64
	Alarm    AlarmType
}

// AlarmAction is what an AlarmRequest does.
type AlarmAction int32

// String returns get, activate or deactivate.
func (a AlarmAction) String() string {
	return nameOf([]string{"get", "activate", "deactivate"}, int(a))
}

// AlarmType is the alarm.
type AlarmType int32

// String returns NONE, NOSPACE or CORRUPT.
func (a AlarmType) String() string {
	return nameOf([]string{"NONE", "NOSPACE", "CORRUPT"}, int(a))
}

// AuthRequest is the body of the authenticate, auth_user_* and auth_role_*
// operations; each fills the fields that it has.
type AuthRequest struct {
	User           string
	Role           string
	Password       Secret // in clear before 3.5
	HashedPassword Secret // bcrypt, since 3.5
	SimpleToken    Secret
	NoPassword     bool
	Permission     PermissionType
	Key, RangeEnd  []byte
}

// PermissionType is what a role may do with a range of keys.
type PermissionType int32

// String returns read, write or readwrite.
func (p PermissionType) String() string {
	return nameOf([]string{"read", "write", "readwrite"}, int(p))
}

// A Secret prints as ***. Convert it to string for what it is.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret in JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MemberAttrRequest publishes a member's name and client URLs.
type MemberAttrRequest struct {
	MemberID   uint64
	Name       string
	ClientURLs []string
}

// DowngradeRequest starts or stops a downgrade.
type DowngradeRequest struct {
	Enabled bool
	Version string
}

// maxTxnDepth bounds txns within txns. etcd's --max-txn-ops of 128 bounds
// their number, nothing their depth.
const maxTxnDepth = 100

var errTxnDepth = errors.New("txns nested too deep")

// ParseInternalRequest decodes the data of an entry that [ClassifyEntry] calls
// a V3Request. Fields of the operations that are not known here are passed
// over.
func ParseInternalRequest(data []byte) (InternalRequest, error) {
	var r InternalRequest
	header := false
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			r.ID = f.num
		case 100<<3 | wireBytes:
			header = true
			f.err = r.parseHeader(f.data)
		case 4<<3 | wireBytes:
			r.Op = "put"
			r.Put, f.err = pointer(parsePut(f.data))
		default:
			f.err = r.parseOp(f)
		}
	}
	err := f.err
	if err == nil && r.Alarm != nil && !header {
		r.Alarm, r.Op = nil, "auth_enable" // field 10 in the preview of 2.3
	}
	if err != nil {
		return InternalRequest{}, fmt.Errorf("v3 request: %w", err)
	}
	return r, nil
}

// walk hands each field of a message to set. It allocates: headers and puts,
// which make up most logs, loop themselves.
func walk(message []byte, set func(f *fields)) error {
	f := fieldsOf(message)
	for f.next() {
		set(&f)
	}
	return f.err
}

func (r *InternalRequest) parseHeader(data []byte) error {
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireVarint:
			r.ID = f.num
		case 2<<3 | wireBytes:
			r.Username = string(f.data)
		case 3<<3 | wireVarint:
			r.AuthRevision = f.num
		}
	}
	return f.err
}

// parseOp decodes an operation other than put, by its field number.
func (r *InternalRequest) parseOp(f fields) (err error) {
	number := f.tag >> 3
	if f.tag&7 != wireBytes {
		return f.unknown()
	}
	r.Op = opName(number)
	switch number {
	case 2:
		r.V2, err = pointer(ParseRequest(f.data))
	case 3:
		r.Range, err = pointer(parseRange(f.data))
	case 5:
		r.DeleteRange, err = pointer(parseDeleteRange(f.data))
	case 6:
		r.Txn, err = pointer(parseTxn(f.data, maxTxnDepth))
	case 7:
		r.Compaction, err = pointer(parseCompaction(f.data))
	case 8:
		r.Lease, err = pointer(parseLease(f.data, 2, 1, 0))
	case 9:
		r.Lease, err = pointer(parseLease(f.data, 1, 0, 0))
	case 10:
		r.Alarm, err = pointer(parseAlarm(f.data))
	case 11:
		r.LeaseCheckpoint, err = parseCheckpoints(f.data)
	case 1300:
		r.ClusterVersion, err = pointer(parseString(f.data, 1))
	case 1301:
		r.MemberAttr, err = pointer(parseMemberAttr(f.data))
	case 1302:
		r.Downgrade, err = pointer(parseDowngrade(f.data, 2))
	case 9900:
		r.Downgrade, err = pointer(parseDowngrade(f.data, 1))
	default:
		if form, ok := authForms[number]; ok {
			r.Auth, err = pointer(parseAuth(f.data, form))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.Op, err)
	}
	return nil
}

func pointer[T any](v T, err error) (*T, error) {
	return &v, err
}

// opNames are the field names of InternalRaftRequest.
var opNames = map[uint64]string{
	2:    "v2",
	3:    "range",
	4:    "put",
	5:    "delete_range",
	6:    "txn",
	7:    "compaction",
	8:    "lease_grant",
	9:    "lease_revoke",
	10:   "alarm",
	11:   "lease_checkpoint",
	1000: "auth_enable",
	1011: "auth_disable",
	1012: "authenticate",
	1013: "auth_status",
	1100: "auth_user_add",
	1101: "auth_user_delete",
	1102: "auth_user_get",
	1103: "auth_user_change_password",
	1104: "auth_user_grant_role",
	1105: "auth_user_revoke_role",
	1106: "auth_user_list",
	1107: "auth_role_list",
	1200: "auth_role_add",
	1201: "auth_role_delete",
	1202: "auth_role_get",
	1203: "auth_role_grant_permission",
	1204: "auth_role_revoke_permission",
	1300: "cluster_version_set",
	1301: "cluster_member_attr_set",
	1302: "downgrade_info_set",
	9900: "downgrade_version_test",
}

func opName(number uint64) string {
	if name, ok := opNames[number]; ok {
		return name
	}
	return "field " + strconv.FormatUint(number, 10)
}

func parseRange(data []byte) (r RangeRequest, err error) {
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireBytes:
			r.Key = f.data
		case 2<<3 | wireBytes:
			r.RangeEnd = f.data
		case 3<<3 | wireVarint:
			r.Limit = int64(f.num)
		case 4<<3 | wireVarint:
			r.Revision = int64(f.num)
		case 5<<3 | wireVarint:
			r.SortOrder = int32(f.num)
		case 6<<3 | wireVarint:
			r.SortTarget = int32(f.num)
		case 7<<3 | wireVarint:
			r.Serializable = f.num != 0
		case 8<<3 | wireVarint:
			r.KeysOnly = f.num != 0
		case 9<<3 | wireVarint:
			r.CountOnly = f.num != 0
		case 10<<3 | wireVarint:
			r.MinModRevision = int64(f.num)
		case 11<<3 | wireVarint:
			r.MaxModRevision = int64(f.num)
		case 12<<3 | wireVarint:
			r.MinCreateRevision = int64(f.num)
		case 13<<3 | wireVarint:
			r.MaxCreateRevision = int64(f.num)
		}
	})
	return r, err
}

func parsePut(data []byte) (r PutRequest, err error) {
	f := fieldsOf(data)
	for f.next() {
		switch f.tag {
		case 1<<3 | wireBytes:
			r.Key = f.data
		case 2<<3 | wireBytes:
			r.Value = f.data
		case 3<<3 | wireVarint:
			r.Lease = int64(f.num)
		case 4<<3 | wireVarint:
			r.PrevKV = f.num != 0
		case 5<<3 | wireVarint:
			r.IgnoreValue = f.num != 0
		case 6<<3 | wireVarint:
			r.IgnoreLease = f.num != 0
		}
	}
	return r, f.err
}

func parseDeleteRange(data []byte) (r DeleteRangeRequest, err error) {
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireBytes:
			r.Key = f.data
		case 2<<3 | wireBytes:
			r.RangeEnd = f.data
		case 3<<3 | wireVarint:
			r.PrevKV = f.num != 0
		}
	})
	return r, err
}

func parseTxn(data []byte, depth int) (t TxnRequest, err error) {
	if depth == 0 {
		return t, errTxnDepth
	}
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireBytes:
			var c Compare
			c, f.err = parseCompare(f.data)
			t.Compare = append(t.Compare, c)
		case 2<<3 | wireBytes:
			t.Success, f.err = appendOp(t.Success, f.data, depth)
		case 3<<3 | wireBytes:
			t.Failure, f.err = appendOp(t.Failure, f.data, depth)
		}
	})
	return t, err
}

func appendOp(ops []RequestOp, data []byte, depth int) ([]RequestOp, error) {
	var op RequestOp
	err := walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireBytes:
			op.Range, f.err = pointer(parseRange(f.data))
		case 2<<3 | wireBytes:
			op.Put, f.err = pointer(parsePut(f.data))
		case 3<<3 | wireBytes:
			op.DeleteRange, f.err = pointer(parseDeleteRange(f.data))
		case 4<<3 | wireBytes:
			op.Txn, f.err = pointer(parseTxn(f.data, depth-1))
		}
	})
	return append(ops, op), err
}

func parseCompare(data []byte) (c Compare, err error) {
	err = walk(data, func(f *fields) {
		switch number := f.tag >> 3; {
		case f.tag == 1<<3|wireVarint:
			c.Result = CompareResult(f.num)
		case f.tag == 2<<3|wireVarint:
			c.Target = CompareTarget(f.num)
		case f.tag == 3<<3|wireBytes:
			c.Key = f.data
		case f.tag == 7<<3|wireBytes:
			c.Value = f.data
		case f.tag == 64<<3|wireBytes:
			c.RangeEnd = f.data
		case f.tag&7 == wireVarint && number >= 4 && number <= 8:
			c.Number = int64(f.num)
		}
	})
	return c, err
}

func parseCompaction(data []byte) (c CompactionRequest, err error) {
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireVarint:
			c.Revision = int64(f.num)
		case 2<<3 | wireVarint:
			c.Physical = f.num != 0
		}
	})
	return c, err
}

// parseLease decodes the three lease messages, which number their fields
// differently; 0 is a field that one does not have.
func parseLease(data []byte, id, ttl, remaining uint64) (l LeaseRequest, err error) {
	err = walk(data, func(f *fields) {
		switch number := f.tag >> 3; {
		case f.tag&7 != wireVarint:
		case number == id:
			l.ID = int64(f.num)
		case number == ttl:
			l.TTL = int64(f.num)
		case number == remaining:
			l.RemainingTTL = int64(f.num)
		}
	})
	return l, err
}

func parseCheckpoints(data []byte) (leases []LeaseRequest, err error) {
	err = walk(data, func(f *fields) {
		if f.tag == 1<<3|wireBytes {
			var l LeaseRequest
			l, f.err = parseLease(f.data, 1, 0, 2)
			leases = append(leases, l)
		}
	})
	return leases, err
}

func parseAlarm(data []byte) (a AlarmRequest, err error) {
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireVarint:
			a.Action = AlarmAction(f.num)
		case 2<<3 | wireVarint:
			a.MemberID = f.num
		case 3<<3 | wireVarint:
			a.Alarm = AlarmType(f.num)
		}
	})
	return a, err
}

// authField is what a field of an auth message means.
type authField int

const (
	authNone authField = iota
	authUser
	authRole
	authPassword
	authHashed
	authToken
	authOptions
	authPermission
	authKey
	authRangeEnd
)

// authForms gives, by operation, the meaning of fields 1, 2, 3 and 4.
var authForms = map[uint64][4]authField{
	1012: {authUser, authPassword, authToken},
	1100: {authUser, authPassword, authOptions, authHashed},
	1101: {authUser},
	1102: {authUser},
	1103: {authUser, authPassword, authHashed},
	1104: {authUser, authRole},
	1105: {authUser, authRole},
	1200: {authRole},
	1201: {authRole},
	1202: {authRole},
	1203: {authRole, authPermission},
	1204: {authRole, authKey, authRangeEnd},
}

func parseAuth(data []byte, form [4]authField) (a AuthRequest, err error) {
	err = walk(data, func(f *fields) {
		if number := f.tag >> 3; number <= 4 && f.tag&7 == wireBytes {
			f.err = a.set(form[number-1], f.data)
		}
	})
	return a, err
}

func (a *AuthRequest) set(field authField, data []byte) (err error) {
	switch field {
	case authUser:
		a.User = string(data)
	case authRole:
		a.Role = string(data)
	case authPassword:
		a.Password = Secret(data)
	case authHashed:
		a.HashedPassword = Secret(data)
	case authToken:
		a.SimpleToken = Secret(data)
	case authKey:
		a.Key = data
	case authRangeEnd:
		a.RangeEnd = data
	case authOptions:
		a.NoPassword, err = parseUserOptions(data)
	case authPermission:
		err = a.setPermission(data)
	}
	return err
}

func parseUserOptions(data []byte) (noPassword bool, err error) {
	err = walk(data, func(f *fields) {
		if f.tag == 1<<3|wireVarint {
			noPassword = f.num != 0
		}
	})
	return noPassword, err
}

func (a *AuthRequest) setPermission(data []byte) error {
	return walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireVarint:
			a.Permission = PermissionType(f.num)
		case 2<<3 | wireBytes:
			a.Key = f.data
		case 3<<3 | wireBytes:
			a.RangeEnd = f.data
		}
	})
}

// parseString decodes a message of one string.
func parseString(data []byte, number uint64) (s string, err error) {
	err = walk(data, func(f *fields) {
		if f.tag == number<<3|wireBytes {
			s = string(f.data)
		}
	})
	return s, err
}

func parseMemberAttr(data []byte) (m MemberAttrRequest, err error) {
	err = walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireVarint:
			m.MemberID = f.num
		case 2<<3 | wireBytes:
			f.err = m.parseAttributes(f.data)
		}
	})
	return m, err
}

func (m *MemberAttrRequest) parseAttributes(data []byte) error {
	return walk(data, func(f *fields) {
		switch f.tag {
		case 1<<3 | wireBytes:
			m.Name = string(f.data)
		case 2<<3 | wireBytes:
			m.ClientURLs = append(m.ClientURLs, string(f.data))
		}
	})
}

func parseDowngrade(data []byte, version uint64) (d DowngradeRequest, err error) {
	d.Version, err = parseString(data, version)
	if err != nil {
		return d, err
	}
	err = walk(data, func(f *fields) {
		if f.tag == 1<<3|wireVarint {
			d.Enabled = f.num != 0
		}
	})
	return d, err
}

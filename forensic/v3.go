package forensic

import (
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// v3Types are the types of v3 entries: etcd's field names, but for
// delete_range, which is delete here as it is in v2.
var v3Types = []string{
	"range", "txn", "compaction",
	"lease_grant", "lease_revoke", "lease_checkpoint", "alarm",
	"authenticate", "auth_enable", "auth_disable", "auth_status",
	"auth_user_add", "auth_user_delete", "auth_user_get", "auth_user_change_password",
	"auth_user_grant_role", "auth_user_revoke_role", "auth_user_list",
	"auth_role_add", "auth_role_delete", "auth_role_get", "auth_role_list",
	"auth_role_grant_permission", "auth_role_revoke_permission",
	"cluster_version_set", "cluster_member_attr_set", "downgrade_info_set", "downgrade_version_test",
}

const (
	typePut    = "put"
	typeDelete = "delete"
	typeRange  = "range"
	typeTxn    = "txn"
)

// v3 describes a v3 request.
func (o *op) v3(data []byte) error {
	r, err := walcodec.ParseInternalRequest(data)
	if err != nil {
		return err
	}
	o.typ, o.api = r.Op, "v3"
	if r.Op == "" || strings.Contains(r.Op, " ") {
		o.typ = typeUnknown
		o.addText("operation", r.Op)
	}
	switch {
	case r.Put != nil:
		o.put(r.Put)
	case r.DeleteRange != nil:
		o.deleteRange(r.DeleteRange)
	case r.Txn != nil:
		o.txn(r.Txn)
	case r.Range != nil:
		o.rangeKeys(r.Range)
	case r.V2 != nil:
		return o.v2Request(*r.V2)
	default:
		o.v3Rest(&r)
	}
	o.addText("username", r.Username)
	if r.AuthRevision != 0 {
		o.add(field{kind: fieldUint, name: "auth_revision", label: hidden, n: r.AuthRevision})
	}
	o.addRequestID(r.ID)
	return nil
}

// v3Rest describes what does not read or write keys.
func (o *op) v3Rest(r *walcodec.InternalRequest) {
	switch {
	case r.Compaction != nil:
		o.addInt("revision", r.Compaction.Revision)
		o.addFlag("physical", r.Compaction.Physical)
	case r.Lease != nil:
		o.lease(r.Lease)
	case r.LeaseCheckpoint != nil:
		o.checkpoints(r.LeaseCheckpoint)
	case r.Alarm != nil:
		o.alarm(r.Alarm)
	case r.Auth != nil:
		o.auth(r.Auth)
	case r.ClusterVersion != nil:
		o.addText("version", *r.ClusterVersion)
	case r.MemberAttr != nil:
		o.add(field{kind: fieldID, name: "member_id", label: "id", n: r.MemberAttr.MemberID})
		o.addText("name", r.MemberAttr.Name)
		o.add(field{kind: fieldList, name: "client_urls", label: "clientURLs", list: r.MemberAttr.ClientURLs})
	case r.Downgrade != nil:
		o.add(field{kind: fieldBool, name: "enabled", n: bit(r.Downgrade.Enabled)})
		o.addText("version", r.Downgrade.Version)
	}
}

// addKey adds a key or range. A nil key is the empty one.
func (o *op) addKey(key, end []byte) {
	if key == nil {
		key = []byte{}
	}
	if len(end) == 0 {
		end = nil
	}
	o.add(field{kind: fieldKey, name: "key", b: key, end: end})
}

func (o *op) put(r *walcodec.PutRequest) {
	o.typ = typePut
	o.addKey(r.Key, nil)
	if !r.IgnoreValue {
		o.addValue("value", r.Value)
	}
	o.addID("lease", uint64(r.Lease))
	o.addFlag("prev_kv", r.PrevKV)
	o.addFlag("ignore_value", r.IgnoreValue)
	o.addFlag("ignore_lease", r.IgnoreLease)
}

// addValue adds a value, an empty one too.
func (o *op) addValue(name string, value []byte) {
	if value == nil {
		value = []byte{}
	}
	o.add(field{kind: fieldValue, name: name, b: value})
}

func (o *op) deleteRange(r *walcodec.DeleteRangeRequest) {
	o.typ = typeDelete
	o.addKey(r.Key, r.RangeEnd)
	o.addFlag("prev_kv", r.PrevKV)
}

func (o *op) rangeKeys(r *walcodec.RangeRequest) {
	o.typ = typeRange
	o.addKey(r.Key, r.RangeEnd)
	o.addInt("limit", r.Limit)
	o.addInt("revision", r.Revision)
	o.addInt("sort_order", int64(r.SortOrder))
	o.addInt("sort_target", int64(r.SortTarget))
	o.addFlag("serializable", r.Serializable)
	o.addFlag("keys_only", r.KeysOnly)
	o.addFlag("count_only", r.CountOnly)
	o.addInt("min_mod_revision", r.MinModRevision)
	o.addInt("max_mod_revision", r.MaxModRevision)
	o.addInt("min_create_revision", r.MinCreateRevision)
	o.addInt("max_create_revision", r.MaxCreateRevision)
}

func (o *op) txn(t *walcodec.TxnRequest) {
	o.typ = typeTxn
	if len(t.Compare) > 0 {
		o.add(field{kind: fieldCompare, name: "compare", label: "if", ops: comparisons(t.Compare)})
	}
	o.branch("success", "then", t.Success)
	o.branch("failure", "else", t.Failure)
}

func (o *op) branch(name, label string, requests []walcodec.RequestOp) {
	if len(requests) == 0 {
		return
	}
	ops := make([]op, len(requests))
	for i, r := range requests {
		switch {
		case r.Put != nil:
			ops[i].put(r.Put)
		case r.DeleteRange != nil:
			ops[i].deleteRange(r.DeleteRange)
		case r.Range != nil:
			ops[i].rangeKeys(r.Range)
		case r.Txn != nil:
			ops[i].txn(r.Txn)
		default:
			ops[i].typ = typeUnknown
		}
	}
	o.add(field{kind: fieldOps, name: name, label: label, ops: ops})
}

// comparisons makes an op without type of each, whose fields
// [op.comparison] knows.
func comparisons(compares []walcodec.Compare) []op {
	ops := make([]op, len(compares))
	for i, c := range compares {
		o := &ops[i]
		o.addText("target", c.Target.String())
		o.addKey(c.Key, c.RangeEnd)
		o.addText("result", c.Result.String())
		o.operand(c)
	}
	return ops
}

// operand adds what a comparison compares to, named as what is compared.
func (o *op) operand(c walcodec.Compare) {
	switch c.Target {
	case walcodec.CompareValue:
		o.addValue("value", c.Value)
	case compareLease:
		o.add(field{kind: fieldID, name: "lease", n: uint64(c.Number)})
	default:
		o.add(field{kind: fieldInt, name: "number", n: uint64(c.Number)})
	}
}

// compareLease is the target whose number is a lease id.
const compareLease walcodec.CompareTarget = 4

func (o *op) lease(l *walcodec.LeaseRequest) {
	o.add(field{kind: fieldID, name: "lease", label: "id", n: uint64(l.ID)})
	if o.typ == "lease_grant" {
		o.add(field{kind: fieldTTL, name: "ttl", n: uint64(l.TTL)})
	}
}

func (o *op) checkpoints(leases []walcodec.LeaseRequest) {
	ops := make([]op, len(leases))
	for i, l := range leases {
		ops[i].add(field{kind: fieldID, name: "lease", label: "id", n: uint64(l.ID)})
		ops[i].add(field{kind: fieldTTL, name: "remaining_ttl", n: uint64(l.RemainingTTL)})
	}
	o.add(field{kind: fieldOps, name: "checkpoints", label: "leases", ops: ops})
}

func (o *op) alarm(a *walcodec.AlarmRequest) {
	o.add(field{kind: fieldWord, name: "action", s: a.Action.String()})
	o.add(field{kind: fieldWord, name: "alarm", s: a.Alarm.String()})
	o.add(field{kind: fieldID, name: "member_id", label: "member", n: a.MemberID})
}

// auth leaves the secrets out: before 3.5 passwords stand in the log in clear.
func (o *op) auth(a *walcodec.AuthRequest) {
	o.addText("user", a.User)
	o.addText("role", a.Role)
	if o.typ == "auth_role_grant_permission" {
		o.add(field{kind: fieldWord, name: "permission", s: a.Permission.String()})
	}
	if a.Key != nil || a.RangeEnd != nil {
		o.addKey(a.Key, a.RangeEnd)
	}
	o.addFlag("no_password", a.NoPassword)
	if a.Password != "" || a.HashedPassword != "" {
		o.add(field{kind: fieldSecret, name: "password"})
	}
	if a.SimpleToken != "" {
		o.add(field{kind: fieldSecret, name: "simple_token"})
	}
}

// v3Version takes note of the cluster version, which 3.6 and later set so.
func (f *Facts) v3Version(it *item) {
	if it.overwritten || len(it.data) > maxVersionEntry {
		return
	}
	r, err := walcodec.ParseInternalRequest(it.data)
	if err == nil && r.ClusterVersion != nil {
		f.ClusterVersion = *r.ClusterVersion
	}
}

package walcodec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// TestInternalRequest encodes each operation with etcd's own messages.
func TestInternalRequest(t *testing.T) {
	put := &etcdserverpb.PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 9, PrevKv: true, IgnoreLease: true}
	del := &etcdserverpb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKv: true}
	get := &etcdserverpb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Limit: 1, Revision: 2, SortOrder: 1, SortTarget: 2,
		Serializable: true, KeysOnly: true, CountOnly: true, MinModRevision: 3, MaxModRevision: 4, MinCreateRevision: 5, MaxCreateRevision: 6}
	gotPut := &PutRequest{Key: []byte("k"), Value: []byte("v"), Lease: 9, PrevKV: true, IgnoreLease: true}
	gotDel := &DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKV: true}
	gotGet := &RangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), Limit: 1, Revision: 2, SortOrder: 1, SortTarget: 2,
		Serializable: true, KeysOnly: true, CountOnly: true, MinModRevision: 3, MaxModRevision: 4, MinCreateRevision: 5, MaxCreateRevision: 6}
	type pb = etcdserverpb.InternalRaftRequest
	op := func(f *etcdserverpb.RequestOp) []*etcdserverpb.RequestOp { return []*etcdserverpb.RequestOp{f} }
	inner := &etcdserverpb.TxnRequest{Failure: op(&etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}})}
	txn := &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{
			{Result: etcdserverpb.Compare_GREATER, Target: etcdserverpb.Compare_MOD, Key: []byte("x"), TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: 7}},
			{Target: etcdserverpb.Compare_VALUE, Key: []byte("y"), RangeEnd: []byte("z"), TargetUnion: &etcdserverpb.Compare_Value{Value: []byte("w")}},
		},
		Success: append(op(&etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: put}}),
			&etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: get}}),
		Failure: op(&etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: inner}}),
	}
	gotTxn := &TxnRequest{
		Compare: []Compare{{Result: 1, Target: 2, Key: []byte("x"), Number: 7}, {Target: CompareValue, Key: []byte("y"), RangeEnd: []byte("z"), Value: []byte("w")}},
		Success: []RequestOp{{Put: gotPut}, {Range: gotGet}},
		Failure: []RequestOp{{Txn: &TxnRequest{Failure: []RequestOp{{DeleteRange: gotDel}}}}},
	}
	tests := []struct {
		in   *pb
		want InternalRequest
	}{
		{&pb{Range: get}, InternalRequest{Op: "range", Range: gotGet}},
		{&pb{Put: put}, InternalRequest{Op: "put", Put: gotPut}},
		{&pb{DeleteRange: del}, InternalRequest{Op: "delete_range", DeleteRange: gotDel}},
		{&pb{Txn: txn}, InternalRequest{Op: "txn", Txn: gotTxn}},
		{&pb{Compaction: &etcdserverpb.CompactionRequest{Revision: 5, Physical: true}}, InternalRequest{Op: "compaction", Compaction: &CompactionRequest{5, true}}},
		{&pb{LeaseGrant: &etcdserverpb.LeaseGrantRequest{ID: 5, TTL: 60}}, InternalRequest{Op: "lease_grant", Lease: &LeaseRequest{ID: 5, TTL: 60}}},
		{&pb{LeaseRevoke: &etcdserverpb.LeaseRevokeRequest{ID: 5}}, InternalRequest{Op: "lease_revoke", Lease: &LeaseRequest{ID: 5}}},
		{&pb{LeaseCheckpoint: &etcdserverpb.LeaseCheckpointRequest{Checkpoints: []*etcdserverpb.LeaseCheckpoint{{ID: 5, Remaining_TTL: 6}}}},
			InternalRequest{Op: "lease_checkpoint", LeaseCheckpoint: []LeaseRequest{{ID: 5, RemainingTTL: 6}}}},
		{&pb{Alarm: &etcdserverpb.AlarmRequest{Action: 1, MemberID: 7, Alarm: 2}}, InternalRequest{Op: "alarm", Alarm: &AlarmRequest{1, 7, 2}}},
		{&pb{AuthEnable: &etcdserverpb.AuthEnableRequest{}}, InternalRequest{Op: "auth_enable"}},
		{&pb{AuthDisable: &etcdserverpb.AuthDisableRequest{}}, InternalRequest{Op: "auth_disable"}},
		{&pb{AuthStatus: &etcdserverpb.AuthStatusRequest{}}, InternalRequest{Op: "auth_status"}},
		{&pb{Authenticate: &etcdserverpb.InternalAuthenticateRequest{Name: "u", Password: "p", SimpleToken: "t"}},
			InternalRequest{Op: "authenticate", Auth: &AuthRequest{User: "u", Password: "p", SimpleToken: "t"}}},
		{&pb{AuthUserAdd: &etcdserverpb.AuthUserAddRequest{Name: "u", Password: "p", HashedPassword: "h", Options: &authpb.UserAddOptions{NoPassword: true}}},
			InternalRequest{Op: "auth_user_add", Auth: &AuthRequest{User: "u", Password: "p", HashedPassword: "h", NoPassword: true}}},
		{&pb{AuthUserDelete: &etcdserverpb.AuthUserDeleteRequest{Name: "u"}}, InternalRequest{Op: "auth_user_delete", Auth: &AuthRequest{User: "u"}}},
		{&pb{AuthUserGet: &etcdserverpb.AuthUserGetRequest{Name: "u"}}, InternalRequest{Op: "auth_user_get", Auth: &AuthRequest{User: "u"}}},
		{&pb{AuthUserChangePassword: &etcdserverpb.AuthUserChangePasswordRequest{Name: "u", Password: "p", HashedPassword: "h"}},
			InternalRequest{Op: "auth_user_change_password", Auth: &AuthRequest{User: "u", Password: "p", HashedPassword: "h"}}},
		{&pb{AuthUserGrantRole: &etcdserverpb.AuthUserGrantRoleRequest{User: "u", Role: "r"}}, InternalRequest{Op: "auth_user_grant_role", Auth: &AuthRequest{User: "u", Role: "r"}}},
		{&pb{AuthUserRevokeRole: &etcdserverpb.AuthUserRevokeRoleRequest{Name: "u", Role: "r"}}, InternalRequest{Op: "auth_user_revoke_role", Auth: &AuthRequest{User: "u", Role: "r"}}},
		{&pb{AuthUserList: &etcdserverpb.AuthUserListRequest{}}, InternalRequest{Op: "auth_user_list"}},
		{&pb{AuthRoleList: &etcdserverpb.AuthRoleListRequest{}}, InternalRequest{Op: "auth_role_list"}},
		{&pb{AuthRoleAdd: &etcdserverpb.AuthRoleAddRequest{Name: "r"}}, InternalRequest{Op: "auth_role_add", Auth: &AuthRequest{Role: "r"}}},
		{&pb{AuthRoleDelete: &etcdserverpb.AuthRoleDeleteRequest{Role: "r"}}, InternalRequest{Op: "auth_role_delete", Auth: &AuthRequest{Role: "r"}}},
		{&pb{AuthRoleGet: &etcdserverpb.AuthRoleGetRequest{Role: "r"}}, InternalRequest{Op: "auth_role_get", Auth: &AuthRequest{Role: "r"}}},
		{&pb{AuthRoleGrantPermission: &etcdserverpb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{PermType: 2, Key: []byte("k"), RangeEnd: []byte("l")}}},
			InternalRequest{Op: "auth_role_grant_permission", Auth: &AuthRequest{Role: "r", Permission: 2, Key: []byte("k"), RangeEnd: []byte("l")}}},
		{&pb{AuthRoleRevokePermission: &etcdserverpb.AuthRoleRevokePermissionRequest{Role: "r", Key: []byte("k"), RangeEnd: []byte("l")}},
			InternalRequest{Op: "auth_role_revoke_permission", Auth: &AuthRequest{Role: "r", Key: []byte("k"), RangeEnd: []byte("l")}}},
		{&pb{ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: "3.6.0"}}, InternalRequest{Op: "cluster_version_set", ClusterVersion: new("3.6.0")}},
		{&pb{ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: 7, MemberAttributes: &membershippb.Attributes{Name: "n", ClientUrls: []string{"a", "b"}}}},
			InternalRequest{Op: "cluster_member_attr_set", MemberAttr: &MemberAttrRequest{7, "n", []string{"a", "b"}}}},
		{&pb{DowngradeInfoSet: &membershippb.DowngradeInfoSetRequest{Enabled: true, Ver: "3.5.0"}}, InternalRequest{Op: "downgrade_info_set", Downgrade: &DowngradeRequest{true, "3.5.0"}}},
		{&pb{DowngradeVersionTest: &etcdserverpb.DowngradeVersionTestRequest{Ver: "3.5.0"}}, InternalRequest{Op: "downgrade_version_test", Downgrade: &DowngradeRequest{Version: "3.5.0"}}},
	}
	for _, test := range tests {
		t.Run(test.want.Op, func(t *testing.T) {
			test.in.Header = &etcdserverpb.RequestHeader{ID: 77, Username: "root", AuthRevision: 3}
			test.want.ID, test.want.Username, test.want.AuthRevision = 77, "root", 3
			data, err := proto.Marshal(test.in)
			must(t, err)
			if kind := ClassifyEntry(Entry{Data: data}); kind != V3Request {
				t.Errorf("classified as %v", kind)
			}
			got, err := ParseInternalRequest(data)
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v (%v)\nwant %+v", got, err, test.want)
			}
		})
	}
}

// TestEveryOpIsKnown compares the field numbers to etcd's message.
func TestEveryOpIsKnown(t *testing.T) {
	all := (&etcdserverpb.InternalRaftRequest{}).ProtoReflect().Descriptor().Fields()
	for i := range all.Len() {
		f := all.Get(i)
		if n := f.Number(); n != 1 && n != 100 && opName(uint64(n)) != string(f.Name()) {
			t.Errorf("field %d is %s, not %s", n, f.Name(), opName(uint64(n)))
		}
	}
}

func TestClassifyEntry(t *testing.T) {
	preview := appendBytes(appendUint(nil, 1, 7), 4, appendBytes(nil, 1, "key"))
	tests := []struct {
		name string
		e    Entry
		want PayloadKind
	}{
		{"no data", Entry{}, Empty},
		{"conf change", Entry{Type: EntryConfChange, Data: []byte{8, 1}}, ConfChangePayload},
		{"conf change v2", Entry{Type: EntryConfChangeV2}, ConfChangeV2Payload},
		{"type 3", Entry{Type: 3, Data: []byte{8, 1}}, Unknown},
		{"v2 sync", Entry{Data: AppendRequest(nil, Request{Method: "SYNC", Time: 1})}, V2Request},
		{"v2 put", Entry{Data: AppendRequest(nil, Request{Method: "PUT", Path: "/1/a"})}, V2Request},
		{"v2 method that is never logged", Entry{Data: AppendRequest(nil, Request{Method: "GET", Path: "/1/a"})}, Unknown},
		{"v3 of the 2.3 preview", Entry{Data: preview}, V3Request},
		{"text", Entry{Data: []byte("hello")}, Unknown},
	}
	for _, test := range tests {
		if got := ClassifyEntry(test.e); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestFixtureRequests decodes every entry of the fixtures; v2 requests must
// encode to the same bytes again.
func TestFixtureRequests(t *testing.T) {
	for _, name := range fixture.Names() {
		records, _ := readAll(t, os.DirFS(walDir(t, name)), LogOptions{})
		counts := map[string]int{}
		for _, rec := range records {
			if rec.Kind != KindEntry {
				continue
			}
			e, err := ParseEntry(rec.Data)
			must(t, err)
			if !bytes.Equal(AppendEntry(nil, e), rec.Data) {
				t.Errorf("%s: entry %d does not encode to its bytes", name, e.Index)
			}
			op, err := describe(e)
			if err != nil {
				t.Errorf("%s: entry %d: %v", name, e.Index, err)
			}
			counts[op]++
		}
		if got := fmt.Sprint(counts); got != fixtureOps[name] {
			t.Errorf("%s holds %s, want %s", name, got, fixtureOps[name])
		}
	}
}

// fixtureOps are the operations in the fixtures' logs, as they were made.
var fixtureOps = map[string]string{
	"2.3.7":         "map[DELETE:2 POST:5 PUT:714 SYNC:28 add:1 no-op:1]",
	"2.3.7-cluster": "map[PUT:540 SYNC:31 add:4 no-op:2 remove:1]",
	"3.4.23-mixed":  "map[PUT:402 add:1 auth_role_add:1 auth_role_grant_permission:1 auth_user_add:2 auth_user_grant_role:1 compaction:1 delete_range:1 lease_grant:1 no-op:1 put:121 txn:1]",
	"3.5.33":        "map[PUT:2 add:1 auth_role_add:1 auth_role_grant_permission:1 auth_user_add:2 auth_user_grant_role:1 compaction:1 delete_range:1 lease_grant:1 no-op:1 put:96 txn:1]",
}

// describe decodes an entry's data and returns what it does.
func describe(e Entry) (string, error) {
	switch ClassifyEntry(e) {
	case V2Request:
		r, err := ParseRequest(e.Data)
		if err == nil && !bytes.Equal(AppendRequest(nil, r), e.Data) {
			err = fmt.Errorf("%+v does not encode to its bytes", r)
		}
		return r.Method, err
	case V3Request:
		r, err := ParseInternalRequest(e.Data)
		if strings.HasPrefix(r.Op, "field") || r.Op == "" {
			err = fmt.Errorf("operation %q", r.Op)
		}
		return r.Op, err
	case ConfChangePayload:
		c, err := ParseConfChange(e.Data)
		if err == nil && !bytes.Equal(AppendConfChange(nil, c), e.Data) {
			err = fmt.Errorf("%+v does not encode to its bytes", c)
		}
		if err != nil {
			return "", err
		}
		m, err := ParseMember(c.Context)
		if err == nil && len(c.Context) > 0 && (m.ID != c.NodeID || len(m.PeerURLs) == 0) {
			err = fmt.Errorf("context %+v of a change of %x", m, c.NodeID)
		}
		return c.Type.String(), err
	case Empty:
		return "no-op", nil
	}
	return "", fmt.Errorf("unknown data")
}

func TestSecretsDoNotPrint(t *testing.T) {
	a := AuthRequest{User: "u", Password: "hunter2", HashedPassword: "hunter2"}
	j, err := json.Marshal(a)
	must(t, err)
	for _, text := range []string{fmt.Sprint(a), fmt.Sprintf("%+v", a), fmt.Sprintf("%#v", a), string(j)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("password in %s", text)
		}
	}
}

func TestTxnDepthIsBounded(t *testing.T) {
	var data []byte
	for range 1000 {
		data = appendBytes(nil, 2, appendBytes(nil, 4, data))
	}
	if _, err := ParseInternalRequest(appendBytes(nil, 6, data)); err == nil {
		t.Error("deeply nested txns were decoded")
	}
}

package forensic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/membershippb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// allKinds is a log with a record of every kind and an entry of every type,
// the v3 ones encoded by etcd's own code.
func allKinds(t testing.TB) *builder {
	b := newBuilder(t, walcodec.WriterOptions{})
	yes, no := true, false
	context, err := json.Marshal(walcodec.Member{ID: 0x8211f1d0f64f3269, PeerURLs: []string{"http://10.0.0.1:2380"}, Name: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	next := func() uint64 { index++; return index }
	b.entry(walcodec.Entry{Type: walcodec.EntryConfChange, Term: 1, Index: next(), Data: walcodec.AppendConfChange(nil,
		walcodec.ConfChange{ID: 7, NodeID: 0x8211f1d0f64f3269, Context: context})})
	b.entry(walcodec.Entry{Type: walcodec.EntryConfChange, Term: 1, Index: next(), Data: walcodec.AppendConfChange(nil,
		walcodec.ConfChange{Type: walcodec.ConfChangeRemoveNode, NodeID: 0xabc})})
	b.entry(walcodec.Entry{Type: walcodec.EntryConfChangeV2, Term: 1, Index: next(), Data: walcodec.AppendConfChangeV2(nil,
		walcodec.ConfChangeV2{Transition: 1, Changes: []walcodec.ConfChangeSingle{{Type: walcodec.ConfChangeAddLearnerNode, NodeID: 0xdef}}})})
	b.state(walcodec.HardState{Term: 1, Commit: 3})
	b.entry(walcodec.Entry{Term: 2, Index: next()})
	b.state(walcodec.HardState{Term: 2, Vote: 0x8211f1d0f64f3269, Commit: 4})
	for _, r := range []walcodec.Request{
		{Method: "PUT", Path: "/0/members/8211f1d0f64f3269/attributes", Val: `{"name":"m1","clientURLs":["http://10.0.0.1:2379"]}`},
		{Method: "PUT", Path: "/0/version", Val: "3.5.0"},
		{Method: "PUT", Path: "/1/a", Val: "v"},
		{Method: "PUT", Path: "/1/a", Val: strings.Repeat("ä", 30), Expiration: testNow.Add(90 * time.Second).UnixNano()},
		{Method: "PUT", Path: "/1/old", Expiration: testNow.Add(-400 * 24 * time.Hour).UnixNano()},
		{Method: "PUT", Path: "/1/dir/sub dir", Dir: true, PrevExist: &no},
		{Method: "PUT", Path: "/1/a", Val: "\x00\xff", PrevExist: &yes, PrevValue: "v", PrevIndex: 6},
		{Method: "PUT", Path: "/1/a", PrevExist: &yes, Refresh: &yes, Expiration: testNow.Add(100 * 24 * time.Hour).UnixNano()},
		{Method: "POST", Path: "/1/queue", Val: "job"},
		{Method: "DELETE", Path: "/1/dir", Dir: true, Recursive: true},
		{Method: "QGET", Path: "/1/a", Quorum: true, Sorted: true},
		{Method: "SYNC", Time: testNow.UnixNano()},
	} {
		b.v2(2, next(), r)
	}
	for _, r := range allV3() {
		r.Header = &pb.RequestHeader{ID: 0x100 + index, Username: "root", AuthRevision: 3}
		data, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		b.entry(walcodec.Entry{Term: 2, Index: next(), Data: data})
	}
	b.entry(walcodec.Entry{Term: 2, Index: next(), Data: []byte("\xff\xff neither v2 nor v3")})
	b.state(walcodec.HardState{Term: 2, Vote: 0x8211f1d0f64f3269, Commit: index})
	b.snapshot(walcodec.Snapshot{Index: 20, Term: 2, ConfState: &walcodec.ConfState{Voters: []uint64{0x8211f1d0f64f3269}, Learners: []uint64{0xdef}}})
	return b
}

func allV3() []*pb.InternalRaftRequest {
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("x\ny"), Lease: 0x694d, PrevKv: true}
	del := &pb.DeleteRangeRequest{Key: []byte("/p/"), RangeEnd: []byte("/p0"), PrevKv: true}
	get := &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("\x00"), Limit: 5, Revision: 9, Serializable: true, KeysOnly: true}
	txn := &pb.TxnRequest{
		Compare: []*pb.Compare{
			{Result: pb.Compare_EQUAL, Target: pb.Compare_VALUE, Key: []byte("k"), TargetUnion: &pb.Compare_Value{Value: []byte("x")}},
			{Result: pb.Compare_GREATER, Target: pb.Compare_VERSION, Key: []byte("k"), TargetUnion: &pb.Compare_Version{Version: 3}},
			{Result: pb.Compare_NOT_EQUAL, Target: pb.Compare_LEASE, Key: []byte("k"), RangeEnd: []byte("m"), TargetUnion: &pb.Compare_Lease{Lease: 0x694d}},
		},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestPut{RequestPut: put}},
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: get}}}}}},
		},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}}},
	}
	return []*pb.InternalRaftRequest{
		{Put: &pb.PutRequest{Key: []byte("plain")}},
		{Put: put},
		{Put: &pb.PutRequest{Key: []byte("\xff\x00"), Value: []byte("\xfe"), IgnoreLease: true}},
		{Put: &pb.PutRequest{Key: []byte("kept"), IgnoreValue: true}},
		{Range: get},
		{DeleteRange: del},
		{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("b"), RangeEnd: []byte("f g")}},
		{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("\x00"), RangeEnd: []byte("\x00")}},
		{Txn: txn},
		{Compaction: &pb.CompactionRequest{Revision: 20, Physical: true}},
		{LeaseGrant: &pb.LeaseGrantRequest{ID: 0x694d, TTL: 3600}},
		{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 0x694d}},
		{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: 0x694d, Remaining_TTL: 30}, {ID: 2, Remaining_TTL: 7200}}}},
		{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 0xabc, Alarm: pb.AlarmType_NOSPACE}},
		{AuthEnable: &pb.AuthEnableRequest{}},
		{AuthDisable: &pb.AuthDisableRequest{}},
		{Authenticate: &pb.InternalAuthenticateRequest{Name: "root", Password: "s3cret", SimpleToken: "t0ken"}},
		{AuthStatus: &pb.AuthStatusRequest{}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "bob", Password: "s3cret", Options: &authpb.UserAddOptions{}}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "cert", Options: &authpb.UserAddOptions{NoPassword: true}}},
		{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "bob"}},
		{AuthUserGet: &pb.AuthUserGetRequest{Name: "bob"}},
		{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: "bob", HashedPassword: "$2a$s3cret"}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "bob", Role: "r1"}},
		{AuthUserRevokeRole: &pb.AuthUserRevokeRoleRequest{Name: "bob", Role: "r1"}},
		{AuthUserList: &pb.AuthUserListRequest{}},
		{AuthRoleList: &pb.AuthRoleListRequest{}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r1"}},
		{AuthRoleDelete: &pb.AuthRoleDeleteRequest{Role: "r1"}},
		{AuthRoleGet: &pb.AuthRoleGetRequest{Role: "r1"}},
		{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r1", Perm: &authpb.Permission{PermType: authpb.READ, Key: []byte("/p/"), RangeEnd: []byte("/p0")}}},
		{AuthRoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: "r1", Key: []byte("/p/"), RangeEnd: []byte("/p0")}},
		{ClusterVersionSet: &membershippb.ClusterVersionSetRequest{Ver: "3.6.0"}},
		{ClusterMemberAttrSet: &membershippb.ClusterMemberAttrSetRequest{Member_ID: 0xabc, MemberAttributes: &membershippb.Attributes{Name: "m2", ClientUrls: []string{"http://10.0.0.2:2379"}}}},
		{DowngradeInfoSet: &membershippb.DowngradeInfoSetRequest{Enabled: true, Ver: "3.5.0"}},
		{DowngradeVersionTest: &pb.DowngradeVersionTestRequest{Ver: "3.5.0"}},
	}
}

func TestDumpAllKinds(t *testing.T) {
	l, s := allKinds(t).open()
	if s.Verdict() != VerdictClean {
		t.Fatalf("%s: %v", s.Verdict(), s.Damage)
	}
	lines := dumped(t, l, s, DumpOptions{Width: 40})
	golden(t, "all.lines.golden", lines)
	asJSON := dumped(t, l, s, DumpOptions{Format: FormatJSON})
	golden(t, "all.json.golden", asJSON)
	for _, out := range []string{lines, asJSON} {
		if strings.Contains(out, "s3cret") || strings.Contains(out, "t0ken") {
			t.Error("a secret is printed")
		}
	}
	checkJSONLines(t, asJSON)
}

// checkJSONLines wants every line to be one object, and every member once.
func checkJSONLines(t *testing.T, out string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(out) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if n := len(record); n != topLevelMembers(t, line) {
			t.Errorf("a member is there twice: %s", line)
		}
		all = append(all, record)
	}
	return all
}

func topLevelMembers(t *testing.T, line string) int {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	members := 0
	for depth := 0; ; {
		token, err := d.Token()
		if err == io.EOF {
			return members / 2
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if depth == 1 {
				members++
			}
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		default:
			if depth == 1 {
				members++
			}
		}
	}
}

// TestTypesAreWhatDumpsPrint: --type knows every type that a dump prints.
func TestTypesAreWhatDumpsPrint(t *testing.T) {
	l, s := allKinds(t).open()
	for _, r := range checkJSONLines(t, dumped(t, l, s, DumpOptions{Format: FormatJSON})) {
		name, ok := r["type"].(string)
		if !ok {
			name = r["kind"].(string)
		}
		if !slices.Contains(Types(), name) {
			t.Errorf("type %q is printed, but not in Types", name)
		}
		if out := dumped(t, l, s, DumpOptions{Types: []string{name}}); out == "" {
			t.Errorf("--type %s prints nothing", name)
		}
	}
}

func TestDumpFilters(t *testing.T) {
	l, s := allKinds(t).open()
	tests := []struct {
		name string
		o    DumpOptions
		want []string // indexes, and kinds of other records
	}{
		{"index range", DumpOptions{FromIndex: 5, ToIndex: 7}, []string{"5", "6", "7"}},
		{"to index", DumpOptions{ToIndex: 2}, []string{"snapshot", "1", "2"}},
		{"from index", DumpOptions{FromIndex: 53}, []string{"53"}},
		{"beyond", DumpOptions{FromIndex: 54}, nil},
		{"snapshot in range", DumpOptions{FromIndex: 20, ToIndex: 20}, []string{"20", "snapshot"}},
		{"kinds", DumpOptions{Types: []string{"crc", "metadata", "snapshot"}}, []string{"crc", "metadata", "snapshot", "snapshot"}},
		{"put of both versions", DumpOptions{Types: []string{"put"}, FromIndex: 12, ToIndex: 19}, []string{"12", "17", "18", "19"}},
		{"v2 only", DumpOptions{Types: []string{"v2"}, FromIndex: 13}, []string{"13", "14", "15", "16"}},
		{"with dashes", DumpOptions{Types: []string{"no-op", "Lease-Grant"}}, []string{"4", "27"}},
		{"group", DumpOptions{Types: []string{"lease"}}, []string{"27", "28", "29"}},
		{"v2 key", DumpOptions{Key: "/a"}, []string{"7", "8", "11", "12", "15", "24"}},
		{"v2 store path", DumpOptions{Key: "/0/*"}, []string{"5", "6", "24"}},
		{"exact key is not a prefix", DumpOptions{Key: "/di"}, []string{"24"}},
		{"v2 prefix", DumpOptions{Key: "/di*"}, []string{"10", "14", "24"}},
		{"key inside of a txn", DumpOptions{Key: "k"}, []string{"18", "21", "24", "25"}},
		{"key inside of a range", DumpOptions{Key: "c"}, []string{"21", "23", "24", "25"}},
		{"end of a range is not in it", DumpOptions{Key: "f g"}, []string{"21", "24", "25"}},
		{"prefix that holds a range", DumpOptions{Key: "/p*", Types: []string{"delete"}}, []string{"22", "24"}},
		{"nothing", DumpOptions{Key: "/a", Types: []string{"state"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Format = FormatJSON
			var got []string
			for _, r := range checkJSONLines(t, dumped(t, l, s, tt.o)) {
				if r["kind"] == "entry" {
					got = append(got, fmt.Sprint(r["index"]))
				} else {
					got = append(got, r["kind"].(string))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if err := (DumpOptions{Types: []string{"puts"}}).Check(); err == nil || !strings.Contains(err.Error(), `"puts"`) {
		t.Errorf("unknown type: %v", err)
	}
}

func TestDumpMarksOverwritten(t *testing.T) {
	b := newBuilder(t, walcodec.WriterOptions{})
	b.put(2, 1, "/a", "1")
	b.put(2, 2, "/a", "lost")
	b.put(2, 3, "/a", "lost too")
	b.segment(4)
	b.put(3, 2, "/a", "2")
	b.put(3, 3, "/a", "3")
	l, s := b.open()
	o := DumpOptions{Types: []string{"put"}, Offsets: false}
	wantLines(t, dumped(t, l, s, o),
		`term=2 index=1 put /a value="1" (1 byte) v2`,
		`term=2 index=2 put /a value="lost" (4 bytes) v2 overwritten`,
		`term=2 index=3 put /a value="lost too" (8 bytes) v2 overwritten`,
		`term=3 index=2 put /a value="2" (1 byte) v2`,
		`term=3 index=3 put /a value="3" (1 byte) v2`)
	o.Effective, o.FromIndex = true, 2
	wantLines(t, dumped(t, l, s, o),
		`term=3 index=2 put /a value="2" (1 byte) v2`,
		`term=3 index=3 put /a value="3" (1 byte) v2`)
	o.FromIndex, o.Effective, o.Offsets = 3, false, true
	wantLines(t, dumped(t, l, s, o),
		fmt.Sprintf(`%s:%d term=2 index=3 put /a value="lost too" (8 bytes) v2 overwritten`, walcodec.SegmentName(0, 0), 240),
		fmt.Sprintf(`%s:%d term=3 index=3 put /a value="3" (1 byte) v2`, walcodec.SegmentName(1, 4), b.offsets[3]))
	facts, err := l.Facts(context.Background(), s)
	if err != nil || facts.Overwritten != 2 || facts.V2 != 5 || facts.Terms[1] != (Terms{3, 3}) {
		t.Errorf("%+v, %v", facts, err)
	}
}

// TestDumpFixtures: what a dump says of a real log is what the member said: the
// last put of each v3 key, and a line for every record.
func TestDumpFixtures(t *testing.T) {
	for _, name := range fixture.Names() {
		t.Run(name, func(t *testing.T) {
			l, s := openLog(t, fixture.DataDir(t, name))
			if s.Verdict() != VerdictClean {
				t.Fatalf("%s: %v %v", s.Verdict(), s.Damage, s.Torn)
			}
			records := checkJSONLines(t, dumped(t, l, s, DumpOptions{Format: FormatJSON}))
			if int64(len(records)) != s.Counts.Total() {
				t.Errorf("%d lines, %d records", len(records), s.Counts.Total())
			}
			for _, r := range records {
				if r["type"] == typeUnknown || r["error"] != nil {
					t.Errorf("not understood: %v", r)
				}
			}
			checkLastPuts(t, fixture.Unpack(t, name), records)
		})
	}
}

// checkLastPuts compares with what etcdctl get printed, where there is v3 data.
func checkLastPuts(t *testing.T, dir string, records []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(dir + "/expected-v3.json")
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var expected struct {
		KVs []struct{ Key, Value []byte }
	}
	if err := json.Unmarshal(data, &expected); err != nil || len(expected.KVs) == 0 {
		t.Fatal(err, len(expected.KVs))
	}
	last := map[any]any{}
	for _, r := range records {
		puts := []any{r}
		if success, ok := r["success"].([]any); ok {
			puts = success
		}
		for _, op := range puts {
			if op := op.(map[string]any); op["type"] == "put" {
				last[op["key"]] = op["value"]
			}
		}
	}
	for _, kv := range expected.KVs {
		if last[string(kv.Key)] != string(kv.Value) {
			t.Errorf("key %s: last put %v, the member had %s", kv.Key, last[string(kv.Key)], kv.Value)
		}
	}
}

// TestDumpKeepsOrderAcrossBatches makes the pipeline turn many batches over,
// with records larger than one.
func TestDumpKeepsOrderAcrossBatches(t *testing.T) {
	b := newBuilder(t, walcodec.WriterOptions{Framing: walcodec.FramingPlain})
	const n = 5000
	for i := uint64(1); i <= n; i++ {
		size := int(i*i) % 2000
		if i%1000 == 0 {
			size = 3 * batchBytes
		}
		b.put(1, i, fmt.Sprint("/k", i), strings.Repeat("\"", size))
	}
	l, s := b.open()
	records := checkJSONLines(t, dumped(t, l, s, DumpOptions{Format: FormatJSON, Types: []string{"put"}}))
	if len(records) != n {
		t.Fatalf("%d lines, want %d", len(records), n)
	}
	for i, r := range records {
		if r["index"] != float64(i+1) || r["key"] != fmt.Sprint("/k", i+1) {
			t.Fatalf("line %d has %v", i, r)
		}
	}
}

func TestDumpStopsWhenNobodyReads(t *testing.T) {
	b := newBuilder(t, walcodec.WriterOptions{})
	for i := uint64(1); i <= 3000; i++ {
		b.put(1, i, "/k", strings.Repeat("x", 1000))
	}
	l, s := b.open()
	gone := errors.New("nobody reads")
	for calls := range 4 {
		err := Dump(context.Background(), &failingWriter{calls, gone}, l, s, DumpOptions{})
		if err != gone {
			t.Errorf("after %d writes: %v", calls, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Dump(ctx, io.Discard, l, s, DumpOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type failingWriter struct {
	left int
	err  error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, w.err
	}
	return len(p), nil
}

// FuzzDescribe prints entries with any data: no panic, one line, sound JSON.
func FuzzDescribe(f *testing.F) {
	b := allKinds(f)
	l, s := b.open()
	err := l.visit(context.Background(), s, visitOptions{}, func(it *item) error {
		if it.kind == walcodec.KindEntry {
			f.Add(int32(it.entry.Type), slices.Clone(it.entry.Data))
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind int32, data []byte) {
		it := item{
			segment: "s",
			kind:    walcodec.KindEntry,
			data:    data,
			entry:   walcodec.Entry{Type: walcodec.EntryType(kind), Term: 1, Index: 2, Data: data},
		}
		d := dumper{format: FormatJSON, filter: filter{key: newPattern("/a*")}}
		checkJSONLines(t, string(d.print(nil, &it, &op{})))
		d.filter.key = newPattern("")
		checkJSONLines(t, string(d.print(nil, &it, &op{})))
		d.format, d.lines = FormatLines, lines{width: 20, now: testNow}
		if out := string(d.print(nil, &it, &op{})); strings.Count(out, "\n") != 1 || strings.ContainsAny(out, "\x1b\x00\r") {
			t.Errorf("%q", out)
		}
	})
}

// TestUnknownRequests: a later etcd's operation, and a v2 request inside of a
// v3 one with a method that nobody has.
func TestUnknownRequests(t *testing.T) {
	b := newBuilder(t, walcodec.WriterOptions{})
	b.entry(walcodec.Entry{Term: 1, Index: 1, Data: []byte("\xa2\x06\x02\x08\x05" + "\xca\x3e\x00")})
	b.entry(walcodec.Entry{Term: 1, Index: 2, Data: []byte("\x12\x06\x12\x04\x1b\"\nX" + "\xa2\x06\x02\x08\x05")})
	b.entry(walcodec.Entry{Term: 1, Index: 3, Data: []byte("\xa2\x06\x02\x08\x05")})
	l, s := b.open()
	wantLines(t, dumped(t, l, s, DumpOptions{FromIndex: 1}),
		`term=1 index=1 unknown operation="field 1001"`,
		`term=1 index=2 unknown method="\x1b\"\nX" v2`,
		`term=1 index=3 unknown`)
	for _, r := range checkJSONLines(t, dumped(t, l, s, DumpOptions{Format: FormatJSON, Types: []string{"unknown"}})) {
		if r["type"] != typeUnknown {
			t.Errorf("%v", r)
		}
	}
}

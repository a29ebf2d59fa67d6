package save

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-lifeboat/lifeboat/backup/live"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// What the snapshot of the fixture holds, as its etcd said.
const (
	fixtureRevision = 99
	fixtureCompact  = 20
	fixtureHash     = 1173996138
)

// member is a server that does as a test says, or else serves the fixture.
type member struct {
	pb.UnimplementedMaintenanceServer
	pb.UnimplementedKVServer
	pb.UnimplementedClusterServer

	id, cluster uint64
	leader      bool
	image       []byte
	snapshot    func(send func([]byte) error) error // nil: sends the image
	compact     int64                               // revision; 0: that of the fixture
	compacted   bool                                // even the snapshot's revision
	mute        bool                                // answers no questions about the keys

	mu    sync.Mutex
	calls []string
}

func (m *member) call(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, what)
}

func (m *member) called(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.calls {
		if c == what {
			n++
		}
	}
	return n
}

func (m *member) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	leader := uint64(99)
	if m.leader {
		leader = m.id
	}
	header := &pb.ResponseHeader{MemberId: m.id, ClusterId: max(m.cluster, 7)}
	return &pb.StatusResponse{Header: header, Leader: leader, RaftAppliedIndex: 9, Version: "3.5.33", DbSize: int64(len(m.image))}, nil
}

func (m *member) Snapshot(_ *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	m.call("snapshot")
	send := func(b []byte) error { return s.Send(&pb.SnapshotResponse{Blob: b}) }
	if m.snapshot != nil {
		return m.snapshot(send)
	}
	return inParts(m.image)(send)
}

func (m *member) HashKV(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	m.call("hash")
	switch {
	case m.mute:
		return nil, status.Error(codes.Unavailable, "not now")
	case m.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case r.Revision != fixtureRevision:
		return nil, rpctypes.ErrGRPCFutureRev
	}
	return &pb.HashKVResponse{Header: &pb.ResponseHeader{}, Hash: fixtureHash, CompactRevision: max(m.compact, fixtureCompact)}, nil
}

func (m *member) Range(_ context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	switch {
	case m.mute:
		return nil, status.Error(codes.Unavailable, "not now")
	case m.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case r.Revision != fixtureRevision || !r.CountOnly || !r.Serializable || string(r.Key) != "\x00" || string(r.RangeEnd) != "\x00":
		return nil, status.Errorf(codes.InvalidArgument, "%v", r)
	}
	return &pb.RangeResponse{Header: &pb.ResponseHeader{}, Count: 42}, nil
}

func (m *member) MemberList(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if m.mute {
		return nil, status.Error(codes.Unavailable, "not now")
	}
	return &pb.MemberListResponse{Members: []*pb.Member{
		{ID: m.id, Name: "m1", PeerURLs: []string{"http://a"}, ClientURLs: []string{"http://b"}},
		{ID: 0xbeef, Name: "m2", IsLearner: true},
	}}, nil
}

// inParts sends b in parts.
func inParts(b []byte) func(func([]byte) error) error {
	return func(send func([]byte) error) error {
		for part := range slices.Chunk(b, 4000) {
			if err := send(part); err != nil {
				return err
			}
		}
		return nil
	}
}

func serve(t *testing.T, m *member) string {
	t.Helper()
	if m.image == nil {
		m.image = snapshotFile(t)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterMaintenanceServer(s, m)
	pb.RegisterKVServer(s, m)
	pb.RegisterClusterServer(s, m)
	done := make(chan struct{})
	go func() {
		s.Serve(l)
		close(done)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func config(endpoints ...string) clientv3.Config {
	return clientv3.Config{Endpoints: endpoints, DialTimeout: 2 * time.Second, Logger: zap.NewNop()}
}

func TestLiveStoresWhatCame(t *testing.T) {
	m := &member{id: 0xa1, leader: true}
	address := serve(t, m)
	repo := newRepository(t)
	var said []string
	var bytes int64
	o := LiveOptions{Options: Options{
		Labels: map[string]string{"why": "test"}, Tool: "lifeboat test",
		Info: func(s string) { said = append(said, s) }, Progress: func(n int64) { bytes += n },
	}}
	b, err := Live(t.Context(), repo, "", config(address), o)
	if err != nil {
		t.Fatal(err)
	}
	got := load(t, repo, b)
	if string(read(t, filepath.Join(got, "db"))) != string(m.image) {
		t.Error("the image differs")
	}
	if bytes != int64(len(m.image)) || !strings.Contains(strings.Join(said, "\n"), "taking the snapshot from "+address) {
		t.Errorf("progress %d bytes of %d, said %q", bytes, len(m.image), said)
	}
	checkLiveFacts(t, b.Manifest, address)
}

func checkLiveFacts(t *testing.T, m repository.Manifest, address string) {
	t.Helper()
	if m.Kind != repository.Live || m.Cluster != "7" || m.ClusterID != "7" || m.MemberID != "a1" || m.MemberName != "m1" ||
		m.Endpoint != address || m.EtcdVersion != "3.5.33" || m.Labels["why"] != "test" || m.Tool != "lifeboat test" {
		t.Errorf("manifest %+v", m)
	}
	if m.Revision != fixtureRevision || m.CompactRevision != fixtureCompact || m.HashKV == nil || *m.HashKV != fixtureHash ||
		m.HashRevision != fixtureRevision || m.Keys == nil || *m.Keys != 42 || m.RaftIndex == 0 || m.RaftTerm == 0 {
		t.Errorf("facts of the keys %+v", m)
	}
	want := []repository.Member{
		{ID: "a1", Name: "m1", PeerURLs: []string{"http://a"}, ClientURLs: []string{"http://b"}},
		{ID: "beef", Name: "m2", Learner: true},
	}
	same := func(a, b repository.Member) bool {
		return a.ID == b.ID && a.Name == b.Name && a.Learner == b.Learner && slices.Equal(a.PeerURLs, b.PeerURLs) && slices.Equal(a.ClientURLs, b.ClientURLs)
	}
	if !slices.EqualFunc(m.Members, want, same) || len(m.Notes) != 0 {
		t.Errorf("members %+v, notes %q", m.Members, m.Notes)
	}
}

// A stream that fails is begun anew, with another member if there is one.
func TestLiveTriesAgain(t *testing.T) {
	t.Parallel()
	image := snapshotFile(t)
	flipped := slices.Clone(image)
	flipped[3*4096+20] ^= 1
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, bad := range map[string]func(func([]byte) error) error{
		"it breaks off": func(send func([]byte) error) error {
			return errors.Join(send(image[:20000]), status.Error(codes.Unavailable, "going down"))
		},
		"it ends early": inParts(image[:20000]),
		"a flipped bit": inParts(flipped),
		"it stands still": func(send func([]byte) error) error {
			err := send(image[:20000])
			<-release
			return err
		},
		"it is no backend": inParts(sealed(200_000)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := &member{id: 1, snapshot: bad}, &member{id: 2, leader: true}
			repo := newRepository(t)
			var progress int64
			var warned []string
			o := LiveOptions{Stall: 300 * time.Millisecond, Options: Options{
				Progress: func(n int64) { progress += n }, Warn: func(s string) { warned = append(warned, s) },
			}}
			b, err := Live(t.Context(), repo, "c", config(serve(t, first), serve(t, second)), o)
			if err != nil {
				t.Fatal(err)
			}
			if first.called("snapshot") != 1 || b.Manifest.MemberID != "2" || len(b.Manifest.Parts) != 1 {
				t.Errorf("%d snapshots of the first, then one of %s, parts %v", first.called("snapshot"), b.Manifest.MemberID, b.Manifest.Parts)
			}
			if progress != int64(len(image)) || len(warned) != 1 || !strings.Contains(warned[0], "trying again (1 of 3)") {
				t.Errorf("progress %d, want %d; warned %q", progress, len(image), warned)
			}
			load(t, repo, b)
			mustHoldObjects(t, repo, 2) // part and manifest
		})
	}
}

// sealed is noise and its SHA-256.
func sealed(n int) []byte {
	data := bytes.Repeat([]byte("noise..."), n/8)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

func mustHoldObjects(t *testing.T, repo *repository.Repository, want int) {
	t.Helper()
	var keys []string
	for o, err := range repo.Store().List(t.Context(), "clusters/") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if len(keys) != want {
		t.Errorf("%d objects %q, want %d", len(keys), keys, want)
	}
}

// An only member is tried again too, so often and no more.
func TestLiveGivesUp(t *testing.T) {
	t.Parallel()
	broken := func(send func([]byte) error) error {
		return errors.Join(send(make([]byte, 512)), status.Error(codes.Unavailable, "going down"))
	}
	denied := func(func([]byte) error) error { return rpctypes.ErrGRPCPermissionDenied }
	for _, c := range []struct {
		name     string
		snapshot func(func([]byte) error) error
		calls    int
		want     func(error) bool
	}{
		{"a broken stream", broken, 2, func(err error) bool { return strings.Contains(err.Error(), "going down") }},
		{"no permission", denied, 1, live.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &member{id: 1, leader: true, snapshot: c.snapshot}
			repo := newRepository(t)
			_, err := Live(t.Context(), repo, "c", config(serve(t, m)), LiveOptions{Tries: 2})
			if err == nil || !c.want(err) || m.called("snapshot") != c.calls {
				t.Errorf("error %v after %d tries", err, m.called("snapshot"))
			}
			mustBeEmpty(t, repo)
		})
	}
}

// An error of the repository is not the member's: no other one is asked.
func TestLiveStoreFails(t *testing.T) {
	m := &member{id: 1, leader: true}
	full := errors.New("disk full")
	repo := newRepository(t)
	faulty, err := repository.Open(t.Context(), &failing{Memory: repo.Store().(*storagetest.Memory), left: 1, err: full})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Live(t.Context(), faulty, "c", config(serve(t, m)), LiveOptions{}); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if m.called("snapshot") != 1 {
		t.Errorf("%d snapshots", m.called("snapshot"))
	}
	mustBeEmpty(t, repo)
}

func TestLiveUnreachable(t *testing.T) {
	repo := newRepository(t)
	_, err := Live(t.Context(), repo, "c", config("127.0.0.1:1"), LiveOptions{Timeout: 300 * time.Millisecond})
	if !errors.Is(err, live.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
	mustBeEmpty(t, repo)
}

// What the member does not tell is unknown, and the backup says why.
func TestLiveFactsThatStayUnknown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		m                   *member
		hash, keys, members bool
		notes               int
	}{
		{"compacted since, below the snapshot", &member{compact: fixtureCompact + 1}, false, true, true, 1},
		{"compacted since, above the snapshot", &member{compacted: true}, false, false, true, 2},
		{"no answers", &member{mute: true}, false, false, false, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.m.id, c.m.leader = 1, true
			repo := newRepository(t)
			b, err := Live(t.Context(), repo, "c", config(serve(t, c.m)), LiveOptions{Timeout: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			m := b.Manifest
			if (m.HashKV != nil) != c.hash || (m.HashRevision != 0) != c.hash || (m.Keys != nil) != c.keys ||
				(m.Members != nil) != c.members || len(m.Notes) != c.notes {
				t.Errorf("facts %+v, notes %q", m, m.Notes)
			}
			if m.Revision != fixtureRevision {
				t.Errorf("revision %d", m.Revision)
			}
		})
	}
}

// An endpoint that turns out to be another cluster's is not taken.
func TestLiveStaysWithItsCluster(t *testing.T) {
	t.Parallel()
	m := &member{id: 1, leader: true}
	m.snapshot = func(send func([]byte) error) error {
		m.cluster = 8
		return errors.Join(send(make([]byte, 512)), status.Error(codes.Unavailable, "going down"))
	}
	repo := newRepository(t)
	_, err := Live(t.Context(), repo, "c", config(serve(t, m)), LiveOptions{Tries: 2})
	if err == nil || !strings.Contains(err.Error(), "belongs to cluster 8") {
		t.Errorf("error %v", err)
	}
	mustBeEmpty(t, repo)
}

// A part of a damaged image is never taken for a backup.
func TestLiveRefusesAnImageThatIsNotWhole(t *testing.T) {
	t.Parallel()
	image := snapshotFile(t)
	bare := slices.Clone(image[:len(image)-snapcodec.TrailerSize])
	clear(bare[3*4096 : 9*4096])
	sum := sha256.Sum256(bare)
	m := &member{id: 1, leader: true, image: append(bare, sum[:]...)}
	repo := newRepository(t)
	if _, err := Live(t.Context(), repo, "c", config(serve(t, m)), LiveOptions{Tries: 1}); err == nil {
		t.Error("it was taken")
	}
	mustBeEmpty(t, repo)
}

package live

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// member is a server that does as a test says.
type member struct {
	pb.UnimplementedMaintenanceServer
	status   *pb.StatusResponse
	snapshot func(send func([]byte) error) error
}

func (m *member) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return m.status, nil
}

func (m *member) Snapshot(_ *pb.SnapshotRequest, s grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
	return m.snapshot(func(b []byte) error { return s.Send(&pb.SnapshotResponse{Blob: b}) })
}

// serve starts the member and returns its address.
func serve(t *testing.T, m *member) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterMaintenanceServer(s, m)
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

// sealed is a backend of n bytes and its SHA-256.
func sealed(n int) []byte {
	data := make([]byte, n)
	rand.Read(data)
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// inParts sends b in parts of n bytes.
func inParts(b []byte, n int) func(func([]byte) error) error {
	return func(send func([]byte) error) error {
		for len(b) > 0 {
			part := b[:min(n, len(b))]
			if err := send(part); err != nil {
				return err
			}
			b = b[len(part):]
		}
		return nil
	}
}

func TestSaveInPartsOfAnySize(t *testing.T) {
	want := sealed(4096)
	for _, size := range []int{1, 7, 31, 32, 33, 1000, 5000} {
		var got bytes.Buffer
		address := serve(t, &member{snapshot: inParts(bytes.Clone(want), size)})
		result, err := Save(context.Background(), config(), address, &got, Options{})
		if err != nil {
			t.Fatalf("parts of %d: %v", size, err)
		}
		if !bytes.Equal(got.Bytes(), want) || result.Size != int64(len(want)) {
			t.Errorf("parts of %d: %d bytes came, of %d", size, got.Len(), len(want))
		}
	}
}

func TestSaveRefuses(t *testing.T) {
	flipped := sealed(4096)
	flipped[100] ^= 1
	for name, c := range map[string]struct {
		snapshot func(func([]byte) error) error
		want     func(error) bool
	}{
		"a flipped bit": {inParts(flipped, 1000), is(snapcodec.ErrChecksum)},
		"a short end":   {inParts(sealed(4096)[:4000], 1000), is(io.ErrUnexpectedEOF)},
		"a broken stream": {func(send func([]byte) error) error {
			return errors.Join(send(make([]byte, 512)), status.Error(codes.Unavailable, "the server is going down"))
		}, func(err error) bool { return err != nil && !Denied(err) }},
		"no permission": {func(func([]byte) error) error {
			return status.Error(codes.PermissionDenied, "etcdserver: permission denied")
		}, forWantOfRoot},
		"no permission, as 3.4 says it": {func(func([]byte) error) error {
			return status.Error(codes.Unknown, "auth: permission denied")
		}, forWantOfRoot},
		"no user, as 3.4 says it": {func(func([]byte) error) error {
			return status.Error(codes.Unknown, "auth: user name is empty")
		}, forWantOfRoot},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Save(context.Background(), config(), serve(t, &member{snapshot: c.snapshot}), io.Discard, Options{})
			if !c.want(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func forWantOfRoot(err error) bool {
	return Denied(err) && strings.Contains(err.Error(), "role root only")
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func TestAStalledStreamEnds(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	address := serve(t, &member{snapshot: func(send func([]byte) error) error {
		err := send(make([]byte, 512))
		<-release
		return err
	}})
	_, err := Save(context.Background(), config(), address, io.Discard, Options{Stall: 200 * time.Millisecond})
	var stall *StallError
	if !errors.As(err, &stall) || stall.After != 512 {
		t.Errorf("error %v, want a stall after 512 bytes", err)
	}
}

// A stream may take longer than the stall timeout, as long as it moves.
func TestASlowStreamMayTakeItsTime(t *testing.T) {
	whole := sealed(512 * 8)
	address := serve(t, &member{snapshot: func(send func([]byte) error) error {
		return inParts(whole, 512)(func(b []byte) error {
			time.Sleep(100 * time.Millisecond)
			return send(b)
		})
	}})
	if _, err := Save(context.Background(), config(), address, io.Discard, Options{Stall: 400 * time.Millisecond}); err != nil {
		t.Error(err)
	}
}

// slowStore takes longer for a part than a member may stand still.
type slowStore struct{ bytes.Buffer }

func (s *slowStore) Write(p []byte) (int, error) {
	time.Sleep(300 * time.Millisecond)
	return s.Buffer.Write(p)
}

func TestASlowWriterIsNoStall(t *testing.T) {
	whole := sealed(512 * 4)
	var got slowStore
	address := serve(t, &member{snapshot: inParts(whole, 1024)})
	if _, err := Save(context.Background(), config(), address, &got, Options{Stall: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), whole) {
		t.Errorf("%d bytes came, of %d", got.Len(), len(whole))
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAWriteErrorIsTold(t *testing.T) {
	_, err := Save(context.Background(), config(), serve(t, &member{snapshot: inParts(sealed(512), 100)}), fullDisk{}, Options{})
	var write *WriteError
	if !errors.As(err, &write) {
		t.Errorf("error %v, want a WriteError", err)
	}
}

func TestChoice(t *testing.T) {
	follower := Endpoint{Address: "f", hasLeader: true, Applied: 5000}
	leader := Endpoint{Address: "l", hasLeader: true, Applied: 5001, Leader: true}
	learner := Endpoint{Address: "n", hasLeader: true, Applied: 5001, Learner: true}
	behind := Endpoint{Address: "b", hasLeader: true, Applied: 3000}
	lost := Endpoint{Address: "o", Applied: 5001}
	dead := Endpoint{Address: "d", Err: errors.New("connection refused")}
	for name, c := range map[string]struct {
		all   []Endpoint
		want  string // address, or a part of the error
		avoid []string
	}{
		"a follower before the leader":     {[]Endpoint{leader, follower}, "f", nil},
		"the leader before one behind":     {[]Endpoint{behind, leader}, "l", nil},
		"anyone before a learner":          {[]Endpoint{learner, leader}, "l", nil},
		"no learner even if alone":         {[]Endpoint{learner, dead}, "it is a learner", nil},
		"no one cut off from the leader":   {[]Endpoint{lost}, "it knows no leader", nil},
		"the newest of several":            {[]Endpoint{behind, {Address: "g", hasLeader: true, Applied: 4990}, follower}, "f", nil},
		"an error that names each address": {[]Endpoint{dead}, "d: connection refused", nil},
		"another than one that failed":     {[]Endpoint{leader, follower}, "l", []string{"f"}},
		"one that failed if it is alone":   {[]Endpoint{learner, follower}, "f", []string{"f"}},
		"no mix of clusters":               {[]Endpoint{leader, {Address: "x", ClusterID: 7, hasLeader: true}}, "different clusters", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := choose(c.all, c.avoid)
			if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && got.Address != c.want {
				t.Errorf("choice %q (%v), want %q", got.Address, err, c.want)
			}
			if err == nil && got.Why == "" {
				t.Errorf("choice without a reason: %+v", got)
			}
		})
	}
	if _, err := choose([]Endpoint{dead}, nil); !errors.Is(err, ErrUnreachable) {
		t.Errorf("error %v, want ErrUnreachable", err)
	}
}

func TestPickAsksEachEndpoint(t *testing.T) {
	a := serve(t, &member{status: &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: 1}, Leader: 1, RaftAppliedIndex: 9}})
	b := serve(t, &member{status: &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: 2}, Leader: 1, RaftAppliedIndex: 9, Version: "3.6.0"}})
	got, err := Pick(context.Background(), config(a, b), 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got.Address != b || got.MemberID != 2 || got.Version != "3.6.0" {
		t.Errorf("picked %+v, want %s", got, b)
	}
}

func TestPickTellsWhyNothingConnects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	address := l.Addr().String()
	_, err = Pick(t.Context(), config(address), 200*time.Millisecond)
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "rpc error") {
		t.Errorf("error %v, want why %s is not reached", err, address)
	}
}

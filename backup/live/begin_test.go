package live

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestBegin(t *testing.T) {
	up := &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: 1}, DbSize: 4096}
	size, err := Begin(t.Context(), config(), serve(t, &member{status: up, snapshot: inParts(sealed(4096), 512)}))
	if err != nil || size != 4096 {
		t.Errorf("size %d, error %v", size, err)
	}
	_, err = Begin(t.Context(), config(), serve(t, &member{status: up, snapshot: func(func([]byte) error) error {
		return status.Error(codes.PermissionDenied, "etcdserver: permission denied")
	}}))
	if !Denied(err) {
		t.Errorf("error %v, want a refusal", err)
	}
}

package live

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrUnreachable is matched by the error when no endpoint answers.
var ErrUnreachable = errors.New("no endpoint answers")

// ErrMixed is matched by the error for endpoints of several clusters: another
// try does not change that.
var ErrMixed = errors.New("the endpoints belong to different clusters")

// maxLag is how many entries a member may have yet to apply and still count as
// caught up. Under load some are always on their way.
const maxLag = 1000

// Endpoint is what a member says of itself.
type Endpoint struct {
	Address string
	Err     error // why it did not answer; the rest is zero then

	ClusterID uint64
	MemberID  uint64
	Version   string // of the server
	Leader    bool
	Learner   bool
	Applied   uint64 // raft index
	DBSize    int64  // bytes

	hasLeader bool
}

// Choice is an endpoint and why it was picked.
type Choice struct {
	Endpoint
	Why    string
	Passed []string // why each of the others was not
}

// Pick asks all endpoints of the config for their status and takes a member
// that is no learner, knows a leader and has caught up; a follower rather than
// the leader, which has enough to do. timeout is for each endpoint. Those to
// avoid, because they failed before, are taken only if no other is fit.
// Endpoints of different clusters are an error.
func Pick(ctx context.Context, cfg clientv3.Config, timeout time.Duration, avoid ...string) (Choice, error) {
	all := make([]Endpoint, len(cfg.Endpoints))
	var group sync.WaitGroup
	for i, address := range cfg.Endpoints {
		group.Go(func() { all[i] = ask(ctx, cfg, address, timeout) })
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return Choice{}, err
	}
	return choose(all, avoid)
}

func ask(ctx context.Context, cfg clientv3.Config, address string, timeout time.Duration) Endpoint {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	e := Endpoint{Address: address}
	client, err := Dial(ctx, cfg, address)
	if err != nil {
		e.Err = err
		return e
	}
	defer client.Close()
	// Not by client.Status, which drops why nothing connects when time is over.
	st, err := pb.NewMaintenanceClient(client.ActiveConnection()).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		e.Err = overdue(cfg, rpctypes.Error(err))
		return e
	}
	id := st.Header.GetMemberId()
	return Endpoint{
		Address: address, ClusterID: st.Header.GetClusterId(), MemberID: id, Version: st.Version,
		Leader: st.Leader == id, Learner: st.IsLearner, hasLeader: st.Leader != 0,
		Applied: appliedIndex(st), DBSize: st.DbSize,
	}
}

// overdue adds to an error that the client's certificate is out of date: of the
// server's refusal, which comes late in TLS 1.3, often no more is seen than a
// broken pipe.
func overdue(cfg clientv3.Config, err error) error {
	if cfg.TLS == nil || cfg.TLS.GetClientCertificate == nil {
		return err
	}
	cert, unread := cfg.TLS.GetClientCertificate(&tls.CertificateRequestInfo{})
	if unread != nil || cert.Leaf == nil || time.Now().Before(cert.Leaf.NotAfter) {
		return err
	}
	return fmt.Errorf("the client's certificate has expired on %s: %w", cert.Leaf.NotAfter.Format(time.RFC3339), err)
}

// appliedIndex is the applied index, which servers before 3.4 don't tell.
func appliedIndex(s *pb.StatusResponse) uint64 {
	if s.RaftAppliedIndex != 0 {
		return s.RaftAppliedIndex
	}
	return s.RaftIndex
}

// Dial connects to one endpoint only: a snapshot is one member's. The client
// lives as long as ctx, or until it is closed.
func Dial(ctx context.Context, cfg clientv3.Config, address string) (*clientv3.Client, error) {
	cfg.Endpoints = []string{address}
	cfg.Context = ctx
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	return clientv3.New(cfg)
}

// choose is the decision alone.
func choose(all []Endpoint, avoid []string) (Choice, error) {
	if err := sameCluster(all); err != nil {
		return Choice{}, err
	}
	newest := uint64(0)
	for _, e := range all {
		newest = max(newest, e.Applied)
	}
	var good []Endpoint
	var passed []string
	for _, e := range all {
		if why := e.unfit(newest); why != "" {
			passed = append(passed, fmt.Sprintf("%s: %s", e.Address, why))
		} else {
			good = append(good, e)
		}
	}
	if len(good) == 0 {
		return Choice{}, noneFit(all, passed)
	}
	good, passed = spare(good, passed, avoid)
	best := slices.MinFunc(good, func(a, b Endpoint) int {
		if a.Leader != b.Leader {
			return cmp.Compare(rank(a), rank(b))
		}
		return cmp.Compare(b.Applied, a.Applied)
	})
	return Choice{Endpoint: best, Why: best.why(len(all), newest), Passed: passed}, nil
}

// sameCluster refuses endpoints that do not belong together: nobody could tell
// whose snapshot it is.
func sameCluster(all []Endpoint) error {
	var first Endpoint
	for _, e := range all {
		switch {
		case e.Err != nil:
		case first.Address == "":
			first = e
		case e.ClusterID != first.ClusterID:
			return fmt.Errorf("%w: %s to %x, %s to %x", ErrMixed,
				first.Address, first.ClusterID, e.Address, e.ClusterID)
		}
	}
	return nil
}

// spare leaves out those to avoid, unless none is left then.
func spare(good []Endpoint, passed, avoid []string) (rest []Endpoint, why []string) {
	for _, e := range good {
		if slices.Contains(avoid, e.Address) {
			passed = append(passed, e.Address+": it failed before")
		} else {
			rest = append(rest, e)
		}
	}
	if len(rest) == 0 {
		return good, passed[:len(passed)-len(good)]
	}
	return rest, passed
}

func rank(e Endpoint) int {
	if e.Leader {
		return 1
	}
	return 0
}

// aroundCause is what gRPC says around why no connection comes about.
var aroundCause = regexp.MustCompile(`^(.*)rpc error: code = \w+ desc = latest balancer error: connection error: desc = "transport: (?:Error while dialing: )?(.*)"$`)

// unfit says why a snapshot should not come from e, empty if it may.
func (e Endpoint) unfit(newest uint64) string {
	switch {
	case e.Err != nil:
		return aroundCause.ReplaceAllString(e.Err.Error(), "$1$2")
	case e.Learner:
		return "it is a learner"
	case !e.hasLeader:
		return "it knows no leader"
	case newest-e.Applied > maxLag:
		return fmt.Sprintf("it is %d entries behind", newest-e.Applied)
	}
	return ""
}

func (e Endpoint) why(of int, newest uint64) string {
	role := "follower"
	if e.Leader {
		role = "leader"
	}
	if of == 1 {
		return role + ", the only endpoint given"
	}
	return fmt.Sprintf("%s, applied %d of %d", role, e.Applied, newest)
}

func noneFit(all []Endpoint, passed []string) error {
	list := strings.Join(passed, "\n  ")
	for _, e := range all {
		switch {
		case e.Err == nil:
			return fmt.Errorf("no endpoint is fit to take a snapshot from:\n  %s", list)
		case Denied(e.Err):
			return fmt.Errorf("%s: %w", e.Address, e.Err)
		}
	}
	return fmt.Errorf("%w:\n  %s", ErrUnreachable, list)
}

// Denied tells an answer that another try won't change: the server does not let
// the user do it.
func Denied(err error) bool {
	code := codeOf(err)
	return needsRoot(err) || code == codes.PermissionDenied || code == codes.Unauthenticated || code == codes.InvalidArgument
}

func codeOf(err error) codes.Code {
	var answer rpctypes.EtcdError
	if errors.As(err, &answer) {
		return answer.Code()
	}
	return status.Code(err)
}

// rootRefusals are what servers say to a user who may not take a snapshot. 3.4
// sends its own errors to a stream as they are, without a code
// (etcdserver/api/v3rpc/maintenance.go).
var rootRefusals = []string{"permission denied", "user name is empty", "user name not found"}

// needsRoot tells whether a snapshot was refused for want of the role root.
func needsRoot(err error) bool {
	var answer interface{ GRPCStatus() *status.Status }
	var known rpctypes.EtcdError
	var text string
	switch {
	case errors.As(err, &known):
		text = known.Error()
	case errors.As(err, &answer):
		text = answer.GRPCStatus().Message()
	}
	return slices.ContainsFunc(rootRefusals, func(refusal string) bool {
		return text == "auth: "+refusal || text == "etcdserver: "+refusal
	})
}

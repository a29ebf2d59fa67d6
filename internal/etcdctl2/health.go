package etcdctl2

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

const (
	healthPause = 10 * time.Second
	healthLimit = 64 << 10 // bytes of a health answer that are read
)

func newClusterHealthCommand(s *session) *cobra.Command {
	var forever bool
	cmd := leaf("cluster-health", "check the health of the etcd cluster", func(ctx context.Context, _ []string) error {
		return s.clusterHealth(ctx, forever)
	})
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "forever check the health every 10 second until CTRL+C")
	return cmd
}

// clusterHealth asks every member that the cluster lists, as often as told.
func (s *session) clusterHealth(ctx context.Context, forever bool) error {
	tr, err := s.transport()
	if err != nil {
		return failed(exitServerError, err)
	}
	c, err := s.connectNoSync(ctx)
	if err != nil {
		return err
	}
	members, err := client.NewMembersAPI(c).List(ctx)
	if err != nil {
		fmt.Fprintln(s.out, "cluster may be unhealthy: failed to list members")
		if flushed := s.out.Flush(); flushed != nil {
			return flushed
		}
		return failed(exitServerError, err)
	}
	web := &http.Client{Transport: tr}
	for {
		healthy := s.checkMembers(ctx, web, members)
		if !forever {
			return verdict(healthy, len(members))
		}
		if err := s.pause(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

func verdict(healthy, members int) error {
	if healthy == members {
		return nil
	}
	return &Failure{Code: exitClusterNotHealthy}
}

// pause announces the next check and waits for its time, or for ctx's end.
func (s *session) pause(ctx context.Context) error {
	fmt.Fprint(s.out, "\nnext check after 10 second...\n\n")
	if err := s.out.Flush(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(healthPause):
	}
	return nil
}

// checkMembers prints the health of each member and of all together, and
// returns how many are healthy.
func (s *session) checkMembers(ctx context.Context, web *http.Client, members []client.Member) int {
	healthy := 0
	for _, m := range members {
		if s.checkMember(ctx, web, m) {
			healthy++
		}
	}
	switch healthy {
	case len(members):
		fmt.Fprintln(s.out, "cluster is healthy")
	case 0:
		fmt.Fprintln(s.out, "cluster is unavailable")
	default:
		fmt.Fprintln(s.out, "cluster is degraded")
	}
	return healthy
}

// checkMember asks a member's client URLs until one answers.
func (s *session) checkMember(ctx context.Context, web *http.Client, m client.Member) bool {
	if len(m.ClientURLs) == 0 {
		fmt.Fprintf(s.out, "member %s is unreachable: no available published client urls\n", m.ID)
		return false
	}
	for _, url := range m.ClientURLs {
		healthy, err := askHealth(ctx, web, url)
		switch {
		case err != nil:
			fmt.Fprintf(s.out, "failed to check the health of member %s on %s: %v\n", m.ID, url, err)
			continue
		case healthy:
			fmt.Fprintf(s.out, "member %s is healthy: got healthy result from %s\n", m.ID, url)
		default:
			fmt.Fprintf(s.out, "member %s is unhealthy: got unhealthy result from %s\n", m.ID, url)
		}
		return healthy
	}
	fmt.Fprintf(s.out, "member %s is unreachable: %v are all unreachable\n", m.ID, m.ClientURLs)
	return false
}

// askHealth reads /health, where "health" is "true" from some releases and
// true from others.
func askHealth(ctx context.Context, web *http.Client, url string) (healthy bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/health", nil)
	if err != nil {
		return false, err
	}
	resp, err := web.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthLimit))
	if err != nil {
		return false, err
	}
	var answer struct{ Health any }
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, err
	}
	return answer.Health == "true" || answer.Health == true, nil
}

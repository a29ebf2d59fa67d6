package etcdctl2

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

func newAuthCommand(s *session) *cobra.Command {
	return group("auth", "overall auth controls",
		leaf("enable", "enable auth access controls", func(ctx context.Context, args []string) error {
			return s.switchAuth(ctx, args, client.AuthAPI.Enable, "Authentication Enabled")
		}),
		leaf("disable", "disable auth access controls", func(ctx context.Context, args []string) error {
			return s.switchAuth(ctx, args, client.AuthAPI.Disable, "Authentication Disabled")
		}),
	)
}

func (s *session) switchAuth(ctx context.Context, args []string, to func(client.AuthAPI, context.Context) error, done string) error {
	if len(args) != 0 {
		return errArguments()
	}
	c, err := s.connectAuth(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	if err := to(client.NewAuthAPI(c), ctx); err != nil {
		return refused("%v", err)
	}
	fmt.Fprintln(s.out, done)
	return nil
}

// connectAuth connects for the auth commands, which show the endpoints of
// --debug once more.
func (s *session) connectAuth(ctx context.Context) (client.Client, error) {
	c, err := s.connect(ctx)
	if err == nil {
		s.debugf("Cluster-Endpoints: %s\n", strings.Join(c.Endpoints(), ", "))
	}
	return c, err
}

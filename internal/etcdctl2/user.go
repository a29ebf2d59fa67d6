package etcdctl2

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

func newUserCommand(s *session) *cobra.Command {
	return group("user", "user add, grant and revoke subcommands",
		leaf("add <user>", "add a new user for the etcd cluster", s.userAdd),
		leaf("get <user>", "get details for a user", s.userGet),
		leaf("list", "list all current users", s.userList),
		leaf("remove <user>", "remove a user for the etcd cluster", s.userRemove),
		newUserRolesCommand(s, "grant <user>", "grant roles to an etcd user", client.AuthUserAPI.GrantUser),
		newUserRolesCommand(s, "revoke <user>", "revoke roles for an etcd user", client.AuthUserAPI.RevokeUser),
		leaf("passwd <user>", "change password for a user", s.userPasswd),
	)
}

// withUsers connects and runs do within the total timeout.
func (s *session) withUsers(ctx context.Context, do func(context.Context, client.AuthUserAPI) error) error {
	c, err := s.connectAuth(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	return plain(do(ctx, client.NewAuthUserAPI(c)))
}

func oneUser(args []string) error {
	if len(args) != 1 {
		return refused("Please provide a username")
	}
	return nil
}

func (s *session) userList(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return errArguments()
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		users, err := api.ListUsers(ctx)
		for _, user := range users {
			fmt.Fprintln(s.out, user)
		}
		return err
	})
}

func (s *session) userAdd(ctx context.Context, args []string) error {
	if err := oneUser(args); err != nil {
		return err
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		name, _, _ := strings.Cut(args[0], ":")
		// A PUT would set the password of a user that is there already.
		// An error is most often that there is none; another comes again.
		if user, err := api.GetUser(ctx, name); err == nil && user != nil {
			return refused("User %s already exists", name)
		}
		name, password, err := s.credentials(ctx, "New password: ", args[0])
		if err != nil {
			return err
		}
		if err := api.AddUser(ctx, name, password); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "User %s created\n", name)
		return nil
	})
}

func (s *session) userRemove(ctx context.Context, args []string) error {
	if err := oneUser(args); err != nil {
		return err
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		if err := api.RemoveUser(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "User %s removed\n", args[0])
		return nil
	})
}

func (s *session) userPasswd(ctx context.Context, args []string) error {
	if err := oneUser(args); err != nil {
		return err
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		// A PUT would make a user that is not there yet.
		if _, err := api.GetUser(ctx, args[0]); err != nil {
			return err
		}
		password, err := s.askPassword(ctx, "New password: ")
		if err != nil {
			return err
		}
		if _, err := api.ChangePassword(ctx, args[0], password); err != nil {
			return err
		}
		fmt.Fprintln(s.out, "Password updated")
		return nil
	})
}

func (s *session) userGet(ctx context.Context, args []string) error {
	if err := oneUser(args); err != nil {
		return err
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		user, err := api.GetUser(ctx, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "User: %s\nRoles: %s\n", user.User, strings.Join(user.Roles, " "))
		return nil
	})
}

// changeRoles is client.AuthUserAPI's GrantUser or RevokeUser.
type changeRoles func(api client.AuthUserAPI, ctx context.Context, user string, roles []string) (*client.User, error)

func newUserRolesCommand(s *session, use, short string, change changeRoles) *cobra.Command {
	var roles []string
	cmd := leaf(use, short, func(ctx context.Context, args []string) error {
		return s.userRoles(ctx, args, roles, change)
	})
	cmd.Flags().StringArrayVar(&roles, "roles", nil, "a role to grant or revoke; may be given several times")
	return cmd
}

func (s *session) userRoles(ctx context.Context, args, roles []string, change changeRoles) error {
	if len(roles) == 0 {
		return refused("No roles specified; please use `--roles`")
	}
	if err := oneUser(args); err != nil {
		return err
	}
	return s.withUsers(ctx, func(ctx context.Context, api client.AuthUserAPI) error {
		if _, err := change(api, ctx, args[0], roles); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "User %s updated\n", args[0])
		return nil
	})
}

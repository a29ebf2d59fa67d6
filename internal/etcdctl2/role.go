package etcdctl2

import (
	"context"
	"fmt"
	"reflect"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/pathutil"
	client "go.etcd.io/etcd/client/v2"
)

func newRoleCommand(s *session) *cobra.Command {
	return group("role", "role add, grant and revoke subcommands",
		leaf("add <role>", "add a new role for the etcd cluster", s.roleAdd),
		leaf("get <role>", "get details for a role", s.roleGet),
		leaf("list", "list all roles", s.roleList),
		leaf("remove <role>", "remove a role from the etcd cluster", s.roleRemove),
		newPermissionCommand(s, "grant <role>", "grant path matches to an etcd role", permissionChange{
			send: client.AuthRoleAPI.GrantRoleKV, unchanged: "Role unchanged; already granted"}),
		newPermissionCommand(s, "revoke <role>", "revoke path matches for an etcd role", permissionChange{
			send: client.AuthRoleAPI.RevokeRoleKV, unchanged: "Role unchanged; already revoked"}),
	)
}

// withRoles connects and runs do within the total timeout.
func (s *session) withRoles(ctx context.Context, do func(context.Context, client.AuthRoleAPI) error) error {
	c, err := s.connectAuth(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	return plain(do(ctx, client.NewAuthRoleAPI(c)))
}

func oneRole(args []string) error {
	if len(args) != 1 {
		return refused("Please provide a role name")
	}
	return nil
}

func (s *session) roleList(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return errArguments()
	}
	return s.withRoles(ctx, func(ctx context.Context, api client.AuthRoleAPI) error {
		roles, err := api.ListRoles(ctx)
		for _, role := range roles {
			fmt.Fprintln(s.out, role)
		}
		return err
	})
}

func (s *session) roleAdd(ctx context.Context, args []string) error {
	if err := oneRole(args); err != nil {
		return err
	}
	return s.withRoles(ctx, func(ctx context.Context, api client.AuthRoleAPI) error {
		// An error here is most often that there is no such role; if it
		// is another, it comes again with the request that follows.
		if role, err := api.GetRole(ctx, args[0]); err == nil && role != nil {
			return refused("Role %s already exists", args[0])
		}
		if err := api.AddRole(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Role %s created\n", args[0])
		return nil
	})
}

func (s *session) roleRemove(ctx context.Context, args []string) error {
	if err := oneRole(args); err != nil {
		return err
	}
	return s.withRoles(ctx, func(ctx context.Context, api client.AuthRoleAPI) error {
		if err := api.RemoveRole(ctx, args[0]); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Role %s removed\n", args[0])
		return nil
	})
}

func (s *session) roleGet(ctx context.Context, args []string) error {
	if err := oneRole(args); err != nil {
		return err
	}
	return s.withRoles(ctx, func(ctx context.Context, api client.AuthRoleAPI) error {
		role, err := api.GetRole(ctx, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Role: %s\n", role.Role)
		s.printPaths("KV Read:", role.Permissions.KV.Read)
		s.printPaths("KV Write:", role.Permissions.KV.Write)
		return nil
	})
}

func (s *session) printPaths(title string, paths []string) {
	fmt.Fprintln(s.out, title)
	for _, path := range paths {
		fmt.Fprintf(s.out, "\t%s\n", path)
	}
}

// permissionChange is what parts role grant from role revoke.
type permissionChange struct {
	send      func(api client.AuthRoleAPI, ctx context.Context, role string, paths []string, kind client.PermissionType) (*client.Role, error)
	unchanged string
}

// permissionFlags are the flags of role grant and role revoke.
type permissionFlags struct {
	path                   string
	read, write, readWrite bool
}

func newPermissionCommand(s *session, use, short string, change permissionChange) *cobra.Command {
	var f permissionFlags
	cmd := leaf(use, short, func(ctx context.Context, args []string) error {
		return s.changePermission(ctx, args, f, change)
	})
	cmd.Flags().StringVar(&f.path, "path", "", "path that the role may access")
	cmd.Flags().BoolVar(&f.read, "read", false, "read-only access")
	cmd.Flags().BoolVar(&f.write, "write", false, "write-only access")
	cmd.Flags().BoolVar(&f.readWrite, "readwrite", false, "read-write access")
	cmd.Flags().BoolVar(&f.readWrite, "rw", false, "as --readwrite")
	return cmd
}

// check returns the permission that the flags name.
func (f permissionFlags) check() (client.PermissionType, error) {
	if f.path == "" {
		return 0, refused("No path specified; please use `--path`")
	}
	if canonical := pathutil.CanonicalURLPath(f.path); canonical != f.path {
		return 0, refused("Not canonical path; please use `--path=%s`", canonical)
	}
	switch [3]bool{f.read, f.write, f.readWrite} {
	case [3]bool{true, false, false}:
		return client.ReadPermission, nil
	case [3]bool{false, true, false}:
		return client.WritePermission, nil
	case [3]bool{false, false, true}:
		return client.ReadWritePermission, nil
	}
	return 0, refused("Please specify exactly one of --read, --write or --readwrite")
}

func (s *session) changePermission(ctx context.Context, args []string, f permissionFlags, change permissionChange) error {
	kind, err := f.check()
	if err != nil {
		return err
	}
	if err := oneRole(args); err != nil {
		return err
	}
	return s.withRoles(ctx, func(ctx context.Context, api client.AuthRoleAPI) error {
		before, err := api.GetRole(ctx, args[0])
		if err != nil {
			return err
		}
		after, err := change.send(api, ctx, args[0], []string{f.path}, kind)
		if err != nil {
			return err
		}
		if reflect.DeepEqual(before, after) {
			fmt.Fprint(s.out, change.unchanged) // etcdctl ends no line here
		}
		fmt.Fprintf(s.out, "Role %s updated\n", args[0])
		return nil
	})
}

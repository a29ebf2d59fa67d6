package etcdctl2

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	client "go.etcd.io/etcd/client/v2"
)

func newMemberCommand(s *session) *cobra.Command {
	return group("member", "member add, remove and list subcommands",
		leaf("list", "enumerate existing cluster members", s.memberList),
		leaf("add <name> <peerURL>", "add a new member to the etcd cluster", s.memberAdd),
		leaf("remove <memberID>", "remove an existing member from the etcd cluster", s.memberRemove),
		leaf("update <memberID> <peerURLs>", "update an existing member in the etcd cluster", s.memberUpdate),
	)
}

// withMembers connects and runs do within the total timeout. An error of do
// that is no Failure yet is told as it is; so with users and roles.
func (s *session) withMembers(ctx context.Context, do func(context.Context, client.MembersAPI) error) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := s.withTotalTimeout(ctx)
	defer cancel()
	return plain(do(ctx, client.NewMembersAPI(c)))
}

func (s *session) memberList(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return errArguments()
	}
	return s.withMembers(ctx, func(ctx context.Context, api client.MembersAPI) error {
		members, err := api.List(ctx)
		if err != nil {
			return err
		}
		leader, err := api.Leader(ctx)
		if err != nil {
			return refused("Failed to get leader:  %v", err)
		}
		for _, m := range members {
			s.printMember(m, leader.ID)
		}
		return nil
	})
}

func (s *session) printMember(m client.Member, leader string) {
	peers := strings.Join(m.PeerURLs, ",")
	if m.Name == "" {
		fmt.Fprintf(s.out, "%s[unstarted]: peerURLs=%s\n", m.ID, peers)
		return
	}
	fmt.Fprintf(s.out, "%s: name=%s peerURLs=%s clientURLs=%s isLeader=%v\n",
		m.ID, m.Name, peers, strings.Join(m.ClientURLs, ","), m.ID == leader)
}

func (s *session) memberAdd(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return refused("Provide a name and a single member peerURL")
	}
	name, peerURL := args[0], args[1]
	return s.withMembers(ctx, func(ctx context.Context, api client.MembersAPI) error {
		added, err := api.Add(ctx, peerURL)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Added member named %s with ID %s to cluster\n", name, added.ID)
		members, err := api.List(ctx)
		if err != nil {
			return err
		}
		s.printBootstrap(name, added.ID, members)
		return nil
	})
}

// printBootstrap prints the environment that the new member starts with.
func (s *session) printBootstrap(name, id string, members []client.Member) {
	var cluster []string
	for _, m := range members {
		if m.ID == id {
			m.Name = name
		}
		for _, peer := range m.PeerURLs {
			cluster = append(cluster, m.Name+"="+peer)
		}
	}
	fmt.Fprintf(s.out, "\nETCD_NAME=%q\n", name)
	fmt.Fprintf(s.out, "ETCD_INITIAL_CLUSTER=%q\n", strings.Join(cluster, ","))
	fmt.Fprintf(s.out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n")
}

func (s *session) memberRemove(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return refused("Provide a single member ID")
	}
	id := args[0]
	return s.withMembers(ctx, func(ctx context.Context, api client.MembersAPI) error {
		members, err := api.List(ctx)
		if err != nil {
			return refused("Error while verifying ID against known members: %v", err)
		}
		if !s.knownMember(members, id) {
			return refused("Couldn't find a member in the cluster with an ID of %s.", id)
		}
		if err := api.Remove(ctx, id); err != nil {
			return refused("Received an error trying to remove member %s: %v", id, err)
		}
		fmt.Fprintf(s.out, "Removed member %s from cluster\n", id)
		return nil
	})
}

// knownMember reports whether a member has this id, and tells the id of one
// that has it as its name.
func (s *session) knownMember(members []client.Member, id string) bool {
	known := false
	for _, m := range members {
		known = known || m.ID == id
		if m.Name == id {
			fmt.Fprintf(s.Stderr, "Found a member named %s; if this is correct, please use its ID, eg:\n\tlifeboat v2 member remove %s\n", m.Name, m.ID)
		}
	}
	return known
}

func (s *session) memberUpdate(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return refused("Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)")
	}
	return s.withMembers(ctx, func(ctx context.Context, api client.MembersAPI) error {
		if err := api.Update(ctx, args[0], strings.Split(args[1], ",")); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "Updated member with ID %s in cluster\n", args[0])
		return nil
	})
}

func errArguments() error { return refused("No arguments accepted") }

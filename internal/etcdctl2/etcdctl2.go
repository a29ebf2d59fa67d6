package etcdctl2

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes of etcdctl (etcdctl/ctlv2/command/error.go, 3.4).
// Nothing that etcdctl does ends with 3, but for a mistyped command.
const (
	exitBadArgs           = 1
	exitBadConnection     = 2
	exitNoSuchCommand     = 3
	exitServerError       = 4
	exitClusterNotHealthy = 5
)

// IO is what the client may touch of the process that it runs in.
type IO struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// Failure is how a command ends that did not do what it was asked for.
// What there is to say was written to Stderr when [New]'s command returns it.
type Failure struct {
	Code int    // exit code, as etcdctl's
	Text string // what goes to Stderr, line ends included; may be empty
}

func (f *Failure) Error() string {
	return fmt.Sprintf("exit code %d: %s", f.Code, f.Text)
}

// session is one run of the client.
type session struct {
	IO
	global globalFlags
	out    *bufio.Writer // Stdout; flushed when the command ends, or has news
}

// New makes the command "v2", which holds all the others. It parses its
// arguments itself, since etcdctl's flags are Go's: one dash or two. The
// command returns a [*Failure], or the error of a write to Stdout.
func New(stdio IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:                "v2",
		Short:              "The etcdctl v2 client: ls, get, set, watch, member, …",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return execute(cmd.Context(), stdio, cmd.CommandPath(), args)
		},
		ValidArgsFunction: completeCommands,
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		tree := newTree(&session{IO: stdio}, cmd.CommandPath())
		tree.SetOut(stdio.Stdout)
		if err := tree.Help(); err != nil {
			fmt.Fprintf(stdio.Stderr, "write help: %v\n", err)
		}
	})
	return cmd
}

func completeCommands(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var names []string
	for _, sub := range newTree(&session{}, "v2").Commands() {
		names = append(names, sub.Name()+"\t"+sub.Short)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// execute runs one command line, and writes what its failure has to say.
func execute(ctx context.Context, stdio IO, path string, args []string) error {
	s := &session{IO: stdio, out: bufio.NewWriter(stdio.Stdout)}
	err := s.runTree(ctx, newTree(s, path), args)
	if flushed := s.out.Flush(); flushed != nil && err == nil {
		err = fmt.Errorf("write output: %w", flushed)
	}
	var failure *Failure
	if errors.As(err, &failure) {
		if _, werr := io.WriteString(stdio.Stderr, failure.Text); werr != nil {
			return fmt.Errorf("write message: %w", werr)
		}
	}
	return err
}

func (s *session) runTree(ctx context.Context, root *cobra.Command, args []string) error {
	canonical, err := canonicalArgs(root, args)
	if err != nil {
		return err
	}
	root.SetArgs(canonical)
	return root.ExecuteContext(ctx)
}

// newTree makes the commands behind "v2"; path is how the user called it.
func newTree(s *session, path string) *cobra.Command {
	root := &cobra.Command{
		Use:         "v2",
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: path},
		Short:       "A simple command line client for etcd's v2 API",
		Long: `The commands of etcdctl 2.3, for servers that speak etcd's v2 API.

Flags may be written with one dash or two, and anywhere on the line. What
follows "--" is never a flag.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          helpOrNoTopic,
	}
	root.SetIn(s.Stdin)
	root.SetOut(s.out)
	root.SetErr(s.Stderr)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagFailure)
	s.global.register(root.PersistentFlags())
	root.AddCommand(keyCommands(s)...)
	root.AddCommand(
		newWatchCommand(s),
		newExecWatchCommand(s),
		newMemberCommand(s),
		newClusterHealthCommand(s),
		newImportCommand(s),
		newUserCommand(s),
		newRoleCommand(s),
		newAuthCommand(s),
	)
	return root
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: helpOrNoTopic}
	cmd.AddCommand(subs...)
	return cmd
}

func helpOrNoTopic(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return &Failure{Code: exitNoSuchCommand, Text: fmt.Sprintf("No help topic for '%s'\n", args[0])}
}

// action is what a command does once its flags are parsed.
type action func(ctx context.Context, args []string) error

// leaf is a command that does something.
func leaf(use, short string, run action) *cobra.Command {
	return &cobra.Command{
		Use:                   use,
		Short:                 short,
		Args:                  cobra.ArbitraryArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), args)
		},
	}
}

// failed reports err the way of etcdctl's handleError
// (etcdctl/ctlv2/command/error.go, 3.4).
func failed(code int, err error) error {
	text := fmt.Sprintln("Error: ", err)
	if cluster := (clusterDetail)(nil); errors.As(err, &cluster) {
		text += cluster.Detail() + "\n"
	}
	return &Failure{Code: code, Text: text}
}

// clusterDetail is *client.ClusterError: one error for each endpoint.
type clusterDetail interface {
	error
	Detail() string
}

// refused ends with etcdctl's exit code 1 and a line of its own.
func refused(format string, args ...any) error {
	return &Failure{Code: exitBadArgs, Text: fmt.Sprintf(format, args...) + "\n"}
}

// plain ends with etcdctl's exit code 1 and what err says, unless err is a
// Failure already.
func plain(err error) error {
	var failure *Failure
	if err == nil || errors.As(err, &failure) {
		return err
	}
	return refused("%v", err)
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

// The exit codes of every command.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitDamage      = 3
	exitUnreachable = 4
	exitLocked      = 5
	exitWrongKey    = 6
	exitTooOld      = 7
)

// env is what a command may touch of the process that it runs in.
type env struct {
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Getenv func(string) string
}

// exitError carries the exit code that an error asks for.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// withExit makes err end the process with code; a nil err stays nil.
func withExit(code int, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: code, err: err}
}

// errSilent ends the process with its exit code and prints nothing more:
// for commands whose results have said it all.
var errSilent = errors.New("")

func newRootCommand(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "lifeboat",
		Short: "Back up, restore and recover etcd",
		Long: `Lifeboat backs up, restores and recovers etcd, 2.3 to 3.7.

It reads and writes etcd's own files, so it works on a running member,
on a dead one, and on a damaged one. It never writes into what it reads.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return withExit(exitUsage, unknownCommand(cmd, args[0]))
		},
	}
	root.SetIn(e.Stdin)
	root.SetOut(e.Stdout)
	root.SetErr(e.Stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Flags().Bool("version", false, "print the version")
	root.SetVersionTemplate(versionText())
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withExit(exitUsage, fmt.Errorf("%w%s\nSee '%s --help'", err, flagHint(cmd, err), cmd.CommandPath()))
	})
	for _, g := range commandGroups(e) {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.title
		}
		root.AddCommand(g.commands...)
	}
	root.AddCommand(newEmbeddedCommand(e), newVersionCommand(e))
	addCompletions(root, e)
	return root
}

// commandGroup is what the help shows together.
type commandGroup struct {
	title    string
	commands []*cobra.Command
}

func commandGroups(e *env) []commandGroup {
	return []commandGroup{
		{"Back up and restore:", []*cobra.Command{
			newInitCommand(e), newKeygenCommand(e), newSaveCommand(e), newListCommand(e), newShowCommand(e), newVerifyCommand(e),
			newRestoreCommand(e), newPruneCommand(e), newHoldCommand(e), newCopyCommand(e), newCheckCommand(e), newQuickstartCommand(e),
		}},
		{"On schedules:", []*cobra.Command{newRunCommand(e), newTriggerCommand(e), newConfigCommand(e)}},
		{"Data dirs and snapshots:", []*cobra.Command{
			newBackupCommand(e), newSnapshotCommand(e), newHashKVCommand(e), newMemberCommand(e), newServeCommand(e), newV2Command(e),
		}},
		{"Look inside:", []*cobra.Command{newWALCommand(e), newSnapCommand(e), newDBCommand(e)}},
	}
}

// group is a command that only holds others; a mistyped one is a usage error.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return withExit(exitUsage, unknownCommand(cmd, args[0]))
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

// newHelpCommand is cobra's, but that a topic that is not there is an error.
func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil {
				return withExit(exitUsage, err)
			}
			if len(rest) > 0 {
				return withExit(exitUsage, unknownCommand(about, rest[0]))
			}
			return about.Help()
		},
	}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := ""
	if near := nearest(cmd, name); len(near) > 0 {
		hint = fmt.Sprintf("\nDid you mean '%s %s'?", cmd.CommandPath(), strings.Join(near, "' or '"))
	}
	return fmt.Errorf("unknown command %q for %q%s\nSee '%s --help'", name, cmd.CommandPath(), hint, cmd.CommandPath())
}

// nearest are the commands below cmd that name may have meant: those that it is
// the beginning of, else those that are spelled like it.
func nearest(cmd *cobra.Command, name string) []string {
	cmd.SuggestionsMinimumDistance = 2
	near := cmd.SuggestionsFor(name)
	begin := slices.DeleteFunc(slices.Clone(near), func(s string) bool { return !strings.HasPrefix(s, name) })
	if len(begin) > 0 {
		return begin
	}
	return near
}

// flagHint names the flag that an unknown one may have meant.
func flagHint(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	name := cmp.Or(unknown.GetSpecifiedShortnames(), unknown.GetSpecifiedName())
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := location.Nearest(name, names); near != "" {
		return fmt.Sprintf("\nDid you mean --%s?", near)
	}
	return ""
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		what := "an argument is missing"
		for i, arg := range args {
			if check(cmd, args[:i]) == nil {
				what = fmt.Sprintf("unexpected argument %q", arg)
			}
		}
		return withExit(exitUsage, fmt.Errorf("%s\nUsage: %s", what, cmd.UseLine()))
	}
}

// run executes the command line args and returns the exit code.
func run(ctx context.Context, args []string, e *env) int {
	root := newRootCommand(e)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	msg := err.Error()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		msg = "interrupted"
	}
	if msg != "" {
		fmt.Fprintf(e.Stderr, "lifeboat: %s\n", msg)
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitFailed
}

package etcdctl2

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// canonicalArgs rewrites a command line typed for Go's flag package into one
// that means the same to pflag: first the command's names, then its flags as
// --name=value, then "--" and the arguments.
//
// Go's flags take one dash or two, at any name's length. Unlike etcdctl's,
// they may stand anywhere before a "--", the global ones too.
func canonicalArgs(root *cobra.Command, args []string) ([]string, error) {
	line := commandLine{cmd: root}
	for len(args) > 0 {
		rest, err := line.take(args)
		if err != nil {
			return nil, err
		}
		args = rest
	}
	canonical := append(line.names, line.flags...)
	return append(append(canonical, "--"), line.args...), nil
}

// commandLine is what was read of a command line so far.
type commandLine struct {
	cmd                *cobra.Command
	names, flags, args []string
}

// take reads args[0], with its value where it is a flag that has one, and
// returns what is left.
func (l *commandLine) take(args []string) (rest []string, err error) {
	arg, rest := args[0], args[1:]
	switch {
	case arg == "--":
		l.args = append(l.args, rest...)
		return nil, nil
	case strings.HasPrefix(arg, "-") && arg != "-":
		return l.takeFlag(arg, rest)
	case len(l.args) == 0 && l.enter(arg):
		return rest, nil
	}
	l.args = append(l.args, arg)
	return rest, nil
}

// enter goes down to the subcommand called name, if there is one.
func (l *commandLine) enter(name string) bool {
	for _, sub := range l.cmd.Commands() {
		if sub.Name() == name || sub.HasAlias(name) {
			l.cmd = sub
			l.names = append(l.names, sub.Name())
			return true
		}
	}
	if name == "help" || name == "h" {
		l.flags = append(l.flags, "--help")
		return true
	}
	return false
}

func (l *commandLine) takeFlag(arg string, rest []string) ([]string, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(arg, "-"), "-")
	name, value, hasValue := strings.Cut(name, "=")
	if name == "help" || name == "h" {
		l.flags = append(l.flags, "--help")
		return rest, nil
	}
	flag := findFlag(l.cmd, name)
	switch {
	case flag == nil:
		return nil, usageFailure(l.cmd, fmt.Sprintf("flag provided but not defined: -%s", name))
	case hasValue:
	case flag.NoOptDefVal != "":
		value = flag.NoOptDefVal
	case len(rest) == 0:
		return nil, usageFailure(l.cmd, fmt.Sprintf("flag needs an argument: -%s", name))
	default:
		value, rest = rest[0], rest[1:]
	}
	l.flags = append(l.flags, "--"+flag.Name+"="+value)
	return rest, nil
}

// findFlag finds a flag of cmd, or a global one, by its long or short name.
func findFlag(cmd *cobra.Command, name string) *pflag.Flag {
	for _, set := range []*pflag.FlagSet{cmd.Flags(), cmd.Root().PersistentFlags()} {
		if flag := set.Lookup(name); flag != nil {
			return flag
		}
		if len(name) != 1 {
			continue
		}
		if flag := set.ShorthandLookup(name); flag != nil {
			return flag
		}
	}
	return nil
}

// flagFailure words pflag's complaints as Go's flag package does.
func flagFailure(cmd *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return usageFailure(cmd, fmt.Sprintf("invalid value %q for flag -%s: parse error", invalid.GetValue(), invalid.GetFlag().Name))
	}
	return usageFailure(cmd, err.Error())
}

// usageFailure tells of a mistyped line. etcdctl prints its help as well.
func usageFailure(cmd *cobra.Command, problem string) error {
	return refused("%s\nSee '%s --help'", problem, cmd.CommandPath())
}

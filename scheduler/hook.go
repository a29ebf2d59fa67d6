package scheduler

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// runHook runs a hook and waits for it. Env is what it is told of the run, each
// as NAME=value.
//
// When it is over, by itself or because its time is, all processes of its group
// are ended. The error holds the end of what it printed, without the secrets of
// its environment.
func runHook(ctx context.Context, h HookConfig, env []string) error {
	p := process{argv: h.Command, timeout: h.Timeout}
	if err := p.environment(env, h.Environment); err != nil {
		return fmt.Errorf("hook %s: %w", p.name(), err)
	}
	if err := p.run(ctx); err != nil {
		return fmt.Errorf("hook %s: %w", p.name(), err)
	}
	return nil
}

// environment is the daemon's own without what is likely a secret or belongs to
// the service manager, then what it is told, then what the configuration says.
func (p *process) environment(told []string, configured map[string]Secret) error {
	p.env = append(inheritable(os.Environ()), told...)
	for name, s := range configured {
		value, err := s.Read()
		if err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
		p.env = append(p.env, name+"="+value.Reveal())
		if s.Inline == "" || namesSecret(name) {
			p.secrets = append(p.secrets, value.Reveal())
		}
	}
	return nil
}

// notInherited are variables by which the service manager speaks with the
// daemon alone.
var notInherited = []string{"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}

// inheritable leaves out what commands have no business with.
func inheritable(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return namesSecret(name) || slices.Contains(notInherited, name)
	})
}

package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
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

// unknown stands in lists for what is not there or not known.
const unknown = "-"

// hookEnv is what hooks of a stage are told of a run. What each of the job's
// repositories has its own of is a list in their order, with a word for each.
func hookEnv(stage Stage, rec RunRecord) []string {
	each := func(of func(RepositoryOutcome) string) string {
		var words []string
		for _, out := range rec.Repositories {
			words = append(words, cmp.Or(of(out), unknown))
		}
		return strings.Join(words, " ")
	}
	env := []string{
		"LIFEBOAT_JOB=" + rec.Job, "LIFEBOAT_CLUSTER=" + rec.Cluster, "LIFEBOAT_RUN=" + rec.ID,
		"LIFEBOAT_REPOSITORY=" + each(func(out RepositoryOutcome) string { return out.Name }),
	}
	if stage == StageBefore {
		return env
	}
	return append(env,
		"LIFEBOAT_RESULT="+string(rec.Result), "LIFEBOAT_STAGE="+string(rec.Stage),
		"LIFEBOAT_CAUSE="+string(rec.Cause), "LIFEBOAT_ERROR="+rec.Error,
		"LIFEBOAT_BACKUP_ID="+each(func(out RepositoryOutcome) string { return out.BackupID }),
		"LIFEBOAT_VERIFIED="+each(func(out RepositoryOutcome) string { return string(out.Verified) }),
		"LIFEBOAT_PLAIN_BYTES="+each(func(out RepositoryOutcome) string { return number(out.PlainBytes) }),
		"LIFEBOAT_STORED_BYTES="+each(func(out RepositoryOutcome) string { return number(out.StoredBytes) }),
		"LIFEBOAT_REVISION="+each(func(out RepositoryOutcome) string { return number(out.Revision) }),
	)
}

// number is what is known of a number that is never 0.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
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

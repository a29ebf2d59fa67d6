package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/atomicfile"
)

// quickstartLimit is how long the whole story may take.
const quickstartLimit = 2 * time.Minute

func newQuickstartCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "quickstart",
		Short: "Show a backup, an accident and the way back, on a server in a temporary dir",
		Long: `Quickstart plays the whole story with real data in a temporary dir: start the
built-in server, write keys, back up, lose the log, see that the data dir no
longer boots, verify the backup, boot it, and compare every key and index.

Each command is printed before it runs, as you could type it. It listens on
loopback ports that the kernel picks, and leaves nothing behind.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), quickstartLimit)
			defer cancel()
			return quickstart(ctx, e)
		},
	}
}

// quickstart plays the story, and cleans up after it however it ends.
func quickstart(ctx context.Context, e *env) error {
	dir, err := atomicfile.NewTempDir("", "quickstart")
	if err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	s, err := newShell(ctx, e, dir.Path)
	if err == nil {
		err = story(s)
	}
	err = errors.Join(err, s.close(), dir.Remove())
	if err != nil {
		return fmt.Errorf("quickstart: %w", err)
	}
	fmt.Fprintf(e.Stdout, "\nThe temporary dir is removed. To do it with your own data: lifeboat backup --help\n")
	return nil
}

// story is the quickstart from the first key to the last comparison.
func story(s *shell) error {
	fmt.Fprintf(s.env.Stdout, "$ cd %s\n", s.dir)
	before, err := writeKeys(s)
	if err != nil {
		return err
	}
	if err := loseLog(s); err != nil {
		return err
	}
	return bringBack(s, before)
}

// writeKeys fills a new server, backs it up while it runs, and returns what it
// then held.
func writeKeys(s *shell) (keyTree, error) {
	s.say("A server of our own, on a port that the kernel picks.")
	if err := s.serve("lifeboat serve --data-dir etcd --create --listen 127.0.0.1:0"); err != nil {
		return keyTree{}, err
	}
	s.say("Some keys: plain, in order, hidden, with a time to live, changed and removed.")
	for _, line := range []string{
		`lifeboat v2 mkdir /services`,
		`lifeboat v2 set /services/web/1 10.0.0.1:80`,
		`lifeboat v2 set /services/web/2 10.0.0.2:80`,
		`for job in build test ship; do lifeboat v2 mk --in-order /queue $job; done`,
		`lifeboat v2 set /config/motd 'Ahoi, schöne neue Welt'`,
		`lifeboat v2 set /config/_secret 'not listed'`,
		`lifeboat v2 set /lock/deploy anna --ttl 3600`,
		`lifeboat v2 set /services/web/2 10.0.0.9:80 --swap-with-value 10.0.0.2:80`,
		`lifeboat v2 update /services/web/1 10.0.0.8:80`,
		`lifeboat v2 set /scratch gone && lifeboat v2 rm /scratch`,
		`lifeboat v2 ls / --recursive -p --sort`,
	} {
		if err := s.run(line); err != nil {
			return keyTree{}, err
		}
	}
	before, err := readKeys(s.ctx, s.url)
	if err != nil {
		return keyTree{}, err
	}
	s.say("A backup of the running server.")
	return before, s.run("lifeboat backup --data-dir etcd --backup-dir backup")
}

// loseLog stops the server and makes sure that what is left does not boot.
func loseLog(s *shell) error {
	s.say("An accident: the log is gone.")
	if err := s.kill(); err != nil {
		return err
	}
	if err := s.run("rm -r etcd/member/wal"); err != nil {
		return err
	}
	return s.refused("lifeboat serve --data-dir etcd --listen 127.0.0.1:0")
}

// bringBack verifies the backup, boots it and compares.
func bringBack(s *shell, before keyTree) error {
	s.say("Is the backup good? Nothing is written to it.")
	if err := s.run("lifeboat verify backup"); err != nil {
		return err
	}
	s.say("Then boot it.")
	if err := s.serve("lifeboat serve --data-dir backup --listen 127.0.0.1:0"); err != nil {
		return err
	}
	if err := s.run("lifeboat v2 get /config/motd"); err != nil {
		return err
	}
	after, err := readKeys(s.ctx, s.url)
	if err != nil {
		return err
	}
	if err := before.same(after); err != nil {
		return err
	}
	s.say(fmt.Sprintf("Compared with the first server: all %d keys and dirs are there, with the same values,\n"+
		"# created and modified indexes and expiry times; the v2 index went on from %d.", len(before.nodes), before.index))
	return s.kill()
}

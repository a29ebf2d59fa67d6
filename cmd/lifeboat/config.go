package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/scheduler"
)

func newConfigCommand(e *env) *cobra.Command {
	return group("config", "Check or write the configuration of the daemon", newConfigCheckCommand(e), newConfigExampleCommand(e))
}

func newConfigCheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong in a configuration file",
		Long: `Check reads a configuration file as 'lifeboat run' does, and says all that is
wrong in it, with line and column. Warnings are about what is allowed and likely
not meant. Nothing is connected to: 'lifeboat check' does that.`,
		Example: `  lifeboat config check /etc/lifeboat/lifeboat.yaml`,
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			config, err := loadConfig(e, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(e.Stdout, "%s: good; repositories: %d, clusters: %d, jobs: %d\n",
				args[0], len(config.Repositories), len(config.Clusters), len(config.Jobs))
			return err
		},
	}
}

// loadConfig reads the daemon's configuration, and warns of what is odd in it.
func loadConfig(e *env, path string) (*scheduler.Config, error) {
	config, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	for _, warning := range config.Warnings() {
		fmt.Fprintln(e.Stderr, "warning:", warning)
	}
	return config, nil
}

// readConfig reads it and says nothing of what is odd.
func readConfig(path string) (*scheduler.Config, error) {
	config, err := scheduler.LoadConfig(path)
	var wrong *scheduler.ConfigError
	if errors.As(err, &wrong) {
		return nil, withExit(exitUsage, err)
	}
	return config, err
}

const drillSuffix = "/drill"

// jobNames are the jobs that can be run, and their drills.
func jobNames(config *scheduler.Config) []string {
	var names []string
	for name, job := range config.Jobs {
		if names = append(names, name); job.Drill != nil {
			names = append(names, name+drillSuffix)
		}
	}
	slices.Sort(names)
	return names
}

// noJob is the usage error for a job that is not in the configuration.
func noJob(job string, config *scheduler.Config) error {
	return withExit(exitUsage, fmt.Errorf("%w: %s; there is %s", scheduler.ErrNoJob, job, strings.Join(jobNames(config), ", ")))
}

func newConfigExampleCommand(e *env) *cobra.Command {
	var starter bool
	cmd := &cobra.Command{
		Use:   "example",
		Short: "Print an example of the configuration file",
		Long: `Example prints a configuration file that has every key once, each explained.
With --starter it is a small one that runs: it backs up the etcd on this machine
into a folder beside the file, every few seconds.`,
		Example: `  lifeboat config example > lifeboat.yaml
  lifeboat config example --starter > lifeboat.yaml`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			text := scheduler.ExampleConfig
			if starter {
				text = scheduler.StarterConfig
			}
			_, err := e.Stdout.Write(text)
			return err
		},
	}
	cmd.Flags().BoolVar(&starter, "starter", false, "a small one that runs")
	return cmd
}

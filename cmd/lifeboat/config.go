package main

import (
	"errors"
	"fmt"

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
			_, err = fmt.Fprintf(e.Stdout, "%s: good: %d repositories, %d clusters, %d jobs\n",
				args[0], len(config.Repositories), len(config.Clusters), len(config.Jobs))
			return err
		},
	}
}

// loadConfig reads the daemon's configuration, and warns of what is odd in it.
func loadConfig(e *env, path string) (*scheduler.Config, error) {
	config, err := scheduler.LoadConfig(path)
	var wrong *scheduler.ConfigError
	switch {
	case errors.As(err, &wrong):
		return nil, withExit(exitUsage, err)
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	}
	for _, warning := range config.Warnings() {
		fmt.Fprintln(e.Stderr, "warning:", warning)
	}
	return config, nil
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

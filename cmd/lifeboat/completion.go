package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// completionTimeout bounds how long a shell waits for a repository.
const completionTimeout = 3 * time.Second

// addCompletions teaches shells what cobra can't know: the backups, clusters
// and jobs that the line's repository or configuration has, and the values of
// flags that take few.
func addCompletions(cmd *cobra.Command, e *env) {
	for _, sub := range cmd.Commands() {
		addCompletions(sub, e)
	}
	levels := []string{string(repository.Digest), string(repository.Structure), string(repository.Boot)}
	completeFlag(cmd, "output", func(*cobra.Command) []string { return []string{string(outputTable), string(outputJSON)} })
	completeFlag(cmd, "level", func(*cobra.Command) []string { return levels })
	completeFlag(cmd, "verify", func(*cobra.Command) []string { return levels })
	completeFlag(cmd, "once", jobsOf)
	if cmd.Flags().Lookup("repo") != nil {
		completeFlag(cmd, "cluster", func(cmd *cobra.Command) []string { return clustersOf(cmd, e) })
	}
	switch cmd.Name() {
	case "show", "verify", "restore", "hold", "copy":
		if cmd.Flags().Lookup("repo") != nil {
			cmd.ValidArgsFunction = completeFirst(func(cmd *cobra.Command) []string { return backupsOf(cmd, e) })
		}
	case "trigger":
		cmd.ValidArgsFunction = completeFirst(jobsOf)
	}
}

// completeFlag lists words for the flag of that name, if cmd has it.
func completeFlag(cmd *cobra.Command, name string, words func(*cobra.Command) []string) {
	if cmd.Flags().Lookup(name) == nil {
		return
	}
	_ = cmd.RegisterFlagCompletionFunc(name, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return words(cmd), cobra.ShellCompDirectiveNoFileComp
	}) // fails only for a flag that is not there, or has one already
}

// completeFirst lists words for the first argument; where none fits the shell
// goes on with files.
func completeFirst(words func(*cobra.Command) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return words(cmd), cobra.ShellCompDirectiveKeepOrder
	}
}

// backupsOf are the ids in the line's repository, the newest first; none if it
// can't be read.
func backupsOf(cmd *cobra.Command, e *env) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	repo, err := repoOf(cmd).open(ctx, e)
	if err != nil {
		return nil
	}
	listing, err := repo.List(ctx, cmd.Flag("cluster").Value.String())
	if err != nil {
		return nil
	}
	words := []string{repository.Latest, repository.LatestVerified}
	now := time.Now()
	for _, b := range slices.Backward(listing.Backups) {
		words = append(words, fmt.Sprintf("%s\t%s, %s old, verified: %s", b.ID(), b.Cluster(), ago(b.Manifest.Started, now), verified(b, now)))
	}
	return words
}

// clustersOf are the names in the line's repository.
func clustersOf(cmd *cobra.Command, e *env) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	repo, err := repoOf(cmd).open(ctx, e)
	if err != nil {
		return nil
	}
	names, err := repo.Clusters(ctx)
	if err != nil {
		return nil
	}
	return names
}

func repoOf(cmd *cobra.Command) *repoFlag {
	return &repoFlag{location: cmd.Flag("repo").Value.String()}
}

// jobsOf are the jobs of the line's configuration.
func jobsOf(cmd *cobra.Command) []string {
	config, err := readConfig(cmd.Flag("config").Value.String())
	if err != nil {
		return nil
	}
	return jobNames(config)
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage/location"
)

// tool is this program as manifests and proofs name it.
func tool() string { return "lifeboat " + version }

func newInitCommand(e *env) *cobra.Command {
	var repo repoFlag
	cmd := &cobra.Command{
		Use:   "init --repo REPO",
		Short: "Make a repository for backups",
		Long: `Init makes an empty place a repository: a directory, which is made if it is not
there, or a prefix of a bucket, which must be there.

A place that holds anything else is refused.`,
		Example: `  lifeboat init --repo /backup/etcd
  lifeboat init --repo 's3://backups/etcd?region=eu-central-1'
  lifeboat init --repo 's3://backups/etcd?endpoint=https://minio.example:9000&path-style=true&ca-file=ca.crt'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := repo.store(cmd.Context(), e, location.Options{Create: true})
			if err != nil {
				return repoExit(fmt.Errorf("init: %w", err))
			}
			made, err := repository.Init(cmd.Context(), store, repository.InitOptions{Tool: tool()})
			if err != nil {
				return repoExit(fmt.Errorf("init: %w", err))
			}
			_, err = fmt.Fprintf(e.Stdout, "Made repository %s in %s\n", made.ID(), made)
			return err
		},
	}
	repo.addFlag(cmd)
	return cmd
}

package main

import (
	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/internal/server/v3engine"
)

// newEmbeddedCommand is the built-in etcd, as which lifeboat starts itself.
func newEmbeddedCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:                v3engine.EmbeddedCommand,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return v3engine.RunEmbedded(cmd.Context(), args, e.Stdin)
		},
	}
}

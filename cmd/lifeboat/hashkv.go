package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/restore"
)

func newHashKVCommand(e *env) *cobra.Command {
	var output writeOutFlag
	var revision int64
	cmd := &cobra.Command{
		Use:   "hashkv FILE",
		Short: "Hash the keys of a snapshot, as members compare them",
		Long: `Hash the keyspace of a snapshot or a copied member/snap/db up to a revision, as
etcd's members do to compare each other ('etcdctl endpoint hashkv') and
'etcdutl hashkv' does. The file is only read; etcdutl's changes it.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return restoreExit(printHashKV(e.Stdout, args[0], revision, output))
		},
	}
	cmd.Flags().Int64Var(&revision, "rev", 0, "hash up to this revision (default: the latest)")
	addWriteOutFlag(cmd, &output)
	return cmd
}

// hashKVReport has the fields and names of etcdutl's JSON.
type hashKVReport struct {
	Hash            uint32 `json:"hash"`
	HashRevision    int64  `json:"hashRevision"`
	CompactRevision int64  `json:"compactRevision"`
}

func printHashKV(w io.Writer, path string, revision int64, output writeOutFlag) error {
	if output == writeOutProtobuf {
		return withExit(exitUsage, errNoProtobuf)
	}
	if revision < 0 {
		return withExit(exitUsage, fmt.Errorf("--rev %d: want 0 or more", revision))
	}
	src, err := restore.OpenFile(path)
	if err != nil {
		return err
	}
	defer src.Close()
	h, err := src.DB.HashKV(revision)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return writeOut(w, output, hashKVReport{h.Hash, h.HashRevision, h.CompactRevision}, []writeOutField{
		{"hash", "Hash", fmt.Sprint(h.Hash), h.Hash},
		{"hash revision", "Hash revision", fmt.Sprint(h.HashRevision), h.HashRevision},
		{"compact revision", "Compact revision", fmt.Sprint(h.CompactRevision), h.CompactRevision},
	})
}

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/restore"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newSnapshotStatusCommand(e *env) *cobra.Command {
	var output writeOutFlag
	cmd := &cobra.Command{
		Use:   "status FILE",
		Short: "Sum up a snapshot: hash, revision, keys, size, version",
		Long: `Sum up a snapshot or a copied member/snap/db with the figures of
'etcdutl snapshot status' 3.7. The file is only read, and its pages are checked.

The hash is over all buckets. Members compare another one: 'lifeboat hashkv'.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			return restoreExit(printStatus(e.Stdout, args[0], output))
		},
	}
	addWriteOutFlag(cmd, &output)
	return cmd
}

// statusReport has the fields and names of etcdutl's JSON.
type statusReport struct {
	Hash      uint32 `json:"hash"`
	Revision  int64  `json:"revision"`
	TotalKey  int64  `json:"totalKey"`
	TotalSize int64  `json:"totalSize"`
	Version   string `json:"version"`
}

func printStatus(w io.Writer, path string, output writeOutFlag) error {
	if output == writeOutProtobuf {
		return withExit(exitUsage, errNoProtobuf)
	}
	src, err := restore.OpenFile(path)
	if err != nil {
		return err
	}
	defer src.Close()
	status, err := src.DB.Status()
	if err != nil {
		return err
	}
	report := statusReport(status)
	return writeOut(w, output, report, []writeOutField{
		{"hash", "Hash", fmt.Sprintf("%x", status.Hash), status.Hash},
		{"revision", "Revision", fmt.Sprint(status.Revision), status.Revision},
		{"total keys", "Keys", fmt.Sprint(status.TotalKey), status.TotalKey},
		{"total size", "Size", humanSize(status.TotalSize), status.TotalSize},
		{"version", "Version", status.Version, status.Version},
	})
}

// restoreExit gives the known errors their exit codes.
func restoreExit(err error) error {
	var corrupt *snapcodec.CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, restore.ErrNotSnapshot) {
		return withExit(exitDamage, err)
	}
	return backupExit(err)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/etcd-lifeboat/lifeboat/forensic"
	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

func newWALCommand(e *env) *cobra.Command {
	return group("wal", "Look into a write-ahead log",
		newWALDumpCommand(e),
		newWALLsCommand(e),
		newWALVerifyCommand(e),
	)
}

// walSource says which log a command is about.
type walSource struct {
	path   string
	walDir string
}

func (s *walSource) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.walDir, "wal-dir", "", "where the segments are, if not in the data dir")
}

// setPath takes the one argument, which --wal-dir may stand in for.
func (s *walSource) setPath(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		s.path = args[0]
	}
	if len(args) > 1 || s.path == "" && s.walDir == "" {
		return withExit(exitUsage, fmt.Errorf("want one data dir, WAL folder or segment file, got %d\nUsage: %s", len(args), cmd.UseLine()))
	}
	return nil
}

// survey opens the log and reads all of it. The caller closes the log.
func (s *walSource) survey(ctx context.Context) (*forensic.Log, *forensic.Survey, error) {
	log, err := forensic.OpenLog(s.path, s.walDir)
	if err != nil {
		return nil, nil, withWALHint(s.path, err)
	}
	survey, err := log.Survey(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, log.Close())
	}
	return log, survey, nil
}

// withWALHint says where to go with a path that is not a log.
func withWALHint(path string, err error) error {
	switch kind := snapcodec.Classify(filepath.Base(path)); {
	case kind == snapcodec.FileSnap || kind == snapcodec.FileBroken && filepath.Ext(path[:len(path)-len(".broken")]) == ".snap":
		return fmt.Errorf("%w\nIt is named as a snapshot: try 'lifeboat snap dump %s'", err, path)
	case kind == snapcodec.FileDB || kind == snapcodec.FileSnapDB:
		return fmt.Errorf("%w\nIt is named as a v3 backend: the log is in the folder member/wal, or where etcd's --wal-dir said", err)
	case errors.Is(err, datadir.ErrNotEtcd), errors.Is(err, forensic.ErrNoLog):
		return fmt.Errorf("%w\nGive a data dir (with member/wal in it), a folder of segments, or one segment; --wal-dir where etcd ran with it", err)
	}
	return err
}

// tellTorn says on stderr that the log's end was cut short.
func tellTorn(w io.Writer, log *forensic.Log, survey *forensic.Survey) {
	if survey.Torn == nil {
		return
	}
	fmt.Fprintf(w, "torn tail: %s\n", survey.Torn)
	if log.Live == datadir.Running {
		fmt.Fprintln(w, "A running etcd has this log open: it may be writing there.")
		return
	}
	fmt.Fprintln(w, "The log is good up to there; what etcd had synced is before it.")
}

// tellDamage lists the damage on stderr.
func tellDamage(w io.Writer, survey *forensic.Survey) {
	for _, d := range survey.Damage {
		fmt.Fprintf(w, "damage: %s\n", d)
	}
}

// tornRefused is the error of --strict for a log whose end was cut short.
func tornRefused(survey *forensic.Survey) error {
	if survey.Torn == nil {
		return nil
	}
	return withExit(exitDamage, survey.Torn)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// checkLines runs ours again and wants a line for each entry of the log.
func checkLines(ctx context.Context, r *runner, w row) error {
	cmd := r.command(ctx, w.ours)
	var lines lineCounter
	cmd.Stdout = &lines
	if err := cmd.Run(); err != nil {
		return err
	}
	if want := int(v3Entries * r.scale); int(lines) < want {
		return fmt.Errorf("%s printed %d lines, want at least %d", w.ours.name, lines, want)
	}
	return nil
}

// checkLastEntry runs ours again and wants the log's last index in what it says.
func checkLastEntry(ctx context.Context, r *runner, w row) error {
	out, err := r.command(ctx, w.ours).Output()
	if err != nil {
		return err
	}
	last := strconv.Itoa(int(v3Entries * r.scale))
	if !bytes.Contains(out, []byte(last)) {
		return fmt.Errorf("%s does not tell of index %s:\n%s", w.ours.name, last, out)
	}
	return nil
}

// lineCounter counts the lines that are written to it.
type lineCounter int

func (n *lineCounter) Write(p []byte) (int, error) {
	*n += lineCounter(bytes.Count(p, []byte("\n")))
	return len(p), nil
}

// checkBackup wants a log in the output whose checksums hold and which goes as
// far as the source's, and the snapshots and the backend beside it.
func checkBackup(_ context.Context, r *runner, w row) error {
	src, err := logEnd(r.paths.data)
	if err != nil {
		return err
	}
	dst, err := logEnd(r.paths.out)
	if err != nil {
		return fmt.Errorf("%s: %w", w.ours.name, err)
	}
	if dst != src {
		return fmt.Errorf("%s: the log ends at %+v, the source's at %+v", w.ours.name, dst, src)
	}
	return sameSize(filepath.Join("member", "snap"), r.paths)
}

// end is how far a log goes.
type end struct{ snapshot, term, commit uint64 }

// logEnd verifies the log of dir with etcd's wal package.
func logEnd(dir string) (end, error) {
	walDir := datadir.ToWALDir(dir)
	snaps, err := wal.ValidSnapshotEntries(zap.NewNop(), walDir)
	if err != nil {
		return end{}, err
	}
	var last walpb.Snapshot
	if len(snaps) > 0 {
		last.Index, last.Term = snaps[len(snaps)-1].Index, snaps[len(snaps)-1].Term
	}
	state, err := wal.Verify(zap.NewNop(), walDir, &last)
	if err != nil {
		return end{}, err
	}
	return end{last.GetIndex(), state.GetTerm(), state.GetCommit()}, nil
}

// sameSize wants the files under part to have about the source's size in the
// output: ids and members in them may differ.
func sameSize(part string, p paths) error {
	src, err := dirSize(filepath.Join(p.data, part))
	if err != nil {
		return err
	}
	dst, err := dirSize(filepath.Join(p.out, part))
	if err != nil {
		return err
	}
	if dst < src*9/10 {
		return fmt.Errorf("%s of the output has %d bytes, of the source %d", part, dst, src)
	}
	return nil
}

// checkSameOutput compares what ours and the peer print, if the peer is there.
func checkSameOutput(ctx context.Context, r *runner, w row) error {
	ours, err := r.command(ctx, w.ours).Output()
	if err != nil {
		return err
	}
	peers, err := r.command(ctx, w.peer).Output()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(ours, peers) {
		return fmt.Errorf("%s prints\n%s%s prints\n%s", w.ours.name, ours, w.peer.name, peers)
	}
	return nil
}

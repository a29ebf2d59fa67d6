package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// runPeer does a peer's work in this process: args is the peer and what it
// takes.
func runPeer(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("peer: which?")
	}
	name, rest := args[0], args[1:]
	switch {
	case name == "wal-readall" && len(rest) == 1:
		return peerReadAll(rest[0], stdout)
	case name == "read-crc" && len(rest) == 1:
		return peerReadCRC(rest[0], stdout)
	case name == "dump-logs" && len(rest) == 1:
		return peerDumpLogs(rest[0], stdout)
	case name == "cp-sync" && len(rest) == 2:
		return peerCopySync(rest[0], rest[1])
	}
	return fmt.Errorf("peer: unknown %q", args)
}

// peerReadAll reads the log of dir as a booting server does.
func peerReadAll(dir string, stdout io.Writer) error {
	w, err := wal.OpenForRead(zap.NewNop(), datadir.ToWALDir(dir), &walpb.Snapshot{})
	if err != nil {
		return err
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "entries %d, commit %d\n", len(entries), state.GetCommit())
	return err
}

// peerReadCRC reads the bytes of the log of dir and sums them up, on one core:
// less is not possible for a program that checks them.
func peerReadCRC(dir string, stdout io.Writer) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, 256<<10)
	var crc uint32
	err := eachFile(datadir.ToWALDir(dir), func(f *os.File) error {
		for {
			n, err := f.Read(buf)
			crc = crc32.Update(crc, table, buf[:n])
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "crc %08x\n", crc)
	return err
}

// peerCopySync is cp -r, then fsync of every file and folder that it made.
func peerCopySync(src, dst string) error {
	if out, err := exec.Command("cp", "-r", src, dst).CombinedOutput(); err != nil {
		return fmt.Errorf("cp -r %s %s: %w: %s", src, dst, err, out)
	}
	if err := filepath.WalkDir(dst, syncEntry); err != nil {
		return err
	}
	return syncPath(filepath.Dir(dst))
}

func syncEntry(path string, _ fs.DirEntry, err error) error {
	if err != nil {
		return err
	}
	return syncPath(path)
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// peerDumpLogs makes the calls that tools/etcd-dump-logs of etcd 3.7 makes
// with its default flags: load the newest snapshot, read the whole log from
// it, then per entry try one type after the other and print a line, to an
// unbuffered stdout.
func peerDumpLogs(dir string, stdout io.Writer) error {
	from, err := dumpStart(dir, stdout)
	if err != nil {
		return err
	}
	w, err := wal.OpenForRead(zap.NewNop(), datadir.ToWALDir(dir), from)
	if err != nil {
		return err
	}
	metadata, state, entries, err := w.ReadAll()
	w.Close()
	if err != nil {
		return err
	}
	if err := dumpHead(stdout, metadata, state); err != nil {
		return err
	}
	for _, e := range entries {
		dumpEntry(stdout, e)
	}
	_, err = fmt.Fprintf(stdout, "\nEntry types (Normal,ConfigChange) count is : %d\n", len(entries))
	return err
}

// dumpStart prints the newest snapshot of dir and returns where it stands.
func dumpStart(dir string, stdout io.Writer) (*walpb.Snapshot, error) {
	newest, err := snap.New(zap.NewNop(), datadir.ToSnapDir(dir)).Load()
	if errors.Is(err, snap.ErrNoSnapshot) {
		_, err = fmt.Fprint(stdout, "Snapshot:\nempty\n")
		return &walpb.Snapshot{}, err
	}
	if err != nil {
		return nil, err
	}
	m := newest.GetMetadata()
	confState, err := json.Marshal(m.GetConfState())
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(stdout, "Snapshot:\nterm=%d index=%d confstate=%s\n", m.GetTerm(), m.GetIndex(), confState)
	return &walpb.Snapshot{Index: proto.Uint64(m.GetIndex()), Term: proto.Uint64(m.GetTerm())}, err
}

func dumpHead(stdout io.Writer, metadata []byte, state *raftpb.HardState) error {
	var m etcdserverpb.Metadata
	if err := proto.Unmarshal(metadata, &m); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stdout, "WAL metadata:\nnodeID=%s clusterID=%s term=%d commitIndex=%d vote=%s\n",
		types.ID(m.GetNodeID()), types.ID(m.GetClusterID()), state.GetTerm(), state.GetCommit(), types.ID(state.GetVote()))
	return err
}

// dumpEntry decodes a request twice, once to tell its type and once to print
// it, as the tool's filters and printers do.
func dumpEntry(stdout io.Writer, e *raftpb.Entry) {
	switch {
	case e.GetType() == raftpb.EntryConfChange:
		dumpConfChange(stdout, e)
	case proto.Unmarshal(e.GetData(), &etcdserverpb.InternalRaftRequest{}) == nil:
		var r etcdserverpb.InternalRaftRequest
		if proto.Unmarshal(e.GetData(), &r) == nil {
			fmt.Fprintf(stdout, "%4d\t%10d\tnorm\t%s", e.GetTerm(), e.GetIndex(), r.String())
		}
	default:
		fmt.Fprintf(stdout, "%4d\t%10d\tnorm\t???", e.GetTerm(), e.GetIndex())
	}
	fmt.Fprintln(stdout)
}

func dumpConfChange(stdout io.Writer, e *raftpb.Entry) {
	fmt.Fprintf(stdout, "%4d\t%10d\tconf", e.GetTerm(), e.GetIndex())
	var c raftpb.ConfChange
	if err := proto.Unmarshal(e.GetData(), &c); err != nil {
		fmt.Fprint(stdout, "\t???")
		return
	}
	fmt.Fprintf(stdout, "\tmethod=%s id=%s", c.GetType(), types.ID(c.GetNodeId()))
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// row is one line of the table: the same work done by up to three contenders.
type row struct {
	name   string
	work   string
	data   dataset
	part   string // what of the data the work reads; empty: all of it
	ours   contender
	peer   contender
	limit  contender // zero: the row has none
	budget budget
	// memory is the most anonymous memory that ours may hold, bytes.
	memory int64
	// check looks at what ours made, so that a command that does nothing is
	// not called fast. It is run once, off the clock.
	check func(ctx context.Context, r *runner, w row) error
	// setup starts what the contenders work on, nil for nothing but the data.
	setup func(ctx context.Context, p *paths, work string) (stop func() error, err error)
}

// contender is a program that does a row's work.
type contender struct {
	name string
	// argv is the command line; its first word is looked up on PATH unless
	// it is a path.
	argv func(p paths) []string
	env  []string
	// missing says how to get the program when it is not there.
	missing string
}

// paths are what a contender's command line is made of.
type paths struct {
	data     string // the row's data dir
	out      string // where output goes: does not exist yet
	self     string // this binary
	lifeboat string
	etcd35   string // the folder of etcd 3.5's binaries
	etcd37   string // and of 3.7's

	versitygw, age string
	services       *services // nil without a setup
}

// file is one file of the row's data.
func (p paths) file(name string) string { return filepath.Join(p.data, name) }

// budget is the most that ours may take: a fixed time, or a multiple of what
// the limit or the peer took in the same run.
type budget struct {
	fixed   time.Duration // at full scale
	ofLimit float64
	ofPeer  float64
}

// oursMemory is the budget of every command but replay (docs/performance.md).
const oursMemory = 64 << 20

// walPart is the log in a data dir.
var walPart = filepath.Join("member", "wal")

// rows is the table. A new row is a new entry.
var rows = append([]row{
	{
		name: "wal-verify",
		work: "verify a log of 600k entries",
		data: v3Dir,
		part: walPart,
		ours: contender{name: "lifeboat wal verify", argv: func(p paths) []string {
			return []string{p.lifeboat, "wal", "verify", p.data}
		}},
		peer:   peer("wal.ReadAll", "wal-readall"),
		limit:  peer("read + CRC32C, one core", "read-crc"),
		budget: budget{ofLimit: 1.5},
		memory: oursMemory,
		check:  checkLastEntry,
	},
	{
		name: "wal-dump",
		work: "dump it as JSON lines",
		data: v3Dir,
		part: walPart,
		ours: contender{name: "lifeboat wal dump", argv: func(p paths) []string {
			return []string{p.lifeboat, "wal", "dump", "-o", "json", p.data}
		}},
		peer:   peer("etcd-dump-logs' calls", "dump-logs"),
		budget: budget{fixed: 1500 * time.Millisecond},
		memory: oursMemory,
		check:  checkLines,
	},
	{
		name: "backup-v2",
		work: "backup of a 2.3 data dir",
		data: v2Dir,
		ours: lifeboatBackup(),
		peer: contender{
			name: "etcdctl 3.4 backup",
			argv: func(p paths) []string {
				return []string{"etcdctl", "backup", "--data-dir", p.data, "--backup-dir", p.out}
			},
			env:     []string{"ETCDCTL_API=2"},
			missing: "Debian's package etcd-client has it",
		},
		limit:  copySync("."),
		budget: budget{ofLimit: 1.5},
		memory: oursMemory,
		check:  checkBackup,
	},
	{
		name: "backup-v3",
		work: "backup of a 3.5 data dir",
		data: v3Dir,
		ours: lifeboatBackup(),
		peer: contender{
			name: "etcdutl 3.5 backup --with-v3",
			argv: func(p paths) []string {
				return []string{filepath.Join(p.etcd35, "etcdutl"), "backup", "--with-v3", "--data-dir", p.data, "--backup-dir", p.out}
			},
			missing: "e2e/build.sh builds it",
		},
		limit:  copySync("."),
		budget: budget{ofLimit: 1.3},
		memory: oursMemory,
		check:  checkBackup,
	},
	{
		name: "restore",
		work: "restore a snapshot of 827 MB",
		data: snapshotFile,
		part: snapshotName,
		ours: contender{name: "lifeboat snapshot restore", argv: func(p paths) []string {
			return []string{p.lifeboat, "snapshot", "restore", p.file(snapshotName), "--data-dir", p.out}
		}},
		peer: etcdutl37(func(p paths) []string {
			return []string{"snapshot", "restore", p.file(snapshotName), "--data-dir", p.out}
		}),
		limit:  copySync(snapshotName),
		budget: budget{fixed: time.Second},
		memory: oursMemory,
	},
	{
		name: "status",
		work: "snapshot status of it",
		data: snapshotFile,
		part: snapshotName,
		ours: contender{name: "lifeboat snapshot status", argv: func(p paths) []string {
			return []string{p.lifeboat, "snapshot", "status", p.file(snapshotName)}
		}},
		peer:   etcdutl37(func(p paths) []string { return []string{"snapshot", "status", p.file(snapshotName)} }),
		budget: budget{fixed: 400 * time.Millisecond},
		memory: oursMemory,
		check:  checkSameOutput,
	},
	{
		name: "hashkv",
		work: "hashkv of it, without its checksum, since etcdutl's hashkv changes the file",
		data: snapshotFile,
		part: scratchName,
		ours: contender{name: "lifeboat hashkv", argv: func(p paths) []string {
			return []string{p.lifeboat, "hashkv", p.file(scratchName)}
		}},
		peer:   etcdutl37(func(p paths) []string { return []string{"hashkv", p.file(scratchName)} }),
		budget: budget{fixed: 600 * time.Millisecond},
		memory: oursMemory,
		check:  checkSameOutput,
	},
}, repositoryRows()...)

// etcdutl37 is a contender that runs etcdutl 3.7 with these arguments.
func etcdutl37(args func(p paths) []string) contender {
	return contender{
		name:    "etcdutl 3.7",
		argv:    func(p paths) []string { return append([]string{filepath.Join(p.etcd37, "etcdutl")}, args(p)...) },
		missing: "e2e/build.sh builds it",
	}
}

// peer is a contender inside this binary that takes the row's data dir.
func peer(name, verb string) contender {
	return contender{name: name, argv: func(p paths) []string {
		return []string{p.self, "peer", verb, p.data}
	}}
}

func lifeboatBackup() contender {
	return contender{name: "lifeboat backup", argv: func(p paths) []string {
		return []string{p.lifeboat, "backup", "--data-dir", p.data, "--backup-dir", p.out}
	}}
}

// copySync copies a part of the data.
func copySync(part string) contender {
	return contender{name: "cp -r + fsync", argv: func(p paths) []string {
		return []string{p.self, "peer", "cp-sync", p.file(part), p.out}
	}}
}

func rowNames() []string {
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	return names
}

// selectRows returns the rows of those names, all for none, in the table's order.
func selectRows(names []string) ([]row, error) {
	for _, name := range names {
		if !slices.Contains(rowNames(), name) {
			return nil, fmt.Errorf("no row %q: want some of %v", name, rowNames())
		}
	}
	var chosen []row
	for _, r := range rows {
		if len(names) == 0 || slices.Contains(names, r.name) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

// contender returns the row's contender called who: ours, peer or limit.
func (r row) contender(who string) contender {
	switch who {
	case "ours":
		return r.ours
	case "peer":
		return r.peer
	default:
		return r.limit
	}
}

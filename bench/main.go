// Bench measures lifeboat and its peers side by side, on data that it
// generates: `go run ./bench`, or `make bench`.
//
// Each row of the table is one piece of work (see rows in row.go) done by up
// to three contenders: ours, the peer that people use today, and the limit,
// which is the least that any program could do. All run as child processes in
// interleaved rounds, the page cache warm; the medians count. Peers that are
// Go packages run inside this binary: `bench peer NAME ARG…`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "peer" {
		return runPeer(args[1:], stdout)
	}
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	return bench(ctx, o, stdout, stderr)
}

// options are the command line's.
type options struct {
	keepData   string
	scale      float64
	rows       []string
	who        []string
	rounds     int
	patience   time.Duration
	output     string
	lifeboat   string
	etcd35     string
	etcd37     string
	cpuProfile string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var names, who string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.keepData, "keep-data", "", "generate the data into `DIR` and keep it; reuse what is there (default: a temporary dir)")
	f.Float64Var(&o.scale, "scale", 1, "size of the data as a part of the full size")
	f.StringVar(&names, "rows", "", "comma-separated `NAMES` of the rows to measure (default: all: "+strings.Join(rowNames(), ",")+")")
	f.StringVar(&who, "who", "ours,peer,limit", "comma-separated contenders to run")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each row")
	f.DurationVar(&o.patience, "patience", 20*time.Second, "run a contender that takes longer than this only once")
	f.StringVar(&o.output, "o", "table", "output: table or json")
	f.StringVar(&o.lifeboat, "lifeboat", "", "measure this `BINARY` (default: build it from ./cmd/lifeboat)")
	f.StringVar(&o.etcd35, "etcd35", filepath.Join("build", "etcd35"), "`DIR` of etcd 3.5's binaries, as e2e/build.sh makes them")
	f.StringVar(&o.etcd37, "etcd37", filepath.Join("build", "etcd37"), "`DIR` of etcd 3.7's binaries, likewise")
	f.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of each row's lifeboat to `DIR`/ROW.pprof, in a run of its own")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.rows, o.who = splitList(names), splitList(who)
	return o, o.validate(f.Args())
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

func (o options) validate(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("unknown argument %q", rest[0])
	case o.scale <= 0:
		return fmt.Errorf("--scale %v: want more than 0", o.scale)
	case o.rounds < 1:
		return fmt.Errorf("--rounds %d: want at least 1", o.rounds)
	case o.output != "table" && o.output != "json":
		return fmt.Errorf("-o %s: want table or json", o.output)
	}
	for _, who := range o.who {
		if who != "ours" && who != "peer" && who != "limit" {
			return fmt.Errorf("--who %s: want ours, peer or limit", who)
		}
	}
	_, err := selectRows(o.rows)
	return err
}

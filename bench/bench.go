package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// bench generates the data, measures the rows and prints the report.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) error {
	chosen, err := selectRows(o.rows)
	if err != nil {
		return err
	}
	work, cleanup, err := workDir(o.keepData)
	if err != nil {
		return err
	}
	defer cleanup()
	if err := checkSpace(work, chosen, o.scale, stderr); err != nil {
		return err
	}
	p, err := programs(ctx, o, work)
	if err != nil {
		return err
	}
	rep := report{
		CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(),
		Scale: o.scale, Memory: memoryMeasured, Load: loadAverage(),
	}
	for _, r := range chosen {
		res, err := measureRow(ctx, o, r, p, work, stderr)
		if err != nil {
			return fmt.Errorf("row %s: %w", r.name, err)
		}
		rep.Rows = append(rep.Rows, res)
	}
	if err := rep.print(stdout, o.output); err != nil {
		return err
	}
	return rep.err()
}

// workDir is where data and output go: keep, or a temporary dir that cleanup
// removes.
func workDir(keep string) (dir string, cleanup func(), err error) {
	if keep == "" {
		dir, err = os.MkdirTemp("", "lifeboat-bench-")
		return dir, func() { os.RemoveAll(dir) }, err
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		return "", nil, err
	}
	dir, err = filepath.Abs(keep)
	return dir, func() { os.RemoveAll(outPath(dir)) }, err
}

func outPath(work string) string { return filepath.Join(work, "out") }

// programs finds or builds what the contenders run.
func programs(ctx context.Context, o options, work string) (paths, error) {
	self, err := os.Executable()
	if err != nil {
		return paths{}, err
	}
	etcd35, err := filepath.Abs(o.etcd35)
	if err != nil {
		return paths{}, err
	}
	etcd37, err := filepath.Abs(o.etcd37)
	if err != nil {
		return paths{}, err
	}
	p := paths{out: outPath(work), self: self, etcd35: etcd35, etcd37: etcd37}
	for program, path := range map[string]*string{"versitygw": &p.versitygw, "age": &p.age} {
		if *path, err = filepath.Abs(filepath.Join("build", program, program)); err != nil {
			return paths{}, err
		}
	}
	if o.lifeboat != "" {
		p.lifeboat, err = filepath.Abs(o.lifeboat)
		return p, err
	}
	p.lifeboat = filepath.Join(work, "lifeboat")
	return p, build(ctx, "-trimpath", "-o", p.lifeboat, "./cmd/lifeboat")
}

func build(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}

// loadAverage is that of the last minute; empty where there is no /proc.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	minute, _, _ := strings.Cut(string(data), " ")
	return minute
}

func measureRow(ctx context.Context, o options, r row, p paths, work string, talk io.Writer) (result, error) {
	data, err := r.data.ready(work, o.scale, talk)
	if err != nil {
		return result{}, err
	}
	p.data = data
	n, err := dirSize(filepath.Join(data, r.part))
	if err != nil {
		return result{}, err
	}
	if err := warm(data); err != nil {
		return result{}, err
	}
	res := result{Row: r.name, Work: r.work, DataBytes: n}
	if r.setup != nil {
		stop, err := r.setup(ctx, &p, work)
		if err != nil {
			return result{}, fmt.Errorf("%s: %w", r.name, err)
		}
		defer stop()
	}
	run := &runner{paths: p, talk: talk, scale: o.scale}
	figures, err := run.rounds(ctx, o, r)
	if err != nil {
		return result{}, err
	}
	res.Ours, res.Peer, res.Limit = figures["ours"], figures["peer"], figures["limit"]
	judge(r, o.scale, &res)
	return res, profileRow(ctx, o, r, p, talk)
}

// rounds runs the row's contenders in turn, o.rounds times, so that what else
// the machine does falls on all of them. A contender that fails is not run
// again; one slower than o.patience is not either, and its one run counts.
func (r *runner) rounds(ctx context.Context, o options, w row) (map[string]*figure, error) {
	names := []string{"ours", "peer", "limit"}
	samples, failed := map[string][]sample{}, map[string]error{}
	for round := range o.rounds {
		fmt.Fprintf(r.talk, "%s: round %d of %d\n", w.name, round+1, o.rounds)
		for _, who := range names {
			c := w.contender(who)
			if !wanted(o, who, c) || failed[who] != nil || tooSlow(o, samples[who]) {
				continue
			}
			s, err := r.measure(ctx, c)
			if err == nil && who == "ours" && round == 0 && w.check != nil {
				err = w.check(ctx, r, w)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			samples[who], failed[who] = append(samples[who], s), err
		}
	}
	figures := map[string]*figure{}
	for _, who := range names {
		if c := w.contender(who); wanted(o, who, c) {
			figures[who] = newFigure(c.name, samples[who], failed[who])
		}
	}
	return figures, os.RemoveAll(r.paths.out)
}

func (r *runner) measure(ctx context.Context, c contender) (sample, error) {
	if err := available(c, r.paths); err != nil {
		return sample{}, err
	}
	return r.once(ctx, c)
}

func wanted(o options, who string, c contender) bool {
	return c.argv != nil && slices.Contains(o.who, who)
}

func tooSlow(o options, samples []sample) bool {
	return len(samples) > 0 && samples[0].elapsed > o.patience
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// report is what a run of bench found: the form of -o json.
type report struct {
	CPUs   int     `json:"cpus"`
	OS     string  `json:"os"`
	Arch   string  `json:"arch"`
	Go     string  `json:"go"`
	Scale  float64 `json:"scale"`
	Memory string  `json:"memory"` // what the memory figures are
	// Load is the machine's load average before the first row, empty where
	// the kernel does not tell.
	Load string   `json:"load_average_before,omitempty"`
	Rows []result `json:"rows"`
}

// result is one row of it.
type result struct {
	Row       string  `json:"row"`
	Work      string  `json:"work"`
	DataBytes int64   `json:"data_bytes"`
	Ours      *figure `json:"ours,omitempty"`
	Peer      *figure `json:"peer,omitempty"`
	Limit     *figure `json:"limit,omitempty"`
	// Budget is the most seconds that ours may take, 0 when what it depends
	// on was not measured.
	Budget       float64 `json:"budget_seconds,omitempty"`
	MemoryBudget int64   `json:"memory_budget_bytes"`
	Verdict      string  `json:"verdict"`
}

// figure is what one contender took.
type figure struct {
	Name    string    `json:"name"`
	Seconds float64   `json:"seconds"` // the median
	Runs    []float64 `json:"runs,omitempty"`
	Memory  int64     `json:"peak_memory_bytes"`
	Error   string    `json:"error,omitempty"`
}

// The verdicts.
const (
	verdictPass       = "PASS"
	verdictSlow       = "over"
	verdictMemory     = "over memory"
	verdictFailed     = "failed"
	verdictUnmeasured = "not measured"
)

func newFigure(name string, samples []sample, err error) *figure {
	f := &figure{Name: name}
	if err != nil {
		f.Error = err.Error()
		return f
	}
	for _, s := range samples {
		f.Runs = append(f.Runs, s.elapsed.Seconds())
		f.Memory = max(f.Memory, s.memory)
	}
	f.Seconds = median(f.Runs)
	return f
}

// median is the middle of runs, or the mean of the two in the middle.
func median(runs []float64) float64 {
	if len(runs) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(runs))
	mid := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[mid]
	}
	return (sorted[mid-1] + sorted[mid]) / 2
}

// judge fills in the budget and the verdict of res.
func judge(r row, scale float64, res *result) {
	res.MemoryBudget = r.memory
	res.Budget = r.budget.seconds(scale, res.Limit, res.Peer)
	res.Verdict = verdict(*res)
}

// seconds is the budget, 0 when what it depends on is unknown.
func (b budget) seconds(scale float64, limit, peer *figure) float64 {
	switch {
	case b.fixed > 0:
		return b.fixed.Seconds() * scale
	case b.ofLimit > 0 && limit != nil:
		return b.ofLimit * limit.Seconds
	case b.ofPeer > 0 && peer != nil:
		return b.ofPeer * peer.Seconds
	default:
		return 0
	}
}

func verdict(r result) string {
	switch {
	case r.failed():
		return verdictFailed
	case r.Ours == nil || r.Budget == 0:
		return verdictUnmeasured
	case r.Ours.Seconds > r.Budget:
		return verdictSlow
	case r.Ours.Memory > r.MemoryBudget:
		return verdictMemory
	default:
		return verdictPass
	}
}

// failed says that what the verdict stands on could not be measured. A peer
// that is missing is told in its column and fails nothing.
func (r result) failed() bool {
	return r.Ours.failed() || r.Limit.failed()
}

func (f *figure) failed() bool { return f != nil && f.Error != "" }

// figures returns what was measured: ours, peer, limit.
func (r result) figures() []*figure {
	return slices.DeleteFunc([]*figure{r.Ours, r.Peer, r.Limit}, func(f *figure) bool { return f == nil })
}

// err says that a row failed or is over its budget.
func (r report) err() error {
	var bad []string
	for _, res := range r.Rows {
		if res.Verdict != verdictPass && res.Verdict != verdictUnmeasured {
			bad = append(bad, res.Row+": "+res.Verdict)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d rows do not pass: %v", len(bad), len(r.Rows), bad)
}

func (r report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.printTable(w)
}

func (r report) printTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROW\tDATA\tOURS\tPEER\tLIMIT\tOURS/LIMIT\tPEER/OURS\tBUDGET\tVERDICT\tMEMORY OURS\tPEER")
	for _, res := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			res.Row, size(res.DataBytes), res.Ours.time(), res.Peer.time(), res.Limit.time(),
			ratio(res.Ours, res.Limit), ratio(res.Peer, res.Ours), seconds(res.Budget), res.Verdict,
			res.Ours.memory(), res.Peer.memory())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return r.printNotes(w)
}

// printNotes tells what the columns are, and every error.
func (r report) printNotes(w io.Writer) error {
	fmt.Fprintf(w, "\n%d cores, %s/%s, %s, scale %v; medians; memory: %s\n", r.CPUs, r.OS, r.Arch, r.Go, r.Scale, r.Memory)
	if r.Load != "" {
		fmt.Fprintf(w, "load average before the first row: %s (on a busy machine a budget in seconds means little)\n", r.Load)
	}
	for _, res := range r.Rows {
		fmt.Fprintf(w, "%s: %s", res.Row, res.Work)
		for _, f := range res.figures() {
			fmt.Fprintf(w, "; %s (%d runs)", f.Name, len(f.Runs))
		}
		fmt.Fprintln(w)
		for _, f := range res.figures() {
			if f.failed() {
				fmt.Fprintf(w, "  %s: %s\n", f.Name, f.Error)
			}
		}
	}
	return nil
}

const blank = "-"

func (f *figure) time() string {
	switch {
	case f == nil:
		return blank
	case f.failed():
		return verdictFailed
	default:
		return seconds(f.Seconds)
	}
}

func (f *figure) memory() string {
	if f == nil || f.failed() {
		return blank
	}
	return fmt.Sprintf("%.0f MiB", float64(f.Memory)/(1<<20))
}

func seconds(s float64) string {
	if s == 0 {
		return blank
	}
	return fmt.Sprint(time.Duration(s * 1e9).Round(time.Millisecond))
}

func ratio(a, b *figure) string {
	if a == nil || b == nil || a.Seconds == 0 || b.Seconds == 0 {
		return blank
	}
	return fmt.Sprintf("%.2f", a.Seconds/b.Seconds)
}

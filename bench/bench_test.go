package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		name string
		runs []float64
		want float64
	}{
		{"none", nil, 0},
		{"one", []float64{3}, 3},
		{"odd, unsorted", []float64{9, 1, 2}, 2},
		{"even", []float64{4, 1, 2, 9}, 3},
	} {
		if got := median(c.runs); got != c.want {
			t.Errorf("%s: median %v, want %v", c.name, got, c.want)
		}
	}
}

func TestVerdict(t *testing.T) {
	fig := func(seconds float64, memory int64) *figure { return &figure{Seconds: seconds, Memory: memory} }
	double := row{budget: budget{ofLimit: 2}, memory: 64}
	second := row{budget: budget{fixed: time.Second}, memory: 64}
	for _, c := range []struct {
		name        string
		row         row
		scale       float64
		ours, limit *figure
		want        string
	}{
		{"within a multiple of the limit", double, 1, fig(1.9, 64), fig(1, 0), verdictPass},
		{"over it", double, 1, fig(2.1, 1), fig(1, 0), verdictSlow},
		{"limit not run", double, 1, fig(1, 1), nil, verdictUnmeasured},
		{"limit failed", double, 1, fig(1, 1), &figure{Error: "no"}, verdictFailed},
		{"within a fixed time", second, 1, fig(1, 1), nil, verdictPass},
		{"a fixed time shrinks with the data", second, 0.1, fig(0.2, 1), nil, verdictSlow},
		{"too much memory", second, 1, fig(1, 65), nil, verdictMemory},
		{"ours failed", second, 1, &figure{Error: "no"}, nil, verdictFailed},
		{"ours not run", second, 1, nil, nil, verdictUnmeasured},
	} {
		missing := &figure{Error: "not there"}
		res := result{Ours: c.ours, Peer: missing, Limit: c.limit}
		judge(c.row, c.scale, &res)
		if res.Verdict != c.want {
			t.Errorf("%s: %s, want %s", c.name, res.Verdict, c.want)
		}
	}
}

func TestAFailedRowIsAnError(t *testing.T) {
	good, slow := result{Row: "a", Verdict: verdictPass}, result{Row: "b", Verdict: verdictSlow}
	if err := (report{Rows: []result{good}}).err(); err != nil {
		t.Errorf("all pass: %v", err)
	}
	if err := (report{Rows: []result{good, slow}}).err(); err == nil || !strings.Contains(err.Error(), "b: over") {
		t.Errorf("one over: %v", err)
	}
}

func TestTableSaysWhatIsMissing(t *testing.T) {
	rep := report{CPUs: 2, Scale: 1, Memory: "peak", Rows: []result{{
		Row: "backup-v3", Work: "backup", DataBytes: 1_500_000_000, Verdict: verdictPass, Budget: 2.6,
		Ours:  newFigure("lifeboat", []sample{{elapsed: 2 * time.Second, memory: 32 << 20}, {elapsed: time.Second, memory: 48 << 20}}, nil),
		Peer:  newFigure("etcdutl", nil, errors.New("not there: e2e/build.sh builds it")),
		Limit: newFigure("cp", []sample{{elapsed: 750 * time.Millisecond}}, nil),
	}}}
	var out bytes.Buffer
	if err := rep.print(&out, "table"); err != nil {
		t.Fatal(err)
	}
	line := strings.Fields(strings.Split(out.String(), "\n")[1])
	want := "backup-v3 1.50 GB 1.5s failed 750ms 2.00 - 2.6s PASS 48 MiB -"
	if got := strings.Join(line, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !strings.Contains(out.String(), "e2e/build.sh builds it") {
		t.Errorf("no word of what is missing:\n%s", out.String())
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // in the error; empty: none
	}{
		{[]string{"--rows", "wal-dump,backup-v2", "--who", "ours"}, ""},
		{[]string{"--rows", "wal-dumb"}, "no row"},
		{[]string{"--who", "theirs"}, "--who theirs"},
		{[]string{"--scale", "0"}, "--scale"},
		{[]string{"--rounds", "0"}, "--rounds"},
		{[]string{"-o", "xml"}, "-o xml"},
		{[]string{"backup"}, "unknown argument"},
	} {
		_, err := parseOptions(c.args, new(bytes.Buffer))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

// Two rows on one dataset take its room once, and room for one output.
func TestSpaceFor(t *testing.T) {
	big, small := dataset{name: "big", bytes: 1000}, dataset{name: "small", bytes: 10}
	got := spaceFor([]row{{data: big}, {data: small}, {data: big}}, 10)
	if want := int64((1000 + 10 + 1000) * 10 * 1.2); got != want {
		t.Errorf("%d, want %d", got, want)
	}
}

func TestKeptDataIsReusedOnlyIfTheSameRecipeMadeIt(t *testing.T) {
	work, made := t.TempDir(), 0
	d := dataset{name: "x", generate: func(dir string, _ float64) error {
		made++
		return os.MkdirAll(dir, 0o755)
	}}
	for i, scale := range []float64{1, 1, 2} {
		if _, err := d.ready(work, scale, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		if want := []int{1, 1, 2}[i]; made != want {
			t.Errorf("after scale %v: generated %d times, want %d", scale, made, want)
		}
	}
}

// The peers at tiny scale: each must do its work and say so.
func TestPeers(t *testing.T) {
	dir := generated(t, v3Dir)
	for peer, want := range map[string]string{
		"wal-readall": "commit 6",
		"read-crc":    "crc ",
		"dump-logs":   `put:{key:"/registry/`,
	} {
		var out bytes.Buffer
		if err := runPeer([]string{peer, dir}, &out); err != nil {
			t.Errorf("%s: %v", peer, err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s printed %.200q, want %q in it", peer, out.String(), want)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := runPeer([]string{"cp-sync", dir, out}, nil); err != nil {
		t.Fatal(err)
	}
	if err := sameSize(".", paths{data: dir, out: out}); err != nil {
		t.Error(err)
	}
}

func TestCheckBackup(t *testing.T) {
	src := generated(t, v2Dir)
	r := &runner{paths: paths{data: src, out: filepath.Join(t.TempDir(), "out")}}
	if err := checkBackup(t.Context(), r, row{}); err == nil {
		t.Error("no output passes")
	}
	if err := runPeer([]string{"cp-sync", src, r.paths.out}, nil); err != nil {
		t.Fatal(err)
	}
	if err := checkBackup(t.Context(), r, row{}); err != nil {
		t.Error(err)
	}
	snaps, err := filepath.Glob(filepath.Join(r.paths.out, "member", "snap", "*.snap"))
	if err != nil || len(snaps) != 1 {
		t.Fatalf("snapshots %v, %v", snaps, err)
	}
	if err := os.Remove(snaps[0]); err != nil {
		t.Fatal(err)
	}
	if err := checkBackup(t.Context(), r, row{}); err == nil {
		t.Error("an output without its snapshot passes")
	}
}

// The edits of profile.go must fit lifeboat's main.go as it is now.
func TestProfiledMain(t *testing.T) {
	main, err := os.ReadFile(filepath.Join("..", "cmd", "lifeboat", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	profiled, err := profiledMain(main)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(profiled, []byte("stopProfile()\n\tos.Exit(")) {
		t.Errorf("the profile is not stopped before the exit:\n%s", profiled)
	}
	if _, err := profiledMain([]byte("package main\n")); err == nil {
		t.Error("a main.go without a main passes")
	}
}

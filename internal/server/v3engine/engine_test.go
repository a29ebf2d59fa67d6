package v3engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/datadir"
	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// TestMain lets the test binary be the built-in etcd.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == EmbeddedCommand {
		if err := RunEmbedded(context.Background(), os.Args[2:], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "lifeboat:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestParseVersion(t *testing.T) {
	for name, c := range map[string]struct{ out, version, refused string }{
		"3.5":      {"etcd Version: 3.5.35\nGit SHA: 1\n", "3.5.35", ""},
		"2.3":      {"etcd Version: 2.3.8\n", "", "3.4 and later"},
		"unknown":  {"etcd Version: 4.0.0\n", "", "unknown etcd version"},
		"no etcd":  {"GNU bash, version 5\n", "", "is no etcd"},
		"says nix": {"", "", "is no etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := parseVersion("/bin/etcd", c.out)
			if e.Version != c.version || (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("got %+v, %v; want %q, %q", e, err, c.version, c.refused)
			}
		})
	}
}

func TestOldHash(t *testing.T) {
	for version, want := range map[string]bool{"3.4.23": true, "3.4.34": false, "3.5.15": true, "3.5.16": false, "3.6.0": false, "3.7.3": false} {
		e, err := parseVersion("", "etcd Version: "+version)
		if err != nil || e.oldHash() != want {
			t.Errorf("%s: %v (%v), want %v", version, e.oldHash(), err, want)
		}
	}
}

func TestEmbeddedIsNotForHands(t *testing.T) {
	if err := RunEmbedded(context.Background(), nil, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestCauseIn(t *testing.T) {
	const fatal = `{"level":"fatal","msg":"discovery failed","error":"no such thing"}`
	for name, c := range map[string]struct{ log, cause string }{
		"fatal":         {fatal + "\n", "discovery failed: no such thing"},
		"not ended":     {fatal, "discovery failed: no such thing"},
		"panic":         {"panic: oh\n" + strings.Repeat("\tstack\n", 100), "panic: oh"},
		"error":         {`{"level":"error","msg":"a"}` + "\n" + `{"level":"error","msg":"b"}` + "\n", "b"},
		"the built-in":  {"lifeboat: member not found\n", "member not found"},
		"nothing of it": {"{}\n\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var tl tail
			for len(c.log) > 0 {
				n := min(7, len(c.log))
				fmt.Fprint(&tl, c.log[:n])
				c.log = c.log[n:]
			}
			if got := causeIn(tl.lines()); got != c.cause {
				t.Errorf("cause %q, want %q", got, c.cause)
			}
			if n := len(tl.lines()); n > tailLines {
				t.Errorf("%d lines kept", n)
			}
		})
	}
}

func TestEnvironmentIsScrubbed(t *testing.T) {
	t.Setenv("ETCD_QUOTA_BACKEND_BYTES", "1")
	t.Setenv("HTTPS_PROXY", "http://proxy")
	for _, v := range environment() {
		if strings.HasPrefix(v, "ETCD_QUOTA") || strings.Contains(v, "PROXY") {
			t.Errorf("%s is passed on", v)
		}
	}
}

func TestStartRefusesADamagedDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/member/wal", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/member/wal/0000000000000000-0000000000000000.wal", []byte("no log at all, but long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), dir, Options{})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Cause == "" || len(refused.Log) == 0 {
		t.Fatalf("got %v, want a refusal with its log", err)
	}
}

func inspect(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Inspect(t.Context(), path, datadir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestComparerInParts: many puts take several passes, each over its own keys.
func TestComparerInParts(t *testing.T) {
	d := inspect(t, fixture.DataDir(t, "3.5.33"))
	db, err := openBackend(d.Backend.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	want, err := figuresOf(db.DB)
	if err != nil {
		t.Fatal(err)
	}
	look, err := lookAtLog(d, want)
	if err != nil {
		t.Fatal(err)
	}
	for _, puts := range []int64{0, 3 * maxPuts} {
		look.puts = puts
		c, err := look.compare(db.DB, look.applied, want.revision, want.compact)
		if err != nil || len(c.problems) > 0 || c.compared != c.records || c.records != 98 {
			t.Errorf("%d puts: %+v, %v", puts, c, err)
		}
	}
}

package scheduler

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/repository"
	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/storagetest"
)

// twice are the steps of an error's text that begin as the step before them
// does, or that were there before.
func twice(text string) []string {
	var found []string
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "; ", "\n"), "\n") {
		steps := strings.Split(line, ": ")
		for i, step := range steps[1:] {
			verb, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(step)), " ")
			before, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(steps[i])), " ")
			if verb == before || slices.Contains(steps[:i+1], step) {
				found = append(found, step)
			}
		}
	}
	return found
}

// textsOf runs a job whose real repository fails at each of its operations in
// turn, and returns what the records say.
func textsOf(t *testing.T, cfg *Config, inner func() storage.Store, fault storagetest.Fault) map[string]bool {
	t.Helper()
	texts := map[string]bool{}
	for store := range storagetest.Each(fault, inner) {
		out := realOutside()
		out.open = func(ctx context.Context, t task) (depot, error) {
			repo, err := repository.Open(ctx, toldStore{store})
			if err != nil {
				return nil, err
			}
			return &openedDepot{t, repo}, nil
		}
		r := newRun(order{kind: BackupRun, cfg: cfg, job: cfg.Jobs["j"]}, out, "test", "here", New(cfg, Options{}).log)
		rec := r.runJob(t.Context())
		texts[rec.Error] = true
		for _, w := range rec.Warnings {
			texts[w] = true
		}
	}
	return texts
}

// Whatever operation of a real repository fails in a run, what is said of it
// says nothing twice.
func TestTextsOfStoresReadOnce(t *testing.T) {
	cfg := configOf(t, `
repositories: {a: {url: /a, retention: {last: 1}}}
clusters: {c: {data-dir: `+fixture.DataDir(t, "3.5.33")+`}}
jobs: {j: {cluster: c, repositories: a, schedule: on-demand}}
`)
	inner := func() storage.Store {
		memory := storagetest.NewMemory()
		d := depotIn(t, memory, cfg, "j")
		for range 2 {
			if _, err := d.save(t.Context(), nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		return memory
	}
	for _, kind := range []storagetest.Kind{storagetest.Fail, storagetest.Cut} {
		texts := textsOf(t, cfg, inner, storagetest.Fault{Kind: kind, After: 10})
		if len(texts) < 10 {
			t.Errorf("only %d texts", len(texts))
		}
		for text := range texts {
			if again := twice(text); len(again) > 0 {
				t.Errorf("%q is there twice: %s", again, text)
			}
		}
	}
}

// What goes wrong otherwise is said once too, and so that one knows what to do.
func TestTextsOfRunsReadOnce(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"empty", "foreign"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "foreign", "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	const create = "url: repo, create: true"
	files := "data-dir: " + fixture.DataDir(t, "3.5.33")
	tests := map[string]struct{ repository, cluster, job, want string }{
		"no folder":     {"url: none", files, "", "repository a: open store DIR/none: there is no such directory (is its file system mounted?)"},
		"no repository": {"url: empty", files, "", "repository a: open DIR/empty: not a repository: nothing is there"},
		"other files":   {"url: foreign, create: true", files, "", "repository a: open: init DIR/foreign: the place is not empty: what is there: file"},
		"no data":       {create, "data-dir: none", "", "repository a: save DIR/none: stat DIR/none: no such file or directory"},
		"no etcd":       {create, "endpoints: \"127.0.0.1:1\", dial-timeout: 1s, command-timeout: 1s", "", "repository a: save: no endpoint answers:\n"},
		"no cert":       {create, "endpoints: \"127.0.0.1:1\", tls: {cacert: none}", "", "repository a: save: TLS of cluster c by DIR/none: open DIR/none: no such file or directory"},
		"no passphrase": {create + ", passphrase-file: none", files, "", "repository a: save: passphrase: read secret: open DIR/none: no such file or directory"},
		"no password":   {create, "endpoints: \"127.0.0.1:1\", user: root, password-file: none", "", "repository a: save: password of cluster c: read secret: open DIR/none: no such file or directory"},
		"no recipients": {create + ", recipients-file: none", files, "", "repository a: save: recipients: open DIR/none: no such file or directory"},
		"no key": {"url: keyless, create: true, recipients: age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg, identity-file: none", files,
			"verify: {level: structure}", "repository a: verify: keys: DIR/none: open DIR/none: no such file or directory"},
		"no include":   {create, files + ", include: none", "", "repository a: save: include: stat DIR/none: no such file or directory"},
		"no room":      {create, files, "verify: {level: structure}", "repository a: verify: scratch-dir: stat DIR/none: no such file or directory"},
		"no hook":      {create, files, "hooks: {before: [{command: [./none]}]}", "hook none: start: fork/exec ./none: no such file or directory"},
		"a hook fails": {create, files, "hooks: {after: [{command: [sh, -c, \"echo no; exit 3\"]}]}", "hook sh: exit status 3; it printed \"no\""},
		"a hook hangs": {create, files, "hooks: {before: [{command: [sleep, \"60\"], timeout: 10ms}]}", "hook sleep: timed out after 10ms"},
		"too long":     {create, "endpoints: \"127.0.0.1:1\", dial-timeout: 50s", "timeout: 200ms", "repository a: save: took longer than the 200ms that it may: context deadline exceeded"},
		"no ping":      {create, "data-dir: none", "ping: {start-url-file: none}", "ping of start-url: read secret: open DIR/none: no such file or directory"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			text := "scratch-dir: none\nrepositories: {a: {" + c.repository + "}}\nclusters: {c: {" + c.cluster + "}}\njobs:\n  j:\n    cluster: c\n    repositories: a\n    schedule: on-demand\n    " + c.job + "\n"
			cfg, err := ParseConfig(filepath.Join(dir, "c.yaml"), []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			r := newRun(order{kind: BackupRun, cfg: cfg, job: cfg.Jobs["j"]}, realOutside(), "test", "here", New(cfg, Options{}).log)
			rec := r.runJob(t.Context())
			texts := append(rec.Warnings, rec.Error)
			for i, text := range texts {
				if again := twice(text); len(again) > 0 {
					t.Errorf("%q is there twice: %s", again, text)
				}
				texts[i] = strings.ReplaceAll(text, dir, "DIR")
			}
			if !slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, c.want) }) {
				t.Errorf("got  %q\nwant %q", texts, c.want)
			}
		})
	}
}

// However often a store fails, what is kept of it is short.
func TestLongTexts(t *testing.T) {
	text := shorten(strings.Repeat("ä", maxText))
	if len(text) > maxText+4 || !strings.HasSuffix(text, "ä …") {
		t.Errorf("%d bytes: %q", len(text), text[len(text)-10:])
	}
}

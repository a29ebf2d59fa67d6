package scheduler

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

var update = flag.Bool("update", false, "write the golden files anew")

// secretOfTests stands wherever a file of the tests has a secret.
const secretOfTests = "hunter2"

func TestConfigErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, problem := ParseConfig("lifeboat.yaml", data)
			if problem == nil {
				t.Fatal("no error")
			}
			text := problem.Error() + "\n"
			if strings.Contains(strings.ToLower(text), secretOfTests) {
				t.Errorf("a secret is printed:\n%s", text)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", text)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func parseExample(t *testing.T) *Config {
	t.Helper()
	c, err := ParseConfig("/etc/lifeboat/lifeboat.yaml", ExampleConfig)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// keysOf lists the keys that a type has in the file, with * for names and
// places in lists. Keys of a struct that is used twice are listed once.
func keysOf(t reflect.Type, path string, seen map[reflect.Type]bool) []string {
	if _, ok := leaves[t]; ok {
		return []string{path}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return keysOf(t.Elem(), path, seen)
	case reflect.Map:
		return keysOf(t.Elem(), join(path, "*"), seen)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return keysOf(t.Elem(), path+"[*]", seen)
		}
	case reflect.Struct:
		if t == reflect.TypeFor[Secret]() {
			break
		}
		var all []string
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			if t.Field(i).IsExported() && key != "-" && !seen[t] {
				all = append(all, keysOf(t.Field(i).Type, join(path, key), seen)...)
			}
		}
		seen[t] = true
		return all
	}
	return []string{path}
}

var (
	tableEntry = regexp.MustCompile(`^(repositories|clusters|jobs|notify)\.[^.]+`)
	freeEntry  = regexp.MustCompile(`(labels|headers|environment)\.[^.]+`)
	listEntry  = regexp.MustCompile(`\[[0-9]+\]`)
)

func TestExampleHasEveryKey(t *testing.T) {
	c := parseExample(t)
	there := map[string]bool{}
	for path := range c.places {
		path = tableEntry.ReplaceAllString(path, "$1.*")
		path = freeEntry.ReplaceAllString(path, "$1.*")
		path = listEntry.ReplaceAllString(path, "[*]")
		there[path] = true
		there[strings.TrimSuffix(strings.TrimSuffix(path, fileSuffix), envSuffix)] = true
	}
	keys := keysOf(reflect.TypeFor[Config](), "", map[reflect.Type]bool{})
	if len(keys) < 80 {
		t.Fatalf("only %d keys are known: %q", len(keys), keys)
	}
	for _, key := range keys {
		if !there[key] {
			t.Errorf("the example has no %s", key)
		}
	}
}

// Above each key stands what it does, unless the same was explained before or
// is plain.
func TestExampleExplainsEveryKey(t *testing.T) {
	explained := map[string]bool{}
	for _, plain := range []string{"disk", "plain", "files", "chat", "pager", "log", "s3", "cert", "key", "timeout", "site"} {
		explained[plain] = true
	}
	key := regexp.MustCompile(`^ *(?:- )?([a-z0-9-]+):( |$)`)
	lines := strings.Split(string(ExampleConfig), "\n")
	for i, line := range lines {
		m := key.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if i > 0 && strings.HasPrefix(strings.TrimSpace(lines[i-1]), "#") {
			explained[m[1]] = true
		}
		if !explained[m[1]] {
			t.Errorf("line %d: %s is not explained", i+1, m[1])
		}
	}
}

func TestExampleSaysTheDefaults(t *testing.T) {
	c := parseExample(t)
	var d Config
	d.setDefaults()
	var cluster ClusterConfig
	cluster.setDefaults()
	var job JobConfig
	job.setDefaults()
	production, nightly := c.Clusters["production"], c.Jobs["nightly"]
	for name, same := range map[string]bool{
		"state-dir":       c.StateDir == d.StateDir,
		"stop-timeout":    c.StopTimeout == d.StopTimeout,
		"listen":          c.HTTP.Listen == d.HTTP.Listen,
		"dial-timeout":    production.DialTimeout == cluster.DialTimeout,
		"command-timeout": production.CommandTimeout == cluster.CommandTimeout,
		"stall-timeout":   production.StallTimeout == cluster.StallTimeout,
		"catch-up":        nightly.CatchUp == job.CatchUp,
		"retries":         nightly.Retries == job.Retries,
		"prefix":          nightly.Lead.Prefix == job.Lead.Prefix,
		"ttl":             nightly.Lead.TTL == job.Lead.TTL,
	} {
		if !same {
			t.Errorf("%s of the example is not the default", name)
		}
	}
}

func TestExampleIsUnderstood(t *testing.T) {
	c := parseExample(t)
	j := c.Jobs["nightly"]
	berlin := zone(t, "Europe/Berlin")
	if j.Name != "nightly" || j.Kind != repository.Live || j.Schedule.Zone().String() != berlin.String() {
		t.Errorf("job %+v", j)
	}
	slot := j.Schedule.Next(time.Date(2026, 3, 28, 12, 0, 0, 0, berlin))
	if want := instant(t, "2026-03-29T03:00:00+02:00"); !slot.Equal(want) {
		t.Errorf("slot %v, want %v", slot, want)
	}
	if late := j.Schedule.Start(slot).Sub(slot); late <= 0 || late >= 10*time.Minute {
		t.Errorf("jitter %v", late)
	}
	want := repository.Policy{Daily: 14, Monthly: repository.Unlimited, Location: berlin}
	if got := c.Retention(j, "bucket").Policy(berlin); got != want {
		t.Errorf("retention %v, want %v", got, want)
	}
	if got := c.Repositories["bucket"].Retention.LockFor; got.String() != "14d" {
		t.Errorf("locks are extended to %v", got)
	}
	if got := c.Jobs["files"]; got.Kind != repository.Files || got.Schedule != nil || got.Timezone != time.UTC {
		t.Errorf("job files: %+v", got)
	}
	if c.Retention(c.Jobs["files"], "plain") != nil {
		t.Error("nothing says what plain keeps")
	}
	if r := c.Repositories["bucket"]; !r.Encrypted() || !r.Readable() {
		t.Errorf("bucket: encrypted %v, readable %v", r.Encrypted(), r.Readable())
	}
	if token := j.Hooks.Before[0].Environment["API_TOKEN"]; token.File != "/etc/lifeboat/api-token" {
		t.Errorf("token %+v", token)
	}
	if c.Log.Level != slog.LevelInfo || c.Log.Format != JSON || c.HTTP.Token.File != "/etc/lifeboat/http-token" {
		t.Errorf("log %+v, http %+v", c.Log, c.HTTP)
	}
}

func TestRelativePaths(t *testing.T) {
	c, err := ParseConfig("/srv/backup/starter.yaml", StarterConfig)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := c.Repositories["backups"].Location()
	if err != nil || c.StateDir != "/srv/backup/state" || repo.Dir != "/srv/backup/backups" {
		t.Errorf("state in %s, repository in %s (%v)", c.StateDir, repo, err)
	}
	if warnings := c.Warnings(); len(warnings) > 0 {
		t.Errorf("warnings %v", warnings)
	}
}

func TestLocation(t *testing.T) {
	example := parseExample(t)
	beside := &RepositoryConfig{URL: "s3://b/p?region=eu", LimitUpload: 5}
	for want, r := range map[string]*RepositoryConfig{
		"file:///backup/etcd?limit-download=100MiB&limit-upload=50MiB": example.Repositories["disk"],
		"/mnt/archive": example.Repositories["plain"],
		"s3://etcd-backups/production?ca-file=%2Fetc%2Flifeboat%2Fs3-ca.pem&endpoint=https%3A%2F%2Fs3.example.com%3A9000&kms-key=alias%2Fbackups&lock-days=14&object-lock=governance&path-style=true&region=eu-central-1&sse=aws%3Akms&storage-class=STANDARD_IA": example.Repositories["bucket"],
		"s3://b/p?limit-upload=5&region=eu": beside,
	} {
		if got, err := r.Location(); err != nil || got.String() != want {
			t.Errorf("location %s (%v), want %s", got, err, want)
		}
	}
}

const small = `
repositories: {disk: {url: /backup}}
clusters: {main: {endpoints: "10.0.0.1:2379"}}
jobs:
  nightly: {cluster: main, repositories: disk, schedule: "@daily", jitter: 1h, retention: {last: 1}}
`

func TestAnchors(t *testing.T) {
	c, err := ParseConfig("x.yaml", []byte(`
repositories: {disk: {url: /backup}}
clusters:
  a: &cluster
    endpoints: [10.0.0.1:2379]
    tls: &tls {cacert: /ca}
  b:
    <<: *cluster
    endpoints: [10.0.0.2:2379]
jobs:
  a: &job {cluster: a, repositories: &repos [disk], schedule: "@daily", timeout: 1h}
  b:
    timeout: 2h
    cluster: b
    <<: [*job]
`))
	if err != nil {
		t.Fatal(err)
	}
	b := c.Clusters["b"]
	if b.Endpoints[0] != "10.0.0.2:2379" || b.TLS.CACert != "/ca" || c.Jobs["b"].Timeout != 2*time.Hour || c.Jobs["b"].Cluster != "b" {
		t.Errorf("cluster %+v, job %+v", b, c.Jobs["b"])
	}
}

// Two sites with the same job do not start it in the same second.
func TestJitterDiffersBetweenSites(t *testing.T) {
	start := func(config string) time.Time {
		c, err := ParseConfig("x.yaml", []byte(config))
		if err != nil {
			t.Fatal(err)
		}
		return c.Jobs["nightly"].Schedule.Start(instant(t, "2026-05-01T00:00:00Z"))
	}
	one, again, other := start(small), start(small), start(strings.ReplaceAll(small, "10.0.0.1", "10.0.1.1"))
	if !one.Equal(again) || one.Equal(other) {
		t.Errorf("starts at %v, %v and %v", one, again, other)
	}
}

func TestCheckOfAConfigThatAProgramMade(t *testing.T) {
	c, err := ParseConfig("x.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	c.Jobs["nightly"].Repositories = []string{"disc"}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "did you mean disk?") {
		t.Errorf("error %v", err)
	}
	if err := (&Config{}).Check(); err == nil || !strings.Contains(err.Error(), "jobs: there are none") {
		t.Errorf("error of an empty one: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	file("open", "x", 0o644)
	file("closed", "x", 0o600)
	file("lifeboat.yaml", `
repositories:
  disk: {url: /backup, passphrase-file: open}
  spare: {url: /spare, identity-file: [closed, open]}
  vault: {url: /vault}
clusters:
  main: {endpoints: "https://10.0.0.1:2379", user: root, password-file: open, tls: {cert: open, key: open}}
  other: {data-dir: /var/lib/etcd}
jobs:
  nightly:
    cluster: main
    repositories: disk
    schedule: "@daily"
    verify: {level: none}
    notify: [chat]
    ping: {fail-url-file: open, start-url-file: closed}
    hooks:
      before: [{command: [x], environment: {A_TOKEN: {file: open}, B_TOKEN: {file: closed}}}]
      after: [{command: [x], environment: {A_TOKEN: {file: open}, MODE: open}}]
  often: {cluster: main, repositories: vault, schedule: "@every 10s", retention: {last: 9}, notify: [chat], lead: {elect: true}}
  alone: {cluster: main, repositories: vault, schedule: "@every 10s", retention: {last: 9}, notify: [chat]}
  pairs: {cluster: main, repositories: vault, schedule: "0,1 5 * * *", retention: {last: 9}, notify: [chat], lead: {elect: true, ttl: 1m}}
  enough: {cluster: main, repositories: vault, schedule: "0,59 5 * * *", retention: {last: 9}, notify: [chat], lead: {elect: true, ttl: 58m}}
  asked: {cluster: main, repositories: vault, schedule: on-demand, retention: {last: 9}, notify: [chat], lead: {elect: true, ttl: 1h}}
notify:
  chat: {webhook: {url-file: closed, headers: {Authorization: {file: open}}}}
  mail: {command: {run: [mail], environment: {A_TOKEN: {file: open}}}}
http: {listen: ":8378", token-file: open}
`, 0o666)
	c, err := LoadConfig(filepath.Join(dir, "lifeboat.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, w := range c.Warnings() {
		got.WriteString(strings.ReplaceAll(w.String(), dir, "DIR") + "\n")
	}
	golden(t, "testdata/warnings.golden", got.String())
}

func TestLoadConfigOfNothing(t *testing.T) {
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "lifeboat.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestLargeConfigs(t *testing.T) {
	var text strings.Builder
	text.WriteString("repositories: {disk: {url: /backup}}\nclusters:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  c%d:\n    endpoints:\n      - 10.0.0.1:%d\n", i, i+1)
	}
	text.WriteString("jobs:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "  j%d:\n    cluster: c%d\n    repositories: disk\n    schedule: \"@daily\"\n    retention:\n      daily: 7\n", i, i)
	}
	begun := time.Now()
	c, err := ParseConfig("x.yaml", []byte(text.String()))
	if err != nil || len(c.Jobs) != 1000 {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := ParseConfig("x.yaml", make([]byte, maxFile+1)); err == nil || !strings.Contains(err.Error(), "longer than 256 KiB") {
		t.Errorf("error %v", err)
	}
	if _, err := ParseConfig("x.yaml", []byte("a: "+strings.Repeat("[", 10_000))); err == nil || !strings.Contains(err.Error(), "brackets are open") {
		t.Errorf("error %v", err)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1.5h": 90 * time.Minute, "7d": 7 * day, "2w": 14 * day, "1w2d12h": 9*day + 12*time.Hour,
		"0s": 0, "100ms": 100 * time.Millisecond, "0d": 0,
		"": -1, "7": -1, "0": -1, "-1s": -1, "1d-1h": -1, "1y": -1, "d": -1, "1d2": -1, "999999w": -1, "soon": -1, "100000d2562047h": -1,
	} {
		got, err := parseDuration(text)
		if want < 0 != (err != nil) || err == nil && got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
	}
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("LIFEBOAT_TEST_SECRET", secretOfTests)
	for name, c := range map[string]struct {
		secret    Secret
		want, err string
	}{
		"none":              {Secret{}, "", ""},
		"a file":            {Secret{File: write("file", "hunter2")}, "hunter2", ""},
		"a file of a line":  {Secret{File: write("line", "hunter2 \r\n\n")}, "hunter2 ", ""},
		"inline":            {Secret{Inline: "hunter2"}, "hunter2", ""},
		"a variable":        {Secret{Env: "LIFEBOAT_TEST_SECRET"}, "hunter2", ""},
		"no variable":       {Secret{Env: "LIFEBOAT_TEST_NOTHING"}, "", "environment variable LIFEBOAT_TEST_NOTHING holds no secret"},
		"an empty file":     {Secret{File: write("empty", "\n")}, "", "empty holds no secret"},
		"no file":           {Secret{File: filepath.Join(dir, "absent")}, "", "absent"},
		"a file of secrets": {Secret{File: write("long", strings.Repeat("x", maxSecret+1))}, "", "longer than 64 KiB"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.secret.Read()
			if c.err == "" && (err != nil || got.Reveal() != c.want) {
				t.Errorf("read %q (%v), want %q", got.Reveal(), err, c.want)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := ParseConfig("x.yaml", []byte(small+`
notify:
  chat: {webhook: {url: "https://hooks.example.com/hunter2", headers: {X-Team: hunter2}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	chat := c.Notify["chat"].Webhook
	if url, err := chat.URL.Read(); err != nil || url.Reveal() != "https://hooks.example.com/hunter2" {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("config", "url", chat.URL, "all", chat)
	encoded, err := json.Marshal(c.Notify)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(chat.URL), fmt.Sprintf("%v %+v %#v", *chat, *chat, *chat), log.String(), string(encoded), chat.URL.String(),
	} {
		if strings.Contains(text, secretOfTests) {
			t.Errorf("printed: %s", text)
		}
	}
}

// FuzzConfig wants of any text a configuration that checks, or problems in the
// order of the file.
func FuzzConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/config/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(ExampleConfig)
	f.Add(StarterConfig)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("/x.yaml", data)
		if err == nil {
			if err := c.Check(); err != nil {
				t.Fatalf("parsed, but: %v", err)
			}
			return
		}
		var e *ConfigError
		if !errors.As(err, &e) || len(e.Problems) == 0 {
			t.Fatalf("error %v", err)
		}
		for i, p := range e.Problems {
			if i > 0 && p.Line < e.Problems[i-1].Line {
				t.Fatalf("out of order: %v", err)
			}
			if p.Line > strings.Count(string(data), "\n")+1 {
				t.Fatalf("line %d of %q", p.Line, data)
			}
		}
		_ = err.Error()
	})
}

package scheduler

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/repository"
)

// Check says what of the configuration contradicts itself or leads nowhere.
// ParseConfig has done so already; it is for configurations that were changed
// or made by a program.
func (c *Config) Check() error {
	src := newSource(c.file, nil)
	c.check(src)
	return src.err()
}

// headerName is a token as HTTP has it.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// checker notes problems at the places that the configuration came from.
type checker struct {
	*Config
	*source
	decoded []Problem // what was wrong before the check
}

// add notes a problem at a value, or where its parent stands if there is none.
// It is silent where something was found wrong before, which may have led to
// what is wrong now.
func (c checker) add(path, format string, args ...any) {
	if c.told(path) {
		return
	}
	at, ok := c.Config.places[path]
	for p := path; !ok && p != ""; at, ok = c.Config.places[p] {
		p = parent(p)
	}
	c.source.add(at, path, format, args...)
}

// told tells whether a problem was found before at a path, above it or below it.
func (c checker) told(path string) bool {
	return slices.ContainsFunc(c.decoded, func(p Problem) bool {
		return p.Path == path || p.Path != "" && (within(p.Path, path) || within(path, p.Path))
	})
}

// parent cuts off the last part of a path.
func parent(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}

func (c *Config) check(src *source) {
	ch := checker{c, src, src.problems}
	ch.general()
	for name, r := range sorted(c.Repositories) {
		ch.repository(join("repositories", name), name, r)
	}
	ch.sameRepositories()
	for name, cluster := range sorted(c.Clusters) {
		ch.cluster(join("clusters", name), name, cluster)
	}
	for name, j := range sorted(c.Jobs) {
		ch.job(join("jobs", name), name, j)
	}
	ch.retentions()
	for name, n := range sorted(c.Notify) {
		ch.notify(join("notify", name), name, n)
	}
}

// sorted goes through what was read of a table, by name.
func sorted[T any](table map[string]*T) func(func(string, *T) bool) {
	return func(yield func(string, *T) bool) {
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if table[name] != nil && !yield(name, table[name]) {
				return
			}
		}
	}
}

func (c checker) general() {
	c.positive("stop-timeout", c.StopTimeout)
	for section, size := range map[string]int{
		"repositories": len(c.Repositories), "clusters": len(c.Clusters), "jobs": len(c.Jobs),
	} {
		if _, there := c.Config.places[section]; size == 0 && (there || c.Config.places == nil) {
			c.add(section, "there are none")
		}
	}
	c.pair("http.tls", "cert", c.HTTP.TLS.Cert, "key", c.HTTP.TLS.Key)
	if c.HTTP.Listen == Off && (!c.HTTP.Token.IsZero() || c.HTTP.TLS != ServerTLS{}) {
		c.add("http.listen", "is off, so that tls and token are for nothing")
	}
}

func (c checker) positive(path string, d time.Duration) {
	if d <= 0 {
		c.add(path, "want more than 0s")
	}
}

// pair notes if only one of two is there that go together.
func (c checker) pair(path, a, valueA, b, valueB string) {
	switch {
	case valueA != "" && valueB == "":
		c.add(join(path, a), "needs %s too", b)
	case valueA == "" && valueB != "":
		c.add(join(path, b), "needs %s too", a)
	}
}

// name checks what is also a file's name, and a part of URLs.
func (c checker) name(path, what, name string) {
	if err := repository.CheckCluster(name); err != nil {
		c.add(path, "name of a %s: want letters, digits and ._-+=@, up to 100, and no dot first", what)
	}
}

func (c checker) repository(path, name string, r *RepositoryConfig) {
	c.name(path, "repository", name)
	switch {
	case r.URL == "" && r.S3 == nil:
		c.add(path, "want url or s3")
	case r.URL != "" && r.S3 != nil:
		c.add(join(path, "s3"), "either this or url")
	default:
		c.location(path, r)
	}
	c.encryption(path, r)
	c.retention(join(path, "retention"), r.Retention, name)
}

func (c checker) encryption(path string, r *RepositoryConfig) {
	keys := len(r.Recipients) + len(r.RecipientsFile)
	for i, text := range r.Recipients {
		at := fmt.Sprintf("%s.recipients[%d]", path, i)
		if _, single := c.Config.places[at]; !single {
			at = join(path, "recipients")
		}
		if strings.Contains(text, "SECRET") || strings.Contains(text, "PRIVATE") {
			c.hideValue(at)
			c.add(at, "this is a secret key: here stand public ones, which begin with age1 or ssh-; it goes into a file, named by identity-file")
		} else if _, err := repository.ReadRecipients(repository.RecipientOptions{Keys: []string{text}}); err != nil {
			c.add(at, "%v", err)
		}
	}
	switch {
	case keys > 0 && !r.Passphrase.IsZero():
		c.add(path, "either recipients or a passphrase")
	case r.Plaintext && r.Encrypted():
		c.add(join(path, "plaintext"), "contradicts the recipients or passphrase")
	}
}

func (c checker) cluster(path, name string, cl *ClusterConfig) {
	c.name(path, "cluster", name)
	c.positive(join(path, "dial-timeout"), cl.DialTimeout)
	c.positive(join(path, "command-timeout"), cl.CommandTimeout)
	c.positive(join(path, "stall-timeout"), cl.StallTimeout)
	if len(cl.Endpoints) == 0 && cl.DataDir == "" {
		c.add(path, "want endpoints, data-dir or both")
	}
	if cl.WALDir != "" && cl.DataDir == "" {
		c.add(join(path, "wal-dir"), "needs data-dir too")
	}
	c.pair(join(path, "tls"), "cert", cl.TLS.Cert, "key", cl.TLS.Key)
	switch {
	case cl.User == "" && !cl.Password.IsZero():
		c.add(path, "a password needs user too")
	case cl.User != "" && cl.Password.IsZero():
		c.add(join(path, "user"), "needs password-file or password-env too")
	}
	for i, e := range cl.Endpoints {
		at := fmt.Sprintf("%s.endpoints[%d]", path, i)
		if _, single := c.Config.places[at]; !single {
			at = join(path, "endpoints")
		}
		c.endpoint(at, e, cl.TLS)
	}
	if len(cl.Endpoints) == 0 && (!cl.TLS.IsZero() || cl.User != "") {
		c.add(path, "tls and user are for nothing without endpoints")
	}
}

func (c checker) endpoint(path, text string, tls ClientTLS) {
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"):
		c.hideValue(path)
		c.add(path, "user and password do not stand in the URL, but under user and password-file")
	case err != nil || u.Host == "" || u.Port() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "":
		c.add(path, "want host:port or a URL such as https://10.0.0.1:2379")
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		c.add(path, "scheme %q: want http or https", u.Scheme)
	case u.Scheme == "http" && !tls.IsZero():
		c.add(path, "http is without TLS: write https, or remove tls")
	}
}

// hideValue keeps a value out of the excerpts.
func (c checker) hideValue(path string) { c.hide(c.Config.places[path], 1) }

func (c checker) job(path, name string, j *JobConfig) {
	c.name(path, "job", name)
	c.positive(join(path, "timeout"), j.Timeout)
	c.labels(join(path, "labels"), j.Labels)
	c.retention(join(path, "retention"), j.Retention, j.Repositories...)
	c.references(path, "repositories", "repository", j.Repositories, slices.Sorted(maps.Keys(c.Repositories)))
	c.references(path, "notify", "notification", j.Notify, slices.Sorted(maps.Keys(c.Notify)))
	if _, there := c.Config.places[join(path, "repositories")]; there && len(j.Repositories) == 0 {
		c.add(join(path, "repositories"), "there are none")
	}
	c.jobCluster(path, j)
	c.verification(path, j)
	for _, when := range []struct {
		name  string
		hooks []HookConfig
	}{{"before", j.Hooks.Before}, {"after", j.Hooks.After}} {
		for i, h := range when.hooks {
			c.command(fmt.Sprintf("%s.hooks.%s[%d]", path, when.name, i), "command", h.Command, h.Timeout, h.Environment)
		}
	}
	c.ping(join(path, "ping"), j)
}

// references checks names of other parts.
func (c checker) references(path, key, what string, names, known []string) {
	for i, name := range names {
		at := fmt.Sprintf("%s.%s[%d]", path, key, i)
		if _, single := c.Config.places[at]; !single {
			at = join(path, key)
		}
		switch {
		case !slices.Contains(known, name):
			c.add(at, "there is no %s %q%s", what, name, orThese(name, known))
		case slices.Contains(names[:i], name):
			c.add(at, "%s is there twice", name)
		}
	}
}

// orThese is what to write for a name that isn't there.
func orThese(name string, known []string) string {
	const most = 10
	if near := didYouMean(name, known); near != "" || len(known) == 0 || len(known) > most {
		return near
	}
	return "; there are: " + strings.Join(known, ", ")
}

func (c checker) jobCluster(path string, j *JobConfig) {
	cl := c.Clusters[j.Cluster]
	if j.Cluster == "" {
		return // told already
	}
	if cl == nil {
		if _, there := c.Config.places[join("clusters", j.Cluster)]; !there {
			known := slices.Sorted(maps.Keys(c.Clusters))
			c.add(join(path, "cluster"), "there is no cluster %q%s", j.Cluster, orThese(j.Cluster, known))
		}
		return
	}
	switch {
	case j.Kind == repository.Live && len(cl.Endpoints) == 0:
		c.add(join(path, "kind"), "live needs endpoints of cluster %s", j.Cluster)
	case j.Kind == repository.Files && cl.DataDir == "":
		c.add(join(path, "kind"), "files needs data-dir of cluster %s", j.Cluster)
	}
	if j.Lead.Elect && len(cl.Endpoints) == 0 {
		c.add(join(path, "lead.elect"), "needs endpoints of cluster %s, which holds the election", j.Cluster)
	}
	if j.Lead.Elect && j.Lead.TTL < time.Second {
		c.add(join(path, "lead.ttl"), "want 1s or more")
	}
}

func (c checker) verification(path string, j *JobConfig) {
	c.needsKey(join(path, "verify.level"), j.Verify.Level, j)
	d := j.Drill
	if d == nil {
		return
	}
	c.positive(join(path, "drill.timeout"), d.Timeout)
	c.needsKey(join(path, "drill.level"), d.Level, j)
	switch {
	case d.Level == LevelNone:
		c.add(join(path, "drill.level"), "none: a drill verifies something")
	case len(d.Pick) == 0:
		c.add(join(path, "drill.pick"), "want newest, random or both")
	case len(slices.Compact(slices.Sorted(slices.Values(d.Pick)))) < len(d.Pick):
		c.add(join(path, "drill.pick"), "the same is there twice")
	}
}

// needsKey notes encrypted repositories that can't be read for verification.
func (c checker) needsKey(path string, level Level, j *JobConfig) {
	if level != LevelStructure && level != LevelBoot {
		return
	}
	for _, name := range j.Repositories {
		if r := c.Repositories[name]; r != nil && !r.Readable() {
			c.add(path, "%s reads the backups, which are encrypted in %s: give that an identity-file, or verify digest only", level, name)
		}
	}
}

func (c checker) labels(path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if _, err := repository.ParseLabels([]string{key + "=" + labels[key]}); err != nil {
			c.add(join(path, key), "%v", err)
		}
	}
}

// retention checks what is kept in some repositories.
func (c checker) retention(path string, r *RetentionConfig, repositories ...string) {
	if r == nil {
		return
	}
	if err := r.Policy(time.UTC).Validate(); err != nil {
		c.add(path, "%v", err)
	}
	for _, name := range repositories {
		if !r.LockFor.IsZero() && c.isFolder(name) {
			c.add(join(path, "lock-for"), "%s is a folder, and only buckets can lock objects: let lock-for stand under the retention of those", name)
		}
	}
}

// retentions notes jobs that would remove each other's backups: retention
// decides over all backups of a cluster in a repository, whoever made them.
func (c checker) retentions() {
	first := map[string]string{} // job by cluster and repository
	for name, j := range sorted(c.Jobs) {
		for _, repo := range j.Repositories {
			key := j.Cluster + "\n" + repo
			other, ok := first[key]
			if !ok {
				first[key] = name
				continue
			}
			a, b := c.Retention(j, repo), c.Retention(c.Jobs[other], repo)
			if !keepAlike(a, b) || a != nil && j.Timezone.String() != c.Jobs[other].Timezone.String() {
				c.add(join("jobs", name), "keeps backups of cluster %s in %s otherwise than job %s: one would remove what the other keeps; give both the same retention and timezone, or put retention under the repository", j.Cluster, repo, other)
			}
		}
	}
}

// keepAlike tells whether both keep the same backups.
func keepAlike(a, b *RetentionConfig) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Policy(nil) == b.Policy(nil)
}

func (c checker) command(path, key string, command []string, timeout time.Duration, env map[string]Secret) {
	c.positive(join(path, "timeout"), timeout)
	if _, there := c.Config.places[join(path, key)]; there && (len(command) == 0 || command[0] == "") {
		c.add(join(path, key), "names no program")
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envName.MatchString(name) {
			c.add(join(join(path, "environment"), name), "want the name of an environment variable")
		}
	}
}

func (c checker) ping(path string, j *JobConfig) {
	p := j.Ping
	if p == nil {
		return
	}
	c.positive(join(path, "timeout"), p.Timeout)
	if p.URL.IsZero() && p.StartURL.IsZero() && p.FailURL.IsZero() {
		c.add(path, "want url, start-url or fail-url")
	}
	if !p.URL.IsZero() && j.Verify.Level == LevelNone {
		c.add(path, "url is called once a backup is verified, but verify.level is none")
	}
	c.secretURL(join(path, "url"), p.URL)
	c.secretURL(join(path, "start-url"), p.StartURL)
	c.secretURL(join(path, "fail-url"), p.FailURL)
}

// secretURL checks a URL that is not to be printed.
func (c checker) secretURL(path string, s Secret) {
	text := s.Inline.Reveal()
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		c.add(path, "want a URL that begins with http:// or https://")
	}
}

func (c checker) notify(path, name string, n *NotifyConfig) {
	c.name(path, "notification", name)
	if len(n.On) == 0 {
		c.add(join(path, "on"), "want failure, recovery, success or several of them")
	}
	switch {
	case n.Webhook == nil && n.Command == nil:
		c.add(path, "want webhook or command")
	case n.Webhook != nil && n.Command != nil:
		c.add(join(path, "command"), "either this or webhook")
	}
	if w := n.Webhook; w != nil {
		at := join(path, "webhook")
		c.positive(join(at, "timeout"), w.Timeout)
		c.secretURL(join(at, "url"), w.URL)
		for _, header := range slices.Sorted(maps.Keys(w.Headers)) {
			if !headerName.MatchString(header) {
				c.add(join(join(at, "headers"), header), "want the name of a header")
			}
		}
	}
	if cmd := n.Command; cmd != nil {
		c.command(join(path, "command"), "run", cmd.Run, cmd.Timeout, cmd.Environment)
	}
}

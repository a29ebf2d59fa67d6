package scheduler

import (
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Warnings says what is allowed but likely not meant: files with secrets that
// others may read, backups that nobody prunes or verifies, elections that take
// longer than there is between runs, parts that no job uses. It looks at the permissions of the files that the configuration names.
func (c *Config) Warnings() []Problem {
	src := newSource(c.file, nil)
	w := checker{c, src, nil}
	w.files()
	w.server()
	w.jobs()
	w.unused()
	if src.err() == nil {
		return nil
	}
	return src.err().(*ConfigError).Problems
}

// Bits of a file's permissions.
const (
	writtenByOthers fs.FileMode = 0o022
	readByOthers    fs.FileMode = 0o044
)

func (c checker) files() {
	if info, err := os.Stat(c.file); err == nil && info.Mode().Perm()&writtenByOthers != 0 {
		c.add("", "others may write %s (%v), and with it name commands that run", c.file, info.Mode().Perm())
	}
	for path, name := range c.secretFiles() {
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&readByOthers != 0 {
			c.add(path, "others may read %s (%v): chmod 600 keeps them out", name, info.Mode().Perm())
		}
	}
}

// secretFiles are the files that hold secrets, by path of what names them.
func (c checker) secretFiles() map[string]string {
	files := map[string]string{}
	secret := func(path string, s Secret) {
		if s.File != "" {
			files[path+fileSuffix] = s.File
		}
	}
	environment := func(path string, env map[string]Secret) {
		for variable, s := range env {
			if s.File != "" {
				files[join(join(path, "environment"), variable)] = s.File
			}
		}
	}
	for name, r := range sorted(c.Repositories) {
		at := join("repositories", name)
		secret(join(at, "passphrase"), r.Passphrase)
		for i, f := range r.IdentityFile {
			files[fmt.Sprintf("%s.identity-file[%d]", at, i)] = f
		}
	}
	for name, cl := range sorted(c.Clusters) {
		at := join("clusters", name)
		secret(join(at, "password"), cl.Password)
		if cl.TLS.Key != "" {
			files[join(at, "tls.key")] = cl.TLS.Key
		}
	}
	for name, j := range sorted(c.Jobs) {
		at := join("jobs", name)
		if j.Ping != nil {
			secret(at+".ping.url", j.Ping.URL)
			secret(at+".ping.start-url", j.Ping.StartURL)
			secret(at+".ping.fail-url", j.Ping.FailURL)
		}
		for i, h := range j.Hooks.Before {
			environment(fmt.Sprintf("%s.hooks.before[%d]", at, i), h.Environment)
		}
		for i, h := range j.Hooks.After {
			environment(fmt.Sprintf("%s.hooks.after[%d]", at, i), h.Environment)
		}
	}
	for name, n := range sorted(c.Notify) {
		if at := join("notify", name); n.Webhook != nil {
			secret(join(at, "webhook.url"), n.Webhook.URL)
			for header, s := range n.Webhook.Headers {
				if s.File != "" {
					files[join(join(at, "webhook.headers"), header)] = s.File
				}
			}
		} else if n.Command != nil {
			environment(join(at, "command"), n.Command.Environment)
		}
	}
	secret("http.token", c.HTTP.Token)
	if c.HTTP.TLS.Key != "" {
		files["http.tls.key"] = c.HTTP.TLS.Key
	}
	return files
}

func (c checker) server() {
	open := c.HTTP.Listen != Off && !c.HTTP.Listen.Loopback()
	switch {
	case open && c.HTTP.Token.IsZero():
		c.add("http.listen", "others reach this address, and without token-file or token-env anybody may start jobs and read what they did")
	case open && c.HTTP.TLS.Cert == "":
		c.add("http.listen", "others reach this address, and without tls the token can be read on its way")
	}
}

func (c checker) jobs() {
	for name, j := range sorted(c.Jobs) {
		at := join("jobs", name)
		if j.Verify.Level == LevelNone && j.Drill == nil {
			c.add(join(at, "verify.level"), "no backup of this job is ever verified")
		}
		if j.Lead.Elect {
			c.leadTTL(join(at, "lead.ttl"), j.Lead.TTL, j.Schedule)
		}
		for _, repo := range j.Repositories {
			if c.Retention(j, repo) == nil {
				c.add(at, "has no retention in %s: nothing is ever removed there", repo)
			}
		}
	}
}

// leadTTL notes an election that may take longer than there is between slots.
func (c checker) leadTTL(path string, ttl time.Duration, s *Schedule) {
	if s == nil {
		return
	}
	if gap := s.shortest(); gap > 0 && gap <= ttl {
		c.add(path, "a dead leader keeps its place for %v, but slots may come %v apart: of those that pass meanwhile only the newest is made up for", ttl, gap)
	}
}

// unused notes parts that no job uses: one of the names may be mistyped.
func (c checker) unused() {
	used := map[string]bool{}
	for _, j := range sorted(c.Jobs) {
		used[join("clusters", j.Cluster)] = true
		for _, name := range j.Repositories {
			used[join("repositories", name)] = true
		}
		for _, name := range j.Notify {
			used[join("notify", name)] = true
		}
		for name := range c.Notify {
			used[join("notify", name)] = used[join("notify", name)] || j.Notify == nil
		}
	}
	for name := range sorted(c.Repositories) {
		c.unusedPart(used, join("repositories", name))
	}
	for name := range sorted(c.Clusters) {
		c.unusedPart(used, join("clusters", name))
	}
	for name := range sorted(c.Notify) {
		c.unusedPart(used, join("notify", name))
	}
}

func (c checker) unusedPart(used map[string]bool, path string) {
	if !used[path] {
		c.add(path, "no job uses this")
	}
}

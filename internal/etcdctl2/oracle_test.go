//go:build e2e

package etcdctl2_test

import (
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLikeEtcdctl types each line for etcdctl and for lifeboat v2, either
// at an etcd of its own that has seen the same, and wants the same output,
// messages and exit code.
func TestLikeEtcdctl(t *testing.T) {
	for name, lines := range map[string]string{
		"keys":      keyLines,
		"formats":   formatLines,
		"mistakes":  mistakeLines,
		"flags":     flagLines,
		"endpoints": endpointLines,
		"members":   memberLines,
		"auth":      authLines,
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			for line := range strings.Lines(lines) {
				if line = strings.TrimSpace(line); line != "" {
					p.same(t, line)
				}
			}
		})
	}
}

// A line is split at spaces, but for those in '…', where \n is a line's end.
// One that starts with < has the next word on its stdin.

const keyLines = `
mkdir /a/b
set /a/b/os linux
get /a/b/os
set /a/b/car volvo
ls --sort
ls / --recursive --sort
ls --recursive --sort -p /
ls /a/b/os
ls -p /a/b/os
ls /a/b --sort
ls -r --sort -q
get --quorum /a/b/os
get -q /a/b/os
get --sort /a/b/os
rm /a/b/os
get /a/b/os
rmdir /a/b
rm /a
rm --dir /a
update /a/b/car saab
update /a/b/none x
get /a
mk /new v
mk /new v
mk --in-order /queue first
mk /queue second --in-order
mk --in-order --ttl 100 /queue third
mk --in-order /new x
mk --ttl 100 /timed v
ls --recursive --sort /queue
set /swap one
set /swap two --swap-with-value one
set /swap three --swap-with-value one
set /swap three --swap-with-index 3
set --swap-with-value x /absent v
set /swap three --swap-with-index -1
set /swap four --swap-with-index 0x1
set /timed v --ttl 100
set /timed v --ttl 0
set /timed v --ttl -5
update --ttl 100 /timed w
mkdir /dir
mkdir /dir
mkdir /dir/deeper/still --ttl 100
setdir /dir --ttl 100
setdir /dir2 --ttl 100
updatedir /dir2
updatedir /dir --ttl 200
updatedir /none
rmdir /dir2
rmdir /new
rm /swap --with-value no
rm /swap --with-value two
rm /timed --with-index 1
rm /timed
rm /timed
rm -r /dir
rm /a --recursive
rm /
rm -r /
rm /none
rm --dir --recursive /none
set / v
set /queue v
set '' v
get ''
get /
set /none/ v
set /slash/ v
set 'two words' 'v w'
get '/two words'
set '/odd?x=1&y#z%2f' v
get '/odd?x=1&y#z%2f'
set /ünï 'wörld\nsecond line'
get /ünï
set /empty ''
get /empty
set /_hidden/key v
ls --sort
ls --sort /_hidden
get /_hidden/key
set /a/./b/../c v
get //a///c
<'from stdin\n' set /in
<'from stdin' update /in
<'from stdin' mk /in2
<'ignored' set /in arg
get /in
get /in /queue extra
watch /a/c --after-index 1
watch --recursive --after-index 3 /
watch -r --after-index 20 /
`

const formatLines = `
-o json mkdir /a/b
-o extended mkdir /a/c
-o json set /a/b/os linux
-o extended set /a/b/os bsd
-o simple set /a/b/os plan9
--output json get /a/b/os
--output=extended get /a/b/os
-o json get /none
-o extended get /none
-o json get /a
-o json ls /a/b
-o extended ls /a/b
-o json ls --recursive --sort /
-o extended ls -p --sort /
-o json mk /n '<&> "quoted"\n'
-o extended mk --in-order /q v
-o json mk --in-order /q v
-o json update /n w
-o extended update /n x
-o json set /t v --ttl 100
-o extended set /t v --ttl 100
-o json setdir /d --ttl 100
-o extended updatedir /d --ttl 100
-o json updatedir /d
-o json set /n y --swap-with-value x
-o extended set /n z --swap-with-value y
-o json rm /n --with-value z
-o extended rm /t
-o json rm /a/b/os
-o extended rmdir /a/b
-o json rmdir /a/c
-o json rm -r /a
-o json watch --after-index 5 /a/b/os
-o extended watch --after-index 5 /a/b/os
-o json watch --recursive --after-index 1 /
-o extended watch -r --after-index 3 /
-o json member list
-o json --endpoints http://127.0.0.1:1 get /a
`

const mistakeLines = `
get
set
set /k
mk
mk /k
mkdir
setdir
updatedir
update
update /k
rm
rmdir
watch
exec-watch
exec-watch /k
member list x
member add
member add name
member add name not-a-url
member remove
member remove 123
member update
member update 123
member update 123 not-a-url
member update xyz http://127.0.0.1:1
user add
user get
user list x
user remove
user grant
user grant x
user grant --roles r
user revoke x
user passwd
role add
role get
role list x
role remove
role grant
role grant r
role grant r --path x --read
role grant r --path /x
role grant r --path /x --read --write
role revoke --path /x --read
auth enable x
auth disable x
nosuch
member nosuch
user nosuch x
`

const flagLines = `
-debug set /k v
--debug mkdir /d
--debug mk --in-order /d v
--debug get /k
--debug ls /d --sort
--debug rm /k
--debug rmdir /none
--debug --no-sync ls /
-no-sync ls /
--debug member list
--debug cluster-health
--debug user list
--debug user get nobody
--debug role list
--debug role add r
--debug auth disable
set -ttl 100 /k v
set /k v -ttl=100
set --ttl=100 /k v
set /k v --ttl 100
set -- /k -v
set /k -- -v
set /k -
ls -recursive -sort /
ls -recursive=false -sort=true /
ls --recursive=f --sort
ls --r --p --sort
--timeout 5s --total-timeout 10s get /k
--timeout=0 get /k
--total-timeout 0 get /k
-u root:pw get /k
--username root: get /k
--username=root:pw:with:colons get /k
`

const endpointLines = `
--endpoints SERVER ls
--endpoint SERVER ls
--peers SERVER ls
-C SERVER ls
--endpoints SERVER/ ls
--endpoints SERVER --peers http://127.0.0.1:1 ls
--endpoints http://127.0.0.1:1 ls
--endpoints http://127.0.0.1:1 get /k
--endpoints http://127.0.0.1:1 set /k v
--endpoints http://127.0.0.1:1 watch /k
--endpoints http://127.0.0.1:1 member list
--endpoints http://127.0.0.1:1 user list
--endpoints http://127.0.0.1:1 cluster-health
--endpoints http://127.0.0.1:1 -o json ls
--no-sync --endpoints http://127.0.0.1:1 ls
--no-sync --endpoints http://127.0.0.1:1 set /k v
--no-sync --endpoints http://127.0.0.1:1 rm /k
--no-sync --endpoints http://127.0.0.1:1 mk /k v
--no-sync --endpoints http://127.0.0.1:1 watch /k
--no-sync --endpoints http://127.0.0.1:1 member list
--no-sync --endpoints http://127.0.0.1:1 member add x http://127.0.0.1:1
--no-sync --endpoints http://127.0.0.1:1 member remove x
--no-sync --endpoints http://127.0.0.1:1 member update x http://127.0.0.1:1
--no-sync --endpoints http://127.0.0.1:1 user list
--no-sync --endpoints http://127.0.0.1:1 role list
--no-sync --endpoints http://127.0.0.1:1 role add r
--no-sync --endpoints http://127.0.0.1:1 auth enable
--debug --no-sync --endpoints http://127.0.0.1:1 get /k
--endpoints http://%zz ls
--endpoints gopher://127.0.0.1:1 ls
--endpoints http://no-such-host.invalid ls
--ca-file /no/such/file ls
--cert-file /no/such/file ls
--key-file /no/such/file ls
--cert-file /no/such/file --key-file /no/such/file ls
--cert-file /no/such/file cluster-health
`

const memberLines = `
member list
cluster-health
member add second http://127.0.0.1:19
member list
cluster-health
`

const authLines = `
user list
role list
user add root:rootpw
user add alice:alicepw
user get alice
user get nobody
role add reader
role add reader
role get reader
role get nobody
role grant reader --path /svc/* --read
role grant reader --path /svc/* --read
role grant --path /both/* -rw reader
role grant -path /both/* -readwrite reader
role grant --path /svc/* --write nobody
role revoke reader --path /svc/* --write
role revoke reader --path /both/* --rw
role get reader
role list
user grant alice --roles reader
user grant alice --roles reader
user grant alice --roles nobody
user grant --roles one --roles two alice
user grant nobody --roles reader
user get alice
user revoke alice --roles two
user revoke alice --roles two
user list
auth enable
auth enable
user list
-u root:rootpw user list
-u root:wrong user list
-u root:rootpw role list
-u root:rootpw role get guest
-u root:rootpw role revoke guest --path /* --rw
-u root:rootpw role get guest
get /svc/a
ls
-u root:rootpw set /svc/a v
-u alice:alicepw get /svc/a
-u alice:alicepw set /svc/a w
-u alice:wrong get /svc/a
-u alice:alicepw user list
-u alice:alicepw role list
-u alice:alicepw member list
-u alice:alicepw auth disable
-u root:rootpw --debug set /svc/a w
-u root:rootpw --debug user grant alice --roles reader
-u root:rootpw user remove root
-u root:rootpw role remove root
-u root:rootpw role remove reader
-u root:rootpw role remove reader
-u root:rootpw user remove alice
-u root:rootpw user remove alice
-u root:rootpw auth disable
auth disable
`

// TestUnlikeEtcdctl holds the deliberate differences: etcdctl must still do
// otherwise, lifeboat as it says, and docs/v2.md must name each.
func TestUnlikeEtcdctl(t *testing.T) {
	doc := readText(t, filepath.Join("..", "..", "docs", "v2.md"))
	p := newPair(t)
	p.same(t, "set /k v")
	p.same(t, "set /d/e/k v")
	p.same(t, "user add root:pw")
	for _, d := range []struct {
		line string
		want outcome
		doc  string // the difference, as the page has it
	}{
		{"-o yaml set /k w", outcome{1, "", "Unsupported output format: yaml\n"}, "unknown `--output`"},
		{"get /k --debug=false", outcome{0, "v\n", ""}, "Global flags"},
		{"ls -r /d -p", outcome{0, "/d/e/\n/d/e/k\n", ""}, "anywhere"},
		{"ls --nosuch", outcome{1, "", "flag provided but not defined: -nosuch\nSee 'lifeboat v2 ls --help'\n"}, "whole help"},
		{"set /k v --ttl soon", outcome{1, "", "invalid value \"soon\" for flag -ttl: parse error\nSee 'lifeboat v2 set --help'\n"}, "whole help"},
		{"--timeout 3 ls", outcome{1, "", "invalid value \"3\" for flag -timeout: parse error\nSee 'lifeboat v2 ls --help'\n"}, "whole help"},
		{"--endpoints http://127.0.0.1:1 get", outcome{1, "", "Error:  key required\n"}, "before the cluster is asked"},
		{"<pw -u root get /k", outcome{0, "v\n", "Password: \n"}, "prompt"},
		{"member remove m", outcome{1, "", "Found a member named m; if this is correct, please use its ID, eg:\n" +
			"\tlifeboat v2 member remove MEMBER\nCouldn't find a member in the cluster with an ID of m.\n"}, "names `lifeboat v2`"},
		{"user add root:again", outcome{1, "", "User root already exists\n"}, "`user add`"},
		{"<pw user passwd nobody", outcome{1, "", "auth: User nobody does not exist.\n"}, "`user passwd`"},
		{"exec-watch --recursive --after-index 1 /d -- /no/such/program /d", outcome{1, "", "fork/exec /no/such/program: no such file or directory\n"}, "first argument is the key"},
		{"--endpoints HOSTPORT get /k", outcome{0, "v\n", ""}, "`host:port`"},
		{"import --snap ''", outcome{1, "", "no snapshot file provided (use --snap)\n"}, "`import`"},
		{"backup", outcome{3, "", "No help topic for 'backup'\n"}, "`backup`"},
	} {
		t.Run(d.line, func(t *testing.T) {
			etcdctl, lifeboat := p.run(t, d.line)
			if lifeboat != d.want {
				t.Errorf("lifeboat:\n%swant:\n%s", lifeboat, d.want)
			}
			if etcdctl == lifeboat {
				t.Errorf("etcdctl does the same:\n%s", etcdctl)
			}
			if !strings.Contains(doc, d.doc) {
				t.Errorf("docs/v2.md does not have %q", d.doc)
			}
		})
	}
}

// TestWatchLikeEtcdctl has both clients wait, and fires the same at both.
func TestWatchLikeEtcdctl(t *testing.T) {
	p := newPair(t)
	for _, w := range []struct {
		until string // interrupt when this is out; empty: it ends by itself
		args  []string
	}{
		{"", []string{"watch", "/w/1"}},
		{"", []string{"watch", "--recursive", "/w"}},
		{"", []string{"-o", "json", "watch", "-r", "/w"}},
		{"", []string{"-o", "extended", "watch", "/w/2"}},
		{"PrevNode.Value: one", []string{"watch", "--forever", "/w/1"}},
		{"[delete]", []string{"watch", "-f", "-r", "/w"}},
		{`"action":"delete"`, []string{"-o", "json", "watch", "-f", "-r", "/w"}},
		{"delete /w/1", []string{"exec-watch", "--recursive", "/w", "--", "sh", "-c",
			"echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $ETCD_WATCH_MODIFIED_INDEX"}},
	} {
		t.Run(strings.Join(w.args, " "), func(t *testing.T) {
			var shown [2]outcome
			for i, s := range p {
				fire := func() { fireWatch(t, s.server) }
				shown[i] = s.normal(s.client.watch(t, s.server, w.until, fire, w.args...))
				if w.args[0] == "exec-watch" { // whose commands don't wait for each other
					shown[i].stdout = strings.Join(slices.Sorted(strings.Lines(shown[i].stdout)), "")
				}
			}
			if shown[0] != shown[1] {
				t.Errorf("etcdctl:\n%s\nlifeboat:\n%s", shown[0], shown[1])
			}
		})
	}
}

// fireWatch sets two keys, removes the first, and makes a directory, which no
// watch shows.
func fireWatch(t *testing.T, server string) {
	t.Helper()
	for _, r := range []struct{ method, path, body string }{
		{http.MethodPut, "/w/d?dir=true&prevExist=false", ""},
		{http.MethodPut, "/w/1", "value=one"},
		{http.MethodPut, "/w/2", "value=two"},
		{http.MethodDelete, "/w/1", ""},
		{http.MethodDelete, "/w/d?dir=true", ""},
	} {
		req, err := http.NewRequest(r.method, server+"/v2/keys"+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", r.method, r.path, resp.Status)
		}
	}
}

// TestEnvironmentLikeEtcdctl hands both clients their flags as variables.
func TestEnvironmentLikeEtcdctl(t *testing.T) {
	p := newPair(t)
	for _, env := range []string{
		"ETCDCTL_ENDPOINTS=http://127.0.0.1:1",
		"ETCDCTL_CA_FILE=/no/such/file",
		"ETCDCTL_CERT_FILE=/no/such/file",
		"ETCDCTL_KEY_FILE=/no/such/file",
		"ETCDCTL_USERNAME=root:pw",
		"ETCDCTL_DISCOVERY_SRV=no-such-domain.invalid",
	} {
		t.Run(env, func(t *testing.T) {
			var shown [2]outcome
			for i, s := range p {
				s.client.env = append([]string{env}, s.client.env...)
				server := s.server
				if name, value, _ := strings.Cut(env, "="); name == "ETCDCTL_ENDPOINTS" {
					server = value
				}
				shown[i] = s.normal(s.client.run(t, server, "", "get", "/k"))
			}
			if shown[0] != shown[1] {
				t.Errorf("etcdctl:\n%s\nlifeboat:\n%s", shown[0], shown[1])
			}
		})
	}
}

// pair are etcdctl and lifeboat v2, each with its own etcd.
type pair [2]side

type side struct {
	client   v2Client
	server   string
	memberID string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{{client: etcdctlClient(t)}, {client: lifeboatClient(t)}}
	for i := range p {
		p[i].server = startEtcdV2(t)
		var list struct{ Members []struct{ ID string } }
		if err := getJSON(p[i].server+"/v2/members", &list); err != nil {
			t.Fatal(err)
		}
		p[i].memberID = list.Members[0].ID
	}
	return p
}

func (p *pair) same(t *testing.T, line string) {
	t.Helper()
	if etcdctl, lifeboat := p.run(t, line); etcdctl != lifeboat {
		t.Errorf("%s\netcdctl:\n%s\nlifeboat:\n%s", line, etcdctl, lifeboat)
	}
}

func (p *pair) run(t *testing.T, line string) (etcdctl, lifeboat outcome) {
	t.Helper()
	stdin, args := splitLine(line)
	var shown [2]outcome
	for i, s := range p {
		typed := make([]string, len(args))
		for k, arg := range args {
			arg = strings.ReplaceAll(arg, "HOSTPORT", strings.TrimPrefix(s.server, "http://"))
			typed[k] = strings.ReplaceAll(arg, "SERVER", s.server)
		}
		shown[i] = s.normal(s.client.run(t, s.server, stdin, typed...))
	}
	return shown[0], shown[1]
}

// What no two servers or moments have in common.
var (
	loopbackPort = regexp.MustCompile(`127\.0\.0\.1:\d{2,5}`)
	otherMember  = regexp.MustCompile(`\b[0-9a-f]{13,16}\b`)
	expiration   = regexp.MustCompile(`"expiration":"[^"]*"`)
	timeLeft     = regexp.MustCompile(`("ttl":|TTL: )(9\d|100)\b`)
)

// normal rewrites an outcome so that it may be compared with another side's.
// Members are listed by their ids, which a second one takes from the clock.
func (s side) normal(o outcome) outcome {
	for _, text := range []*string{&o.stdout, &o.stderr} {
		*text = strings.ReplaceAll(*text, s.server, "http://SERVER")
		*text = strings.ReplaceAll(*text, s.memberID, "MEMBER")
		*text = loopbackPort.ReplaceAllString(*text, "127.0.0.1:PORT")
		*text = strings.ReplaceAll(*text, "second=http://127.0.0.1:PORT,m=http://127.0.0.1:PORT", "m=http://127.0.0.1:PORT,second=http://127.0.0.1:PORT")
		*text = otherMember.ReplaceAllString(*text, "OTHER")
		*text = expiration.ReplaceAllString(*text, `"expiration":"TIME"`)
		*text = timeLeft.ReplaceAllString(*text, "${1}100")
	}
	if strings.Contains(o.stdout, "MEMBER") {
		o.stdout = strings.Join(slices.Sorted(strings.Lines(o.stdout)), "")
	}
	return o
}

// splitLine splits a line of the tables into words.
func splitLine(line string) (stdin string, args []string) {
	redirected := strings.HasPrefix(line, "<")
	var word strings.Builder
	quoted, started := false, false
	for _, r := range strings.TrimPrefix(line, "<") + " " {
		switch {
		case r == '\'':
			quoted, started = !quoted, true
		case r == ' ' && !quoted && started:
			args = append(args, strings.ReplaceAll(word.String(), `\n`, "\n"))
			word.Reset()
			started = false
		case r != ' ' || quoted:
			word.WriteRune(r)
			started = true
		}
	}
	if redirected {
		return args[0], args[1:]
	}
	return "", args
}

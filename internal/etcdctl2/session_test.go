//go:build e2e

package etcdctl2_test

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sessionServers are the servers that the session is typed against. Each
// start returns the URL of a server that holds no keys.
var sessionServers = []struct {
	name  string
	start func(t *testing.T) string
}{
	{"etcd 3.4", startEtcdV2},
	{"lifeboat", startBuiltIn},
}

// TestSession types an operator's first quarter of an hour: by etcdctl at
// etcd 3.4 for the record, then by each client at each server. All must show
// the same, but for how far the server's index was when they began.
func TestSession(t *testing.T) {
	etcdctl := etcdctlClient(t)
	record := playSession(t, etcdctl, startEtcdV2(t))
	checkRecord(t, record)
	for _, server := range sessionServers {
		for _, client := range []v2Client{lifeboatClient(t), etcdctl} {
			t.Run(client.name+" at "+server.name, func(t *testing.T) {
				if got := playSession(t, client, server.start(t)); got != record {
					t.Errorf("at first it differs there:\n%s\nall of it:\n%s", firstDifference(record, got), got)
				}
			})
		}
	}
}

func firstDifference(recorded, shown string) string {
	want, got := strings.Split(recorded, "\n"), strings.Split(shown, "\n")
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("line %d: %s, recorded: %s", i+1, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d lines, recorded: %d", len(got), len(want))
}

// checkRecord makes sure that the recorded session shows what it is for.
func checkRecord(t *testing.T, record string) {
	t.Helper()
	for _, must := range []string{
		"$ get /a/b/os\nlinux\n",
		"\n/a/b/\n",
		"$ rm /a/b/os\nPrevNode.Value: linux\n",
		"$ get /a/b/os\n! Error:  100: Key not found (/a/b/os)",
		"$ rmdir /a/b\n! Error:  108: Directory not empty (/a/b)",
		"$ rmdir /a/empty\nexit 0\n",
		"$ update /a/b/car saab\nsaab\n",
		"$ update /a/b/bike x\n! Error:  100: Key not found",
		"$ watch /os\nlinux\n",
		"set /os bsd\n",
		"! cURL Command: curl -X GET http://SERVER/v2/keys/?quorum=false&recursive=false&sorted=false\n",
		`{"action":"set","node":{"key":"/os","value":"hurd"`,
	} {
		if !strings.Contains(record, must) {
			t.Errorf("the recorded session lacks %q:\n%s", must, record)
		}
	}
}

// playSession returns what the session shows: each command behind a "$", its
// messages behind a "!".
func playSession(t *testing.T, client v2Client, server string) string {
	t.Helper()
	s := &shownSession{client: client, server: server, start: etcdIndex(t, server)}
	for line := range strings.Lines(sessionBegin) {
		s.typed(t, strings.Fields(line)...)
	}
	waitFor(t, "/a to expire", func() error { return gone(server, "/a") })
	s.typed(t, "ls", "/")
	s.watched(t, "", "linux", "watch", "/os")
	s.watched(t, "bsd", "bsd", "exec-watch", "--recursive", "/os", "--", "sh", "-c",
		"echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE; echo $ETCD_WATCH_MODIFIED_INDEX >&2")
	s.typed(t, "--debug", "ls", "/")
	s.curled(t, "-X", "PUT", "-d", "value=hurd", server+"/v2/keys/os")
	s.curled(t, server+"/v2/keys/os")
	s.curled(t, "-X", "DELETE", server+"/v2/keys/os")
	s.curled(t, server+"/v2/keys/os")
	return s.text.String()
}

const sessionBegin = `mkdir /a/b
set /a/b/os linux
get /a/b/os
set /a/b/car volvo
get /a/b/car
ls / --recursive
ls / --recursive -p
rm /a/b/os
get /a/b/os
rmdir /a/b
mkdir /a/empty
rmdir /a/empty
update /a/b/car saab
get /a/b/car
update /a/b/bike x
rm /a --recursive
ls /
mkdir /a --ttl 3
ls / -p`

// gone is nil once the server has no such key.
func gone(server, key string) error {
	err := getJSON(server+"/v2/keys"+key, new(struct{}))
	if err == nil {
		return errors.New("still there")
	}
	if !strings.Contains(err.Error(), `"errorCode":100`) {
		return err
	}
	return nil
}

// shownSession collects what a session shows.
type shownSession struct {
	client v2Client
	server string
	start  uint64 // the server's index before the first command
	text   strings.Builder
}

func (s *shownSession) typed(t *testing.T, args ...string) {
	t.Helper()
	s.show(args, s.client.run(t, s.server, "", args...))
}

// watched types a command that watches, and sets /os to value meanwhile.
func (s *shownSession) watched(t *testing.T, until, value string, args ...string) {
	t.Helper()
	set := func() { s.client.run(t, s.server, "", "set", "/os", value) }
	s.show(args, s.client.watch(t, s.server, until, set, args...))
}

func (s *shownSession) curled(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(lookTool(t, "curl"), append([]string{"-s"}, args...)...)
	cmd.Env = plainEnviron()
	s.show(append([]string{"curl"}, args...), finish(t, cmd, cmd.Run))
}

// show writes an outcome down. Unless asked to sort, etcd lists the children
// of a directory in no order, so that listings are sorted here.
func (s *shownSession) show(args []string, o outcome) {
	if slices.Contains(args, "ls") {
		o.stdout = strings.Join(slices.Sorted(strings.Lines(o.stdout)), "")
	}
	text := fmt.Sprintf("$ %s\n%s", strings.Join(args, " "), o.stdout)
	for line := range strings.Lines(o.stderr) {
		text += "! " + line
	}
	text += fmt.Sprintf("exit %d\n", o.code)
	s.text.WriteString(s.normal(text))
}

// anIndex is where a session shows an index of the server.
var anIndex = regexp.MustCompile(`(?m)(edIndex":|\[|"index":|^! )(\d+)(\]$|[,}]|$)`)

func (s *shownSession) normal(text string) string {
	text = strings.ReplaceAll(text, s.server, "http://SERVER")
	return anIndex.ReplaceAllStringFunc(text, func(found string) string {
		parts := anIndex.FindStringSubmatch(found)
		index, err := strconv.ParseUint(parts[2], 10, 64)
		if err != nil {
			return found
		}
		return fmt.Sprintf("%s+%d%s", parts[1], index-s.start, parts[3])
	})
}

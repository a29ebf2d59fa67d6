package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// quickstartCommand runs in a process group of its own, with a temporary folder
// of its own.
func quickstartCommand(t *testing.T, flags ...string) (cmd *exec.Cmd, tmp string) {
	t.Helper()
	tmp = t.TempDir()
	cmd = exec.Command("lifeboat", append([]string{"quickstart"}, flags...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "ETCDCTL_ENDPOINTS=http://127.0.0.1:1", "ETCDCTL_USERNAME=nobody:x", "ETCDCTL_USER=nobody:x", "LIFEBOAT_REPO=/nowhere")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, tmp
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// stories are the two, and what each has to say.
var stories = []struct {
	flags []string
	must  []string
	stop  string // the line at which it is interrupted
}{
	{nil, []string{
		"$ lifeboat serve --data-dir etcd --create --v3 --listen 127.0.0.1:0 &\nServing etcd on http://127.0.0.1:",
		"902 keys are there\n",
		"encrypted for age1",
		"(exit code 3: it no longer boots)",
		"passed, level boot\n",
		"  boot ",
		"all 902 keys are there, with the same values",
	}, "$ lifeboat save"},
	{[]string{"--v2"}, []string{
		"$ lifeboat serve --data-dir etcd --create --listen 127.0.0.1:0 &\nServing etcd on http://127.0.0.1:",
		"$ lifeboat backup --data-dir etcd --backup-dir backup\nBacked up etcd",
		"$ rm -r etcd/member/wal\n",
		"(exit code 1: it no longer boots)",
		"$ lifeboat v2 get /config/motd\nAhoi, schöne neue Welt\n",
		"all 13 keys and dirs are there",
	}, "$ lifeboat v2 set"},
}

func TestQuickstartTellsTheStory(t *testing.T) {
	for _, story := range stories {
		cmd, tmp := quickstartCommand(t, story.flags...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, must := range story.must {
			if !strings.Contains(string(out), must) {
				t.Errorf("lacks %q:\n%s", must, out)
			}
		}
		mustBeEmpty(t, tmp)
	}
}

// Ctrl-C reaches the story and all that it started; nothing may stay.
func TestQuickstartInterrupted(t *testing.T) {
	for _, story := range stories {
		interrupt(t, story.stop, story.flags)
	}
}

func interrupt(t *testing.T, at string, flags []string) {
	t.Helper()
	cmd, tmp := quickstartCommand(t, flags...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if match := servingLine.FindStringSubmatch(lines.Text()); match != nil {
			address = strings.TrimPrefix(match[1], "http://")
		}
		if strings.HasPrefix(lines.Text(), at) {
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("exit code 0")
	}
	mustBeEmpty(t, tmp)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Errorf("something still listens on %s", address)
	}
}

func TestSameTellsDifferences(t *testing.T) {
	node := func(key, value string, modified uint64) keyNode {
		return keyNode{Key: key, Value: value, ModifiedIndex: modified}
	}
	before := keyTree{7, []keyNode{node("/a", "x", 5), node("/b", "y", 7)}}
	for name, c := range map[string]struct {
		after keyTree
		says  string
	}{
		"equal":          {keyTree{7, before.nodes}, ""},
		"index went on":  {keyTree{9, before.nodes}, ""},
		"index fell":     {keyTree{6, before.nodes}, "the v2 index is 6"},
		"missing":        {keyTree{7, before.nodes[:1]}, "/b: is missing"},
		"changed":        {keyTree{7, []keyNode{node("/a", "z", 5), node("/b", "y", 7)}}, "/a: is {"},
		"modified later": {keyTree{7, []keyNode{node("/a", "x", 6), node("/b", "y", 7)}}, "/a: is {"},
		"new":            {keyTree{7, append(before.nodes[:2:2], node("/c", "", 7))}, "/c: was not there"},
	} {
		got := ""
		if err := before.same(c.after); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.says == "") || !strings.HasPrefix(got, c.says) {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
	}
}

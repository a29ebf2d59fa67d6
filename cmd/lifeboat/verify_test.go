package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
	"github.com/etcd-lifeboat/lifeboat/internal/prove"
)

// verifyOutput runs `lifeboat verify` to its end.
func verifyOutput(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := exec.Command("lifeboat", append([]string{"verify"}, args...)...)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestVerifyExitCodes(t *testing.T) {
	good, v3 := fixture.DataDir(t, "2.3.7"), fixture.DataDir(t, "3.5.33")
	bad := fixture.DataDir(t, "2.3.7")
	segment := filepath.Join(bad, "member", "wal", "0000000000000000-0000000000000000.wal")
	if err := os.Truncate(segment, 100_001); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"sound":            {[]string{good}, 0, "passed, level boot"},
		"a log":            {[]string{filepath.Join(good, "member", "wal")}, 0, "a log alone"},
		"damaged":          {[]string{bad}, exitDamage, "segment 0000000000000000-0000000000000000.wal: offset 9"},
		"damaged, digest":  {[]string{bad, "--level", "digest"}, exitDamage, "damaged, level digest"},
		"nothing but v3":   {[]string{v3}, 0, "passed, level boot"},
		"v3, structure":    {[]string{v3, "--level", "structure"}, 0, "v3 backend"},
		"no such level":    {[]string{good, "--level", "x"}, exitUsage, ""},
		"nothing is there": {[]string{t.TempDir()}, exitFailed, ""},
	} {
		if out, code := verifyOutput(t, c.args...); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", name, code, c.code, c.says, out)
		}
	}
}

func TestVerifyJSON(t *testing.T) {
	out, code := verifyOutput(t, "-o", "json", fixture.DataDir(t, "2.3.7-cluster"))
	var report prove.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s", code, err, out)
	}
	if report.Result != prove.Passed || report.Etcd != "2.3" || report.NodeID != "d433dfc4c701a375" || len(report.Checks) < 10 || report.Seconds == 0 {
		t.Errorf("%+v", report)
	}
}

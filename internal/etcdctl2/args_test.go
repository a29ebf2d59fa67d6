package etcdctl2

import (
	"errors"
	"strings"
	"testing"
)

func TestCanonicalArgs(t *testing.T) {
	for _, c := range []struct{ name, typed, want string }{
		{"bare", "ls", "ls --"},
		{"two dashes", "ls --recursive /", "ls --recursive=true -- /"},
		{"one dash", "ls -recursive /", "ls --recursive=true -- /"},
		{"short", "ls -r -p /", "ls --recursive=true --p=true -- /"},
		{"short with two dashes", "ls --r --p", "ls --recursive=true --p=true --"},
		{"bool with value", "ls -r=false", "ls --recursive=false --"},
		{"value apart", "set /a b --ttl 3", "set --ttl=3 -- /a b"},
		{"value attached", "set -ttl=3 /a b", "set --ttl=3 -- /a b"},
		{"empty value", "set --swap-with-value= /a b", "set --swap-with-value= -- /a b"},
		{"value with a dash", "set --ttl -5 /a b", "set --ttl=-5 -- /a b"},
		{"flag between arguments", "set /a --ttl 3 b", "set --ttl=3 -- /a b"},
		{"global before", "--debug -o json ls /", "ls --debug=true --output=json -- /"},
		{"global behind", "ls / -debug --timeout 3s", "ls --debug=true --timeout=3s -- /"},
		{"old names of endpoints", "-C http://a --endpoint http://b --peer http://c ls", "ls --peers=http://a --endpoint=http://b --peer=http://c --"},
		{"dash alone", "set /a -", "set -- /a -"},
		{"dashes end flags", "set -- /a -x", "set -- /a -x"},
		{"dashes end flags late", "set /a -- -x --ttl", "set -- /a -x --ttl"},
		{"second dashes stay", "exec-watch /a -- sh -- -c", "exec-watch -- /a sh -- -c"},
		{"subcommand", "member --no-sync add n http://p", "member add --no-sync=true -- n http://p"},
		{"argument named as a command", "get get", "get -- get"},
		{"argument named as a subcommand", "nosuch member", " -- nosuch member"},
		{"help", "ls --help", "ls --help --"},
		{"help command", "help ls", "ls --help --"},
		{"repeated", "user grant --roles a --roles b,c u", "user grant --roles=a --roles=b,c -- u"},
		{"c of import", "import -c 3 --snap f", "import --c=3 --snap=f --"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := canonicalArgs(newTree(&session{}, "lifeboat v2"), strings.Fields(c.typed))
			if err != nil {
				t.Fatal(err)
			}
			if joined := strings.Join(got, " "); joined != strings.TrimSpace(c.want) {
				t.Errorf("%q becomes %q, want %q", c.typed, joined, c.want)
			}
		})
	}
}

func TestCanonicalArgsRefuses(t *testing.T) {
	for typed, want := range map[string]string{
		"ls --nosuch":      "flag provided but not defined: -nosuch\nSee 'lifeboat v2 ls --help'\n",
		"--ttl 3 ls":       "flag provided but not defined: -ttl\nSee 'lifeboat v2 --help'\n",
		"set /a -x":        "flag provided but not defined: -x\nSee 'lifeboat v2 set --help'\n",
		"set /a b --ttl":   "flag needs an argument: -ttl\nSee 'lifeboat v2 set --help'\n",
		"member add --rec": "flag provided but not defined: -rec\nSee 'lifeboat v2 member add --help'\n",
		"ls ---p":          "flag provided but not defined: --p\nSee 'lifeboat v2 ls --help'\n",
		"ls --=x":          "flag provided but not defined: -\nSee 'lifeboat v2 ls --help'\n",
	} {
		_, err := canonicalArgs(newTree(&session{}, "lifeboat v2"), strings.Fields(typed))
		var failure *Failure
		if !errors.As(err, &failure) || failure.Code != exitBadArgs || failure.Text != want {
			t.Errorf("%q: %#v, want code 1 and %q", typed, err, want)
		}
	}
}

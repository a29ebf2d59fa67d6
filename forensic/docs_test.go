package forensic

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-lifeboat/lifeboat/internal/fixture"
)

// TestDocsNameEveryMember: the pages that promise the JSON know all of it.
func TestDocsNameEveryMember(t *testing.T) {
	wal, snap := string(readFile(t, "../docs/commands/wal.md")), string(readFile(t, "../docs/commands/snap.md"))
	l, s := openLog(t, fixture.DataDir(t, "3.4.23-mixed"))
	facts, err := l.Facts(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	report, err := json.Marshal(l.Report(s, facts))
	if err != nil {
		t.Fatal(err)
	}
	wantDocumented(t, "wal.md", wal, report)
	for line := range strings.Lines(string(readFile(t, "testdata/all.json.golden"))) {
		wantDocumented(t, "wal.md", wal, []byte(line))
	}
	damage := Damage{Kind: DamageGap, Cause: ErrNoLog, LostFirst: 1, LostLast: 2}
	wantDocumented(t, "wal.md", wal, damage.appendJSON(nil))
	for _, name := range fixture.Names() {
		list, err := json.Marshal(listSnaps(t, fixture.DataDir(t, name), ""))
		if err != nil {
			t.Fatal(err)
		}
		wantDocumented(t, "snap.md", snap, list)
	}
	for line := range strings.Lines(string(readFile(t, "testdata/tree.json.golden"))) {
		wantDocumented(t, "snap.md", snap, []byte(line))
	}
	for _, name := range Types() {
		if !strings.Contains(wal, "`"+name+"`") && !strings.HasPrefix(name, "auth_") {
			t.Errorf("wal.md does not name type %s", name)
		}
	}
}

func wantDocumented(t *testing.T, name, page string, data []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	for _, member := range memberNames(reflect.ValueOf(v)) {
		if !strings.Contains(page, "`"+strings.TrimSuffix(member, "_base64")+"`") {
			t.Errorf("%s does not name %q", name, member)
		}
	}
}

func memberNames(v reflect.Value) (names []string) {
	switch v.Kind() {
	case reflect.Interface:
		return memberNames(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			names = append(names, memberNames(v.Index(i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			names = append(append(names, key.String()), memberNames(v.MapIndex(key))...)
		}
	}
	return names
}

package forensic

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// Types lists what [DumpOptions].Types may name: the types of entries, the
// other kinds of records, and groups of them.
func Types() []string {
	return slices.Concat(
		[]string{"entry", "state", "snapshot", "crc", "metadata", "v2", "v3", "auth", "lease", "cluster"},
		[]string{typeNoop, typeConfChange, typeConfChangeV2, typeUnknown},
		v2Methods,
		v3Types,
	)
}

// v2Methods are the methods that etcd logs, in lower case. put and delete are
// v3 operations too.
var v2Methods = []string{"put", "delete", "post", "qget", "sync"}

// filter says which records are wanted.
type filter struct {
	o     DumpOptions
	types map[string]bool // nil: all
	key   pattern
}

func newFilter(o DumpOptions) (filter, error) {
	f := filter{o: o, key: newPattern(o.Key)}
	if len(o.Types) == 0 {
		return f, nil
	}
	f.types = map[string]bool{}
	known := Types()
	for _, asked := range o.Types {
		i := slices.IndexFunc(known, func(name string) bool { return bareName(name) == bareName(asked) })
		if i < 0 {
			return f, fmt.Errorf("unknown type %q: known are %s", asked, strings.Join(known, ", "))
		}
		f.types[known[i]] = true
	}
	return f, nil
}

// bareName lets no-op and lease-grant pass for noop and lease_grant.
func bareName(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// wantsRecord judges by what needs no decoding.
func (f *filter) wantsRecord(it *item) bool {
	switch it.kind {
	case walcodec.KindEntry:
		return f.wantsIndex(it.entry.Index) && !(f.o.Effective && it.overwritten) &&
			(f.types == nil || f.entryTypes())
	case walcodec.KindSnapshot:
		return f.wantsKind("snapshot") && f.key.all && f.snapshotIndex(it)
	}
	return f.wantsKind(it.kind.String()) && f.key.all && f.o.FromIndex == 0 && f.o.ToIndex == 0
}

func (f *filter) wantsIndex(index uint64) bool {
	return index >= f.o.FromIndex && (f.o.ToIndex == 0 || index <= f.o.ToIndex)
}

func (f *filter) snapshotIndex(it *item) bool {
	if f.o.FromIndex == 0 && f.o.ToIndex == 0 {
		return true
	}
	s, err := walcodec.ParseSnapshot(it.data)
	return err != nil || f.wantsIndex(s.Index)
}

func (f *filter) wantsKind(kind string) bool { return f.types == nil || f.types[kind] }

// entryTypes tells whether any type of entry is wanted.
func (f *filter) entryTypes() bool {
	for name := range f.types {
		switch name {
		case "state", "snapshot", "crc", "metadata":
		default:
			return true
		}
	}
	return false
}

// wantsOp judges by what an entry does.
func (f *filter) wantsOp(it *item, o *op) bool {
	if it.kind != walcodec.KindEntry {
		return true
	}
	return f.wantsType(o) && (f.key.all || f.key.matchesOp(o))
}

func (f *filter) wantsType(o *op) bool {
	return f.types == nil || f.types["entry"] || f.types[o.typ] || f.types[o.api] || f.types[o.group()]
}

// group is the part of etcd that a v3 op belongs to, as far as it has a name.
func (o *op) group() string {
	for _, prefix := range []string{"auth", "lease", "cluster"} {
		if strings.HasPrefix(o.typ, prefix) {
			return prefix
		}
	}
	return ""
}

// pattern is a key, or a prefix of keys.
type pattern struct {
	all    bool
	prefix bool
	text   []byte
}

func newPattern(s string) pattern {
	text, prefix := strings.CutSuffix(s, "*")
	return pattern{all: s == "" || s == "*", prefix: prefix, text: []byte(text)}
}

func (p *pattern) matches(key string) bool {
	if p.all {
		return true
	}
	if p.prefix {
		return strings.HasPrefix(key, string(p.text))
	}
	return key == string(p.text)
}

// matchesOp looks at every key that an op names, those of a txn's branches and
// comparisons too.
func (p *pattern) matchesOp(o *op) bool {
	for i := range o.fields {
		if p.matchesField(&o.fields[i]) {
			return true
		}
	}
	return false
}

func (p *pattern) matchesField(f *field) bool {
	switch f.kind {
	case fieldKey:
		return p.meets(f.b, f.end)
	case fieldPath:
		key, ok := userKey(f.s)
		return p.matches(f.s) || ok && p.matches(key)
	case fieldOps, fieldCompare:
		return slices.ContainsFunc(f.ops, func(o op) bool { return p.matchesOp(&o) })
	}
	return false
}

// meets tells whether the pattern has a key in common with a key or range.
func (p *pattern) meets(key, end []byte) bool {
	if len(end) == 0 {
		return bytes.Equal(key, p.text) || p.prefix && bytes.HasPrefix(key, p.text)
	}
	toEnd := len(end) == 1 && end[0] == 0
	if !toEnd && bytes.Compare(end, p.text) <= 0 {
		return false
	}
	if bytes.Compare(key, p.text) <= 0 {
		return true
	}
	return p.prefix && bytes.HasPrefix(key, p.text)
}

// Check tells whether the options name only what there is.
func (o DumpOptions) Check() error {
	_, err := newFilter(o)
	return err
}

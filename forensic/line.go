package forensic

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// lines writes records for people. Everything that comes from the log is
// printed so that a terminal survives it.
type lines struct {
	width   int       // of values, bytes; 0 means whole
	offsets bool      // begin with segment and offset
	now     time.Time // for times that say how far away they are
}

func (l *lines) append(dst []byte, it *item, o *op) []byte {
	if it.damage != nil {
		return append(append(append(dst, "damage: "...), it.damage.Error()...), '\n')
	}
	if l.offsets {
		dst = append(append(dst, it.segment...), ':')
		dst = append(strconv.AppendInt(dst, it.offset, 10), ' ')
	}
	if it.kind == walcodec.KindEntry {
		dst = append(dst, "term="...)
		dst = strconv.AppendUint(dst, it.entry.Term, 10)
		dst = append(dst, " index="...)
		dst = strconv.AppendUint(dst, it.entry.Index, 10)
		dst = append(dst, ' ')
	}
	dst = l.appendOp(dst, o)
	if it.overwritten {
		dst = append(dst, " overwritten"...)
	}
	return append(dst, '\n')
}

func (l *lines) appendOp(dst []byte, o *op) []byte {
	dst = append(dst, o.typ...)
	for i := range o.fields {
		f := &o.fields[i]
		if f.silent() {
			continue
		}
		if i > 0 || o.typ != "" {
			dst = append(dst, ' ')
		}
		dst = l.appendField(dst, f)
	}
	if o.api == "v2" {
		dst = append(dst, " v2"...)
	}
	if o.internal() {
		dst = append(dst, " internal"...)
	}
	return dst
}

// silent tells what lines leave out.
func (f *field) silent() bool {
	return f.label == hidden || f.kind == fieldList && len(f.list) == 0
}

// internal tells a v2 request for a path that only etcd itself uses: it must
// not be taken for a user's key of the same name.
func (o *op) internal() bool {
	for i := range o.fields {
		if o.fields[i].kind == fieldPath {
			_, user := userKey(o.fields[i].s)
			return !user
		}
	}
	return false
}

func (l *lines) appendField(dst []byte, f *field) []byte {
	switch f.kind {
	case fieldKey:
		return appendRange(dst, f.b, f.end)
	case fieldPath:
		return appendPath(dst, f.s)
	case fieldFlag:
		return append(dst, f.title()...)
	case fieldWord:
		return appendWord(dst, f.s)
	case fieldOps:
		return l.appendBranch(dst, f)
	case fieldCompare:
		return l.appendConditions(dst, f)
	}
	dst = append(append(dst, f.title()...), '=')
	return l.appendFact(dst, f)
}

// appendFact writes what follows the name and the equals sign.
func (l *lines) appendFact(dst []byte, f *field) []byte {
	switch f.kind {
	case fieldText:
		return appendWord(dst, f.s)
	case fieldValue:
		if f.b != nil {
			return appendCut(dst, f.b, l.width)
		}
		return appendCut(dst, f.s, l.width)
	case fieldUint:
		return strconv.AppendUint(dst, f.n, 10)
	case fieldInt:
		return strconv.AppendInt(dst, int64(f.n), 10)
	case fieldID:
		return strconv.AppendUint(dst, f.n, 16)
	case fieldBool:
		return strconv.AppendBool(dst, f.n != 0)
	case fieldTime:
		return l.appendTime(dst, time.Unix(0, int64(f.n)))
	case fieldTTL:
		return appendTTL(dst, int64(f.n))
	case fieldSecret:
		return append(dst, "***"...)
	default:
		return appendList(dst, f)
	}
}

// appendCut writes a value in quotes, cut at width bytes unless that is 0, and
// its size.
func appendCut[T string | []byte](dst []byte, value T, width int) []byte {
	n := len(value)
	if width > 0 && n > width {
		n = runeStart(value, width)
	}
	dst = strconv.AppendQuote(dst, string(value[:n]))
	if n < len(value) {
		dst = append(dst, "…"...)
	}
	dst = strconv.AppendInt(append(dst, " ("...), int64(len(value)), 10)
	if len(value) == 1 {
		return append(dst, " byte)"...)
	}
	return append(dst, " bytes)"...)
}

// runeStart moves a cut back so that it does not split a character.
func runeStart[T string | []byte](value T, n int) int {
	for back := n; back > 0 && back > n-utf8.UTFMax; back-- {
		if utf8.RuneStart(value[back]) {
			return back
		}
	}
	return n
}

// appendWord writes text as it is where that can't be misread, else in quotes.
func appendWord[T string | []byte](dst []byte, text T) []byte {
	if plain(text) {
		return append(dst, text...)
	}
	return strconv.AppendQuote(dst, string(text))
}

// plain tells whether text can stand without quotes: printable, no space, and
// nothing that a line gives a meaning.
func plain[T string | []byte](text T) bool {
	if len(text) == 0 {
		return false
	}
	s := string(text)
	for _, c := range s {
		if c == utf8.RuneError || unicode.IsSpace(c) || !unicode.IsPrint(c) || strings.ContainsRune("\"'`\\*,;()", c) {
			return false
		}
	}
	return !strings.Contains(s, "..")
}

// appendRange writes a key, a prefix as "/a*", another range as "a..b", and
// all from a key on as "a..".
func appendRange(dst, key, end []byte) []byte {
	fromKey := len(end) == 1 && end[0] == 0
	switch {
	case len(end) == 0:
		return appendWord(dst, key)
	case fromKey && (len(key) == 0 || len(key) == 1 && key[0] == 0):
		return append(dst, '*')
	case bytes.Equal(end, prefixEnd(key)):
		return append(appendWord(dst, key), '*')
	case fromKey:
		return append(appendWord(dst, key), ".."...)
	}
	return appendWord(append(appendWord(dst, key), ".."...), end)
}

// prefixEnd is the end of the range of all keys that start with prefix
// (GetPrefixRangeEnd in client/v3/op.go).
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// appendPath writes a v2 path as clients know it.
func appendPath(dst []byte, path string) []byte {
	if key, ok := userKey(path); ok {
		return appendWord(dst, key)
	}
	return appendWord(dst, path)
}

// appendTime writes a time and how far from now it is.
func (l *lines) appendTime(dst []byte, t time.Time) []byte {
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	left := t.Sub(l.now)
	switch {
	case left == 0:
		return append(dst, " (now)"...)
	case left > 0:
		return append(append(dst, " (in "...), span(left)+")"...)
	}
	return append(append(dst, " ("...), span(l.now.Sub(t))+" ago)"...)
}

// appendTTL writes seconds.
func appendTTL(dst []byte, seconds int64) []byte {
	dst = append(strconv.AppendInt(dst, seconds, 10), 's')
	if seconds < 60 || seconds > int64(maxSpan/time.Second) {
		return dst
	}
	return append(append(dst, " ("...), span(time.Duration(seconds)*time.Second)+")"...)
}

const (
	day     = 24 * time.Hour
	maxSpan = time.Duration(math.MaxInt64)
)

// span writes a duration to the second, and in days where it is long.
func span(d time.Duration) string {
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	d = d.Round(time.Second)
	if d < 2*day {
		return d.String()
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func appendList(dst []byte, f *field) []byte {
	if len(f.list)+len(f.ids) == 0 {
		return append(dst, '-')
	}
	for i, s := range f.list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendWord(dst, s)
	}
	for i, id := range f.ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, id, 16)
	}
	return dst
}

// appendBranch writes a list of ops.
func (l *lines) appendBranch(dst []byte, f *field) []byte {
	dst = append(append(dst, f.title()...), " ("...)
	for i := range f.ops {
		if i > 0 {
			dst = append(dst, "; "...)
		}
		dst = l.appendOp(dst, &f.ops[i])
	}
	return append(dst, ')')
}

// appendConditions writes the comparisons of a txn, each as target(key) = x.
func (l *lines) appendConditions(dst []byte, f *field) []byte {
	dst = append(dst, f.title()...)
	for i := range f.ops {
		if i > 0 {
			dst = append(dst, " and"...)
		}
		target, key, result, operand := f.ops[i].comparison()
		dst = append(append(append(dst, ' '), target...), '(')
		dst = append(appendRange(dst, key.b, key.end), ')')
		dst = append(append(append(dst, ' '), result...), ' ')
		dst = l.appendOperand(dst, operand)
	}
	return dst
}

func (l *lines) appendOperand(dst []byte, f *field) []byte {
	if f.kind == fieldValue {
		return appendCut(dst, f.b, l.width)
	}
	if f.kind == fieldID {
		return strconv.AppendUint(dst, f.n, 16)
	}
	return strconv.AppendInt(dst, int64(f.n), 10)
}

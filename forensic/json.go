package forensic

import (
	"encoding/base64"
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// The functions of this file write the JSON lines of docs/commands/wal.md.
// They are made by hand: a log has hundreds of thousands of records, and
// encoding/json would take most of the time.

// appendJSON writes one record or damage as a line.
func (it *item) appendJSON(dst []byte, o *op) []byte {
	if it.damage != nil {
		return append(it.damage.appendJSON(dst), '\n')
	}
	dst = append(dst, `{"segment":`...)
	dst = appendJSONString(dst, it.segment)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, it.offset, 10)
	dst = append(dst, `,"kind":"`...)
	dst = append(dst, it.kind.String()...)
	dst = append(dst, '"')
	switch it.kind {
	case walcodec.KindEntry:
		dst = it.appendEntryJSON(dst, o)
	default:
		dst = appendFieldsJSON(dst, o.fields, ',')
	}
	return append(dst, "}\n"...)
}

func (it *item) appendEntryJSON(dst []byte, o *op) []byte {
	dst = append(dst, `,"term":`...)
	dst = strconv.AppendUint(dst, it.entry.Term, 10)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendUint(dst, it.entry.Index, 10)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, o.typ...)
	dst = append(dst, '"')
	if o.api != "" {
		dst = append(dst, `,"api":"`...)
		dst = append(dst, o.api...)
		dst = append(dst, '"')
	}
	if it.overwritten {
		dst = append(dst, `,"overwritten":true`...)
	}
	return appendFieldsJSON(dst, o.fields, ',')
}

// appendFieldsJSON writes the fields as members of an object, each after sep;
// a sep of '{' is for the first only.
func appendFieldsJSON(dst []byte, fields []field, sep byte) []byte {
	for i := range fields {
		if fields[i].kind == fieldSecret {
			continue
		}
		dst = fields[i].appendJSON(append(dst, sep))
		sep = ','
	}
	return dst
}

func (f *field) appendJSON(dst []byte) []byte {
	switch f.kind {
	case fieldKey:
		return f.appendKeyJSON(dst)
	case fieldPath:
		return f.appendPathJSON(dst)
	case fieldValue, fieldText, fieldWord:
		if f.b != nil {
			return appendJSONMember(dst, f.name, f.b)
		}
		return appendJSONMember(dst, f.name, f.s)
	}
	dst = append(dst, '"')
	dst = append(dst, f.name...)
	dst = append(dst, `":`...)
	switch f.kind {
	case fieldUint:
		return strconv.AppendUint(dst, f.n, 10)
	case fieldInt, fieldTTL:
		return strconv.AppendInt(dst, int64(f.n), 10)
	case fieldID:
		return appendJSONID(dst, f.n)
	case fieldFlag:
		return append(dst, "true"...)
	case fieldBool:
		return strconv.AppendBool(dst, f.n != 0)
	case fieldTime:
		dst = time.Unix(0, int64(f.n)).UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano)
		return append(dst, '"')
	default:
		return f.appendListJSON(dst)
	}
}

func (f *field) appendKeyJSON(dst []byte) []byte {
	dst = appendJSONMember(dst, f.name, f.b)
	if f.end == nil {
		return dst
	}
	return appendJSONMember(append(dst, ','), "range_end", f.end)
}

// appendPathJSON gives a v2 path as the store has it and, for user data, as
// clients know it.
func (f *field) appendPathJSON(dst []byte) []byte {
	if key, ok := userKey(f.s); ok {
		dst = append(appendJSONMember(dst, "key", key), ',')
	}
	return appendJSONMember(dst, f.name, f.s)
}

func (f *field) appendListJSON(dst []byte) []byte {
	dst = append(dst, '[')
	n := max(len(f.list), len(f.ids), len(f.ops))
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch f.kind {
		case fieldList:
			dst = appendJSONString(dst, f.list[i])
		case fieldIDs:
			dst = appendJSONID(dst, f.ids[i])
		default:
			dst = f.ops[i].appendJSON(dst)
		}
	}
	return append(dst, ']')
}

// appendJSON writes a part of an entry: an op of a txn, a comparison.
func (o *op) appendJSON(dst []byte) []byte {
	sep := byte('{')
	if o.typ != "" {
		dst = append(dst, `{"type":"`...)
		dst = append(dst, o.typ...)
		dst = append(dst, '"')
		sep = ','
	}
	if sep == '{' && len(o.fields) == 0 {
		return append(dst, "{}"...)
	}
	return append(appendFieldsJSON(dst, o.fields, sep), '}')
}

func appendJSONID(dst []byte, id uint64) []byte {
	dst = strconv.AppendUint(append(dst, '"'), id, 16)
	return append(dst, '"')
}

// appendJSONMember writes name and value; bytes that are not UTF-8 go in
// base64, under the name with _base64.
func appendJSONMember[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(append(dst, '"'), name...)
	if !validUTF8(value) {
		dst = append(dst, `_base64":"`...)
		return append(appendBase64(dst, value), '"')
	}
	return appendJSONString(append(dst, `":`...), value)
}

func appendBase64[T string | []byte](dst []byte, value T) []byte {
	return base64.StdEncoding.AppendEncode(dst, []byte(value))
}

func validUTF8[T string | []byte](value T) bool {
	switch v := any(value).(type) {
	case string:
		return utf8.ValidString(v)
	case []byte:
		return utf8.Valid(v)
	}
	return false
}

// appendJSONString writes value, which is UTF-8, in quotes. Eight bytes at a
// time are copied up to the first that needs a backslash: values are often JSON
// themselves, and full of those.
func appendJSONString[T string | []byte](dst []byte, value T) []byte {
	dst = append(dst, '"')
	for {
		dst = slices.Grow(dst, len(value)+8)
		n, done := copyPlain(dst[len(dst):cap(dst)], value)
		dst, value = dst[:len(dst)+n], value[done:]
		if len(value) == 0 {
			return append(dst, '"')
		}
	}
}

// copyPlain copies and escapes value to dst as far as there is room for it. It
// returns how many bytes it wrote and how many it took.
func copyPlain[T string | []byte](dst []byte, value T) (n, done int) {
	for done+8 <= len(value) && n+8+maxEscape <= len(dst) {
		x := load64(value[done : done+8])
		binary.LittleEndian.PutUint64(dst[n:], x)
		plain := bits.TrailingZeros64(escapeMask(x)) / 8
		n, done = n+plain, done+plain
		if plain < 8 {
			n += putEscape(dst[n:], value[done])
			done++
		}
	}
	for done < len(value) && n+maxEscape <= len(dst) {
		if c := value[done]; c >= ' ' && c != '"' && c != '\\' {
			dst[n] = c
			n++
		} else {
			n += putEscape(dst[n:], c)
		}
		done++
	}
	return n, done
}

func load64[T string | []byte](b T) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// escapeMask sets the top bit of each byte of x that JSON escapes: quotes,
// backslashes, and those below a space. Bytes above the first such may be set
// too.
func escapeMask(x uint64) uint64 {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, backslash := x^ones*'"', x^ones*'\\'
	return ((x-ones*' ')&^x | (quote-ones)&^quote | (backslash-ones)&^backslash) & tops
}

// maxEscape is the size of the longest escape, \u001f.
const maxEscape = 6

// putEscape writes the escape of c and returns its size. dst has room for the
// longest.
func putEscape(dst []byte, c byte) int {
	_ = dst[maxEscape-1]
	dst[0], dst[1] = '\\', c
	switch c {
	case '"', '\\':
		return 2
	case '\n':
		dst[1] = 'n'
		return 2
	case '\r':
		dst[1] = 'r'
		return 2
	case '\t':
		dst[1] = 't'
		return 2
	}
	const digits = "0123456789abcdef"
	dst[1], dst[2], dst[3], dst[4], dst[5] = 'u', '0', '0', digits[c>>4], digits[c&15]
	return maxEscape
}

// appendJSON writes damage as the lines of a dump and the lists of a report
// have it.
func (d *Damage) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"segment":`...)
	dst = appendJSONString(dst, d.Segment)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, d.Offset, 10)
	dst = append(dst, `,"kind":"damage","damage":"`...)
	dst = append(dst, d.Kind...)
	dst = append(dst, `","length":`...)
	dst = strconv.AppendInt(dst, d.Len, 10)
	dst = append(dst, ',')
	dst = appendJSONMember(dst, "cause", d.Cause.Error())
	if d.LostFirst != 0 {
		dst = append(dst, `,"lost_first":`...)
		dst = strconv.AppendUint(dst, d.LostFirst, 10)
		dst = append(dst, `,"lost_last":`...)
		dst = strconv.AppendUint(dst, d.LostLast, 10)
	}
	return append(dst, '}')
}

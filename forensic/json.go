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

// appendJSONString writes value, which is UTF-8, in quotes.
func appendJSONString[T string | []byte](dst []byte, value T) []byte {
	dst = append(dst, '"')
	for len(value) > 0 {
		var done int
		dst, done = appendWords(dst, value[:min(len(value), wordsAtOnce)])
		value = value[done:]
		n := min(len(value), 8)
		for i := range n {
			dst = appendEscaped(dst, value[i])
		}
		value = value[n:]
	}
	return append(dst, '"')
}

// wordsAtOnce bounds what appendWords is given, in bytes: it wants room for
// twice as many.
const wordsAtOnce = 16 << 10

// appendWords escapes value eight bytes at a time, up to the first eight that
// have a control character. It returns how many bytes it took. Quotes are what
// it has to be fast with: values are often JSON themselves.
func appendWords[T string | []byte](dst []byte, value T) (_ []byte, done int) {
	dst = slices.Grow(dst, 2*len(value)+8)
	out, n := dst[len(dst):cap(dst)], 0
	for ; len(value)-done >= 8; done += 8 {
		x := load64(value[done : done+8])
		if hasControl(x) {
			break
		}
		binary.LittleEndian.PutUint64(out[n:], x)
		written := 0 // of the eight
		for escapes := escapeBits(x); escapes != 0; escapes &= escapes - 1 {
			at := bits.TrailingZeros64(escapes)
			n += at/8 - written
			out[n] = '\\'
			n++
			binary.LittleEndian.PutUint64(out[n:], x>>at)
			written = at / 8
		}
		n += 8 - written
	}
	return dst[:len(dst)+n], done
}

func load64[T string | []byte](b T) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

const (
	eachByte = 0x0101010101010101
	lowBits  = 0x7f * eachByte
	topBits  = 0x80 * eachByte
)

// hasControl tells whether one of the eight bytes of x is below a space.
func hasControl(x uint64) bool {
	return (x-' '*eachByte)&^x&topBits != 0
}

// escapeBits sets the lowest bit of each byte of x that is a quote or a
// backslash.
func escapeBits(x uint64) uint64 {
	quote, backslash := x^'"'*eachByte, x^'\\'*eachByte
	neither := (quote&lowBits + lowBits | quote) & (backslash&lowBits + lowBits | backslash)
	return ^neither & topBits >> 7
}

// appendEscaped escapes one byte.
func appendEscaped(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c >= ' ':
		return append(dst, c)
	case c == '\n':
		return append(dst, '\\', 'n')
	case c == '\r':
		return append(dst, '\\', 'r')
	case c == '\t':
		return append(dst, '\\', 't')
	}
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
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

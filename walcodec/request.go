package walcodec

import "fmt"

// Request is a v2 operation as the log holds it (etcdserverpb.Request, the
// same since 2.0 but for Refresh, which came with 2.3).
type Request struct {
	ID         uint64
	Method     string // PUT, POST, DELETE, QGET or SYNC
	Path       string
	Val        string
	Dir        bool
	PrevValue  string
	PrevIndex  uint64
	PrevExist  *bool // nil: not asked for
	Expiration int64 // Unix nanoseconds, 0: never
	Wait       bool
	Since      uint64
	Recursive  bool
	Sorted     bool
	Quorum     bool
	Time       int64 // Unix nanoseconds
	Stream     bool
	Refresh    *bool // nil: not asked for
}

// ParseRequest decodes the data of an entry that [ClassifyEntry] calls a
// V2Request. Strings are copies.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	f := fieldsOf(data)
	for f.next() {
		if !r.setField(&f) {
			f.err = f.unknown()
		}
	}
	if f.err != nil {
		return Request{}, fmt.Errorf("v2 request: %w", f.err)
	}
	return r, nil
}

func (r *Request) setField(f *fields) bool {
	switch f.tag {
	case 1<<3 | wireVarint:
		r.ID = f.num
	case 2<<3 | wireBytes:
		r.Method = methodName(f.data)
	case 3<<3 | wireBytes:
		r.Path = string(f.data)
	case 4<<3 | wireBytes:
		r.Val = string(f.data)
	case 5<<3 | wireVarint:
		r.Dir = f.num != 0
	case 6<<3 | wireBytes:
		r.PrevValue = string(f.data)
	case 7<<3 | wireVarint:
		r.PrevIndex = f.num
	case 8<<3 | wireVarint:
		r.PrevExist = boolPointer(f.num)
	case 9<<3 | wireVarint:
		r.Expiration = int64(f.num)
	case 10<<3 | wireVarint:
		r.Wait = f.num != 0
	case 11<<3 | wireVarint:
		r.Since = f.num
	case 12<<3 | wireVarint:
		r.Recursive = f.num != 0
	case 13<<3 | wireVarint:
		r.Sorted = f.num != 0
	case 14<<3 | wireVarint:
		r.Quorum = f.num != 0
	case 15<<3 | wireVarint:
		r.Time = int64(f.num)
	case 16<<3 | wireVarint:
		r.Stream = f.num != 0
	case 17<<3 | wireVarint:
		r.Refresh = boolPointer(f.num)
	default:
		return false
	}
	return true
}

func boolPointer(v uint64) *bool {
	b := v != 0
	return &b
}

// AppendRequest encodes r as 2.3 to 3.6 do: all fields are written but an
// unset PrevExist or Refresh.
func AppendRequest(dst []byte, r Request) []byte {
	dst = appendUint(dst, 1, r.ID)
	dst = appendBytes(dst, 2, r.Method)
	dst = appendBytes(dst, 3, r.Path)
	dst = appendBytes(dst, 4, r.Val)
	dst = appendBool(dst, 5, r.Dir)
	dst = appendBytes(dst, 6, r.PrevValue)
	dst = appendUint(dst, 7, r.PrevIndex)
	if r.PrevExist != nil {
		dst = appendBool(dst, 8, *r.PrevExist)
	}
	dst = appendUint(dst, 9, uint64(r.Expiration))
	dst = appendBool(dst, 10, r.Wait)
	dst = appendUint(dst, 11, r.Since)
	dst = appendBool(dst, 12, r.Recursive)
	dst = appendBool(dst, 13, r.Sorted)
	dst = appendBool(dst, 14, r.Quorum)
	dst = appendUint(dst, 15, uint64(r.Time))
	dst = appendBool(dst, 16, r.Stream)
	if r.Refresh != nil {
		dst = appendBool(dst, 17, *r.Refresh)
	}
	return dst
}

// methodName returns a logged method without copying it.
func methodName(b []byte) string {
	switch string(b) {
	case "PUT":
		return "PUT"
	case "POST":
		return "POST"
	case "DELETE":
		return "DELETE"
	case "QGET":
		return "QGET"
	case "SYNC":
		return "SYNC"
	}
	return string(b)
}

// PayloadKind says what the data of an entry is.
type PayloadKind int

// What an entry can hold.
const (
	Unknown PayloadKind = iota
	Empty               // no data: a new leader's first entry
	V2Request
	V3Request
	ConfChangePayload
	ConfChangeV2Payload
)

var payloadNames = [...]string{"unknown", "empty", "v2", "v3", "conf-change", "conf-change-v2"}

// String returns unknown, empty, v2, v3, conf-change or conf-change-v2.
func (k PayloadKind) String() string {
	if k < 0 || int(k) >= len(payloadNames) {
		return payloadNames[Unknown]
	}
	return payloadNames[k]
}

// ClassifyEntry tells what an entry's data is without decoding it whole. v2
// and v3 requests carry no mark; the rules are in docs/formats/wal.md. Trying
// one decoder after the other would not do: a v2 SYNC is also a valid, empty
// v3 range.
func ClassifyEntry(e Entry) PayloadKind {
	switch {
	case e.Type == EntryConfChange:
		return ConfChangePayload
	case e.Type == EntryConfChangeV2:
		return ConfChangeV2Payload
	case e.Type != EntryNormal:
		return Unknown
	case len(e.Data) == 0:
		return Empty
	}
	return classifyRequest(e.Data)
}

// classifyRequest walks the top level: a v2 request names one of five methods
// in field 2; a v3 request has its header in field 100. The v3 preview of 2.3
// had no header yet, but an id in field 1 and one operation in 3 to 10.
func classifyRequest(data []byte) PayloadKind {
	header, ops, others := false, 0, 0
	f := fieldsOf(data)
	for f.next() {
		switch number := f.tag >> 3; {
		case f.tag == 2<<3|wireBytes && loggedMethod(f.data):
			return V2Request
		case f.tag == 100<<3|wireBytes:
			header = true
		case number >= 3 && number <= 10 && f.tag&7 == wireBytes:
			ops++
		case f.tag != 1<<3|wireVarint:
			others++
		}
	}
	if f.err == nil && (header || ops == 1 && others == 0) {
		return V3Request
	}
	return Unknown
}

func loggedMethod(b []byte) bool {
	switch string(b) {
	case "PUT", "POST", "DELETE", "QGET", "SYNC":
		return true
	}
	return false
}

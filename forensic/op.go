package forensic

import (
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/walcodec"
)

// op is what an entry does, taken apart for printing in either format and for
// filtering. Its bytes alias the entry's data.
type op struct {
	typ    string
	api    string // v2, v3, or empty
	fields []field
}

// field is one named fact of an op.
type field struct {
	kind  fieldKind
	name  string // in JSON
	label string // in lines, where it differs
	b     []byte // of bytes and keys
	end   []byte // of keys: the range's end, nil for one key
	s     string // of strings
	n     uint64 // of numbers, ids, flags and times
	list  []string
	ids   []uint64
	ops   []op
}

type fieldKind uint8

const (
	fieldText    fieldKind = iota // s
	fieldWord                     // s, without its name in lines
	fieldKey                      // b, end: what --key asks for
	fieldPath                     // s: a path of the v2 store, what --key asks for
	fieldValue                    // b or s: cut in lines
	fieldUint                     // n
	fieldInt                      // n, signed
	fieldID                       // n, in hex
	fieldFlag                     // true
	fieldBool                     // n
	fieldTime                     // n: Unix nanoseconds
	fieldTTL                      // n: seconds
	fieldSecret                   // never printed
	fieldList                     // list
	fieldIDs                      // ids
	fieldOps                      // ops
	fieldCompare                  // ops, each a comparison
)

func (f *field) title() string {
	if f.label != "" {
		return f.label
	}
	return f.name
}

func (o *op) reset() {
	o.typ, o.api = "", ""
	o.fields = o.fields[:0]
}

func (o *op) add(f field) { o.fields = append(o.fields, f) }

// addUint and the like leave out what is not set, as protobuf does.
func (o *op) addUint(name string, n uint64) {
	if n != 0 {
		o.add(field{kind: fieldUint, name: name, n: n})
	}
}

func (o *op) addInt(name string, n int64) {
	if n != 0 {
		o.add(field{kind: fieldInt, name: name, n: uint64(n)})
	}
}

func (o *op) addID(name string, id uint64) {
	if id != 0 {
		o.add(field{kind: fieldID, name: name, n: id})
	}
}

func (o *op) addFlag(name string, set bool) {
	if set {
		o.add(field{kind: fieldFlag, name: name})
	}
}

func (o *op) addText(name, s string) {
	if s != "" {
		o.add(field{kind: fieldText, name: name, s: s})
	}
}

func (o *op) addIDs(name string, ids []uint64) {
	if len(ids) > 0 {
		o.add(field{kind: fieldIDs, name: name, ids: ids})
	}
}

// The types of entries that carry no request.
const (
	typeNoop         = "noop"
	typeConfChange   = "confchange"
	typeConfChangeV2 = "confchange_v2"
	typeUnknown      = "unknown"
)

// describe says what an entry does.
func (o *op) describe(e walcodec.Entry) {
	o.reset()
	var err error
	switch walcodec.ClassifyEntry(e) {
	case walcodec.Empty:
		o.typ = typeNoop
	case walcodec.V2Request:
		err = o.v2(e.Data)
	case walcodec.V3Request:
		err = o.v3(e.Data)
	case walcodec.ConfChangePayload:
		err = o.confChange(e.Data)
	case walcodec.ConfChangeV2Payload:
		err = o.confChangeV2(e.Data)
	default:
		o.unknown(e.Data, "")
	}
	if err != nil {
		o.unknown(e.Data, err.Error())
	}
}

func (o *op) unknown(data []byte, problem string) {
	o.reset()
	o.typ = typeUnknown
	o.add(field{kind: fieldValue, name: "data", b: data})
	o.addText("error", problem)
}

func (o *op) confChange(data []byte) error {
	c, err := walcodec.ParseConfChange(data)
	if err != nil {
		return err
	}
	m, err := walcodec.ParseMember(c.Context)
	o.typ = typeConfChange
	o.addChange(walcodec.ConfChangeSingle{Type: c.Type, NodeID: c.NodeID})
	o.addText("name", m.Name)
	o.add(field{kind: fieldList, name: "peer_urls", label: "peerURLs", list: m.PeerURLs})
	o.add(field{kind: fieldList, name: "client_urls", label: "clientURLs", list: m.ClientURLs})
	o.addFlag("learner", m.IsLearner)
	o.addFlag("promote", m.IsPromote)
	o.add(field{kind: fieldID, name: "change_id", label: hidden, n: c.ID})
	if err != nil {
		o.add(field{kind: fieldValue, name: "context", b: c.Context})
		o.addText("error", err.Error())
	}
	return nil
}

func (o *op) addChange(c walcodec.ConfChangeSingle) {
	o.add(field{kind: fieldWord, name: "change", s: c.Type.String()})
	o.add(field{kind: fieldID, name: "node_id", label: "id", n: c.NodeID})
}

func (o *op) confChangeV2(data []byte) error {
	c, err := walcodec.ParseConfChangeV2(data)
	if err != nil {
		return err
	}
	o.typ = typeConfChangeV2
	o.addInt("transition", int64(c.Transition))
	var changes []op
	for _, single := range c.Changes {
		var change op
		change.addChange(single)
		changes = append(changes, change)
	}
	o.add(field{kind: fieldOps, name: "changes", ops: changes})
	return nil
}

func (o *op) v2(data []byte) error {
	r, err := walcodec.ParseRequest(data)
	if err != nil {
		return err
	}
	return o.v2Request(r)
}

func (o *op) v2Request(r walcodec.Request) error {
	o.typ, o.api = strings.ToLower(r.Method), "v2"
	if !slices.Contains(v2Methods, o.typ) {
		o.typ = typeUnknown
		o.addText("method", r.Method)
	}
	if r.Path != "" {
		o.add(field{kind: fieldPath, name: "path", s: r.Path})
	}
	o.addFlag("dir", r.Dir)
	o.v2Value(r)
	o.v2Conditions(r)
	if r.Expiration != 0 {
		o.add(field{kind: fieldTime, name: "expiration", label: "expires", n: uint64(r.Expiration)})
	}
	if r.Refresh != nil {
		o.add(field{kind: fieldBool, name: "refresh", n: bit(*r.Refresh)})
	}
	o.addFlag("recursive", r.Recursive)
	o.addFlag("sorted", r.Sorted)
	o.addFlag("quorum", r.Quorum)
	o.addFlag("wait", r.Wait)
	o.addFlag("stream", r.Stream)
	o.addUint("since", r.Since)
	if r.Time != 0 {
		o.add(field{kind: fieldTime, name: "time", n: uint64(r.Time)})
	}
	o.addRequestID(r.ID)
	return nil
}

// v2Value adds the value of a request that writes one, an empty one too.
func (o *op) v2Value(r walcodec.Request) {
	writes := (r.Method == "PUT" || r.Method == "POST") && !r.Dir
	if writes || r.Val != "" {
		o.add(field{kind: fieldValue, name: "value", s: r.Val})
	}
}

func (o *op) v2Conditions(r walcodec.Request) {
	if r.PrevExist != nil {
		o.add(field{kind: fieldBool, name: "prev_exist", label: "prevExist", n: bit(*r.PrevExist)})
	}
	if r.PrevValue != "" {
		o.add(field{kind: fieldValue, name: "prev_value", label: "prevValue", s: r.PrevValue})
	}
	if r.PrevIndex != 0 {
		o.add(field{kind: fieldUint, name: "prev_index", label: "prevIndex", n: r.PrevIndex})
	}
}

func (o *op) addRequestID(id uint64) {
	o.add(field{kind: fieldID, name: "request_id", label: hidden, n: id})
}

// hidden is the label of what only JSON shows.
const hidden = "-"

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// userPrefix is where the v2 store keeps what clients write: their /a is /1/a.
const userPrefix = "/1"

// userKey is the path as a v2 client knows it, ok is false for a path that
// only etcd itself uses.
func userKey(path string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(path, userPrefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	if rest == "" {
		return "/", true
	}
	return rest, true
}

// comparison takes apart one of what comparisons made.
func (o *op) comparison() (target string, key *field, result string, operand *field) {
	return o.fields[0].s, &o.fields[1], o.fields[2].s, &o.fields[3]
}

package snapcodec

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Revision names one change of the keyspace: all changes of a transaction share
// Main.
type Revision struct{ Main, Sub int64 }

func (r Revision) String() string { return fmt.Sprintf("%d.%d", r.Main, r.Sub) }

// Less orders revisions.
func (r Revision) Less(o Revision) bool {
	return r.Main < o.Main || (r.Main == o.Main && r.Sub < o.Sub)
}

// Lengths of a revision key in bytes: main (8, big endian), '_', sub (8), and
// 't' when the change is a deletion. Source: storage/mvcc/revision.go, etcd 3.7.
const (
	revisionLen  = 17
	tombstoneLen = 18
)

// ParseRevision decodes a key of the key bucket.
func ParseRevision(key []byte) (rev Revision, tombstone bool, err error) {
	ok := len(key) == revisionLen || (len(key) == tombstoneLen && key[revisionLen] == 't')
	if !ok || key[8] != '_' {
		return Revision{}, false, fmt.Errorf("%.40q is no revision", key)
	}
	rev.Main = int64(binary.BigEndian.Uint64(key))
	rev.Sub = int64(binary.BigEndian.Uint64(key[9:]))
	return rev, len(key) == tombstoneLen, nil
}

// AppendRevision encodes a key of the key bucket.
func AppendRevision(dst []byte, rev Revision) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev.Main))
	dst = append(dst, '_')
	return binary.BigEndian.AppendUint64(dst, uint64(rev.Sub))
}

// KeyValue is one version of a key.
type KeyValue struct {
	Key            []byte
	CreateRevision int64
	ModRevision    int64
	Version        int64 // 1 for the put that created the key
	Value          []byte
	Lease          int64 // id; 0: none
}

// Fields of mvccpb.KeyValue. Source: api/mvccpb/kv.proto, etcd 3.7.
const (
	fieldKVKey = iota + 1
	fieldKVCreate
	fieldKVMod
	fieldKVVersion
	fieldKVValue
	fieldKVLease
)

// ParseKeyValue decodes mvccpb.KeyValue. Its slices alias data.
func ParseKeyValue(data []byte) (KeyValue, error) {
	var kv KeyValue
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return KeyValue{}, fmt.Errorf("key-value: %w", protowire.ParseError(n))
		}
		l := kv.consume(num, typ, data[n:])
		if l < 0 {
			return KeyValue{}, fmt.Errorf("key-value field %d: %w", num, protowire.ParseError(l))
		}
		data = data[n+l:]
	}
	return kv, nil
}

// consume decodes one field's value. Its length is negative on an error, as
// protowire's.
func (kv *KeyValue) consume(num protowire.Number, typ protowire.Type, b []byte) int {
	text := num == fieldKVKey || num == fieldKVValue
	switch {
	case num > fieldKVLease:
		return protowire.ConsumeFieldValue(num, typ, b)
	case text && typ == protowire.BytesType:
		v, n := protowire.ConsumeBytes(b)
		if num == fieldKVKey {
			kv.Key = v
		} else {
			kv.Value = v
		}
		return n
	case !text && typ == protowire.VarintType:
		v, n := protowire.ConsumeVarint(b)
		kv.setNumber(num, int64(v))
		return n
	}
	return errWireType
}

// errWireType is what protowire returns for a wire type that is not one.
const errWireType = -4

func (kv *KeyValue) setNumber(num protowire.Number, v int64) {
	switch num {
	case fieldKVCreate:
		kv.CreateRevision = v
	case fieldKVMod:
		kv.ModRevision = v
	case fieldKVVersion:
		kv.Version = v
	case fieldKVLease:
		kv.Lease = v
	}
}

// keyOf reads only the key of an encoded KeyValue: it comes first.
func keyOf(data []byte) ([]byte, error) {
	if len(data) >= 2 && data[0] == fieldKVKey<<3|byte(protowire.BytesType) && data[1] < 0x80 && 2+int(data[1]) <= len(data) {
		return data[2 : 2+int(data[1])], nil
	}
	kv, err := ParseKeyValue(data)
	return kv.Key, err
}

// KeyRecord is one change of the keyspace. Raw is the reader's memory.
type KeyRecord struct {
	Revision  Revision
	Tombstone bool   // a deletion: Raw holds nothing but the key
	Raw       []byte // mvccpb.KeyValue, encoded
}

// KeyValue decodes the record. Its slices alias Raw.
func (r *KeyRecord) KeyValue() (KeyValue, error) { return ParseKeyValue(r.Raw) }

// Keys visits the changes of the keyspace in the order of revisions, from the
// first one not below from. The record is valid until fn returns.
func (db *DB) Keys(from Revision, fn func(*KeyRecord) error) error {
	b, err := db.Bucket("key")
	if err != nil || b == nil {
		return err
	}
	var rec KeyRecord
	return b.ForEach(AppendRevision(nil, from), func(k, v []byte) error {
		rec.Revision, rec.Tombstone, err = ParseRevision(k)
		if err != nil {
			return db.entryError("key", k, err)
		}
		rec.Raw = v
		return fn(&rec)
	})
}

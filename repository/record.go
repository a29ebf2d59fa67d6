package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// Format is the number of the format that this version writes, and the newest
// that it reads.
const Format = 1

// maxRecord bounds what is read as a record, in bytes.
const maxRecord = 16 << 20

// The kinds of records, as the names of their content in JSON.
const (
	kindRepository = "repository"
	kindManifest   = "manifest"
	kindProof      = "proof"
	kindHold       = "hold"
	kindPruned     = "pruned"
)

// sealRecord writes {"sha256": S, KIND: v}, indented for people. S is of the
// compact JSON of v.
func sealRecord(kind string, v any) (sealed []byte, digest string, err error) {
	compact, err := compactJSON(v)
	if err != nil {
		return nil, "", err
	}
	digest = sum(compact)
	outer := fmt.Appendf(nil, `{"sha256":%q,%q:%s}`, digest, kind, compact)
	var out bytes.Buffer
	if err := json.Indent(&out, outer, "", "  "); err != nil {
		return nil, "", err
	}
	out.WriteByte('\n')
	return out.Bytes(), digest, nil
}

// compactJSON is the one way to write v: what is read from it is written the
// same way.
func compactJSON(v any) ([]byte, error) {
	first, err := encodeJSON(v)
	if err != nil || !bytes.Contains(first, []byte(`\ufffd`)) {
		return first, err
	}
	// Text that is no UTF-8, such as a member's name may be, is written other
	// than what it is read as.
	again := reflect.New(reflect.Indirect(reflect.ValueOf(v)).Type())
	if err := json.Unmarshal(first, again.Interface()); err != nil {
		return nil, err
	}
	return encodeJSON(again.Interface())
}

func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// openRecord reads what sealRecord wrote into v and returns its digest. Bytes
// that sealRecord would not have written are a [*DamageError]; a newer format
// is a [*FormatError], whatever else the record holds.
func openRecord(key, kind string, sealed []byte, v any) (digest string, err error) {
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(sealed, &outer); err != nil {
		return "", &DamageError{Key: key, What: "not a record", Cause: err}
	}
	inner, ok := outer[kind]
	if !ok {
		return "", &DamageError{Key: key, What: "not a record", Cause: fmt.Errorf("no %q in it", kind)}
	}
	if digest, err = checkSeal(key, inner, outer["sha256"]); err != nil {
		return "", err
	}
	if err := checkFormat(key, inner); err != nil {
		return "", err
	}
	if err := decodeStrictly(inner, v); err != nil {
		return "", &DamageError{Key: key, What: "not a " + kind + " of format 1", Cause: err}
	}
	again, _, err := sealRecord(kind, v)
	if err != nil {
		return "", &DamageError{Key: key, What: "not a record", Cause: err}
	}
	if !bytes.Equal(again, sealed) {
		return "", &DamageError{Key: key, What: "bytes", Cause: firstDifference(sealed, again)}
	}
	return digest, nil
}

func checkSeal(key string, inner, sealedSum json.RawMessage) (string, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, inner); err != nil {
		return "", &DamageError{Key: key, What: "not a record", Cause: err}
	}
	var want string
	if err := json.Unmarshal(sealedSum, &want); err != nil {
		return "", &DamageError{Key: key, What: "no SHA-256 in it", Cause: err}
	}
	found := sum(compact.Bytes())
	if found != want {
		return "", &DamageError{Key: key, What: "SHA-256 of its content", Found: found, Want: want}
	}
	return found, nil
}

func checkFormat(key string, inner json.RawMessage) error {
	var head struct {
		Format   int      `json:"format"`
		Requires []string `json:"requires"`
	}
	if err := json.Unmarshal(inner, &head); err != nil {
		return &DamageError{Key: key, What: "no format number in it", Cause: err}
	}
	if head.Format > Format || len(head.Requires) > 0 {
		return &FormatError{Key: key, Format: head.Format, Features: head.Requires}
	}
	return nil
}

func decodeStrictly(inner json.RawMessage, v any) error {
	dec := json.NewDecoder(bytes.NewReader(inner))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// firstDifference tells where the bytes of a record leave what they should be.
func firstDifference(found, want []byte) error {
	for i := range min(len(found), len(want)) {
		if found[i] != want[i] {
			return fmt.Errorf("offset %d: %q, want %q", i, found[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes, want %d", len(found), len(want))
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// putRecord seals v and puts it create-only. A record that is there already is
// a success if it has the same bytes, since the answer to an earlier try may
// have been lost, and else fails with [storage.ErrExist].
func putRecord(ctx context.Context, s storage.Store, key, kind string, v any) error {
	sealed, _, err := sealRecord(kind, v)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return putSealed(ctx, s, key, sealed)
}

func putSealed(ctx context.Context, s storage.Store, key string, sealed []byte) error {
	_, err := s.Put(ctx, key, bytes.NewReader(sealed), storage.PutOptions{CreateOnly: true})
	if !errors.Is(err, storage.ErrExist) {
		return err
	}
	if sameBytes(ctx, s, key, sealed) {
		return nil
	}
	return err
}

// sameBytes tells whether the object at key is readable and holds exactly data.
func sameBytes(ctx context.Context, s storage.Store, key string, data []byte) bool {
	there, err := readAll(ctx, s, key)
	return err == nil && bytes.Equal(there, data)
}

// getRecord reads the record at key into v and returns its digest.
func getRecord(ctx context.Context, s storage.Store, key, kind string, v any) (digest string, err error) {
	sealed, err := readAll(ctx, s, key)
	if err != nil {
		return "", err
	}
	return openRecord(key, kind, sealed, v)
}

// readAll reads a small object whole.
func readAll(ctx context.Context, s storage.Store, key string) ([]byte, error) {
	rc, err := s.Get(ctx, key, storage.Range{})
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxRecord+1))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	if len(data) > maxRecord {
		return nil, &DamageError{Key: key, What: fmt.Sprintf("more than %d bytes, too many for a record", maxRecord)}
	}
	return data, nil
}

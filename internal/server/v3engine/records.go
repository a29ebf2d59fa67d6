package v3engine

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// compareRecords makes sure that a booted copy holds what its source does: up
// to the source's revision it has no record that the source lacks, and above
// what it has compacted none is gone. It returns how many were compared.
func compareRecords(source, booted *snapcodec.DB, revision, compacted int64) (int64, []error, error) {
	w := walk{revision: revision, compacted: compacted}
	next, stop := iter.Pull2(records(source))
	defer stop()
	want, err, more := next()
	for got, gotErr := range records(booted) {
		if gotErr != nil {
			return w.compared, w.problems, gotErr
		}
		if got.Revision.Main > revision {
			break
		}
		for ; more && err == nil && want.Revision.Less(got.Revision); want, err, more = next() {
			w.lacks(want)
		}
		if err != nil {
			return w.compared, w.problems, err
		}
		w.pair(want, got, more)
		if more && want.Revision == got.Revision {
			want, err, more = next()
		}
	}
	for ; more && err == nil; want, err, more = next() {
		w.lacks(want)
	}
	return w.compared, w.problems, err
}

// walk notes what differs.
type walk struct {
	revision, compacted int64
	compared            int64
	problems            []error
}

func (w *walk) problem(format string, args ...any) {
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, fmt.Errorf(format, args...))
	}
}

// lacks is for a record of the source that the copy does not have.
func (w *walk) lacks(r *snapcodec.KeyRecord) {
	if r.Revision.Main > w.compacted {
		w.problem("revision %s is not in the booted copy", r.Revision)
	}
}

func (w *walk) pair(want, got *snapcodec.KeyRecord, more bool) {
	switch {
	case !more || want.Revision != got.Revision:
		w.problem("revision %s is in the booted copy, and not in the source", got.Revision)
	case want.Tombstone != got.Tombstone || !bytes.Equal(want.Raw, got.Raw):
		w.problem("revision %s differs in the booted copy", got.Revision)
	default:
		w.compared++
	}
}

// records are the changes of the keyspace. Each is valid until the next.
func records(db *snapcodec.DB) iter.Seq2[*snapcodec.KeyRecord, error] {
	return func(yield func(*snapcodec.KeyRecord, error) bool) {
		err := db.Keys(snapcodec.Revision{}, func(r *snapcodec.KeyRecord) error {
			if !yield(r, nil) {
				return errEnough
			}
			return nil
		})
		if err != nil && err != errEnough {
			yield(nil, err)
		}
	}
}

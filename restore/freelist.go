package restore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/etcd-lifeboat/lifeboat/snapcodec"
)

// Offsets and values in a backend. Source: bbolt internal/common/{meta,page}.go, 1.5.
const (
	pageHeader    = 16 // id u64, flags u16, count u16, overflow u32
	pageFlags     = 8
	flagMeta      = 4
	flagFreelist  = 16
	metaSize      = 64 // after the page header
	metaFreelist  = 32
	metaPages     = 40
	metaTxID      = 48
	metaChecksum  = 56
	noFreelist    = 1<<64 - 1
	metaPageCount = 2
)

// readWriterAt is the copy, while its backend is closed.
type readWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// addFreelist gives a backend without a stored list of free pages an empty one,
// by one more transaction. etcd stores none; to open the file for writing,
// bbolt would go over all its pages to find those that are free. An edit of a
// few entries can do without them, and etcd finds them again at its start,
// since the edit stores no list either.
func addFreelist(f readWriterAt, db *snapcodec.DB) error {
	meta, err := currentMeta(f, db)
	if err != nil || binary.LittleEndian.Uint64(meta[metaFreelist:]) != noFreelist {
		return err
	}
	le := binary.LittleEndian
	list, txid := le.Uint64(meta[metaPages:]), le.Uint64(meta[metaTxID:])+1
	le.PutUint64(meta[metaFreelist:], list)
	le.PutUint64(meta[metaPages:], list+1)
	le.PutUint64(meta[metaTxID:], txid)
	h := fnv.New64a()
	h.Write(meta[:metaChecksum])
	le.PutUint64(meta[metaChecksum:], h.Sum64())
	if err := writePage(f, db, list, flagFreelist, nil); err != nil {
		return err
	}
	return writePage(f, db, txid%metaPageCount, flagMeta, meta)
}

// currentMeta reads the meta that db goes by.
func currentMeta(f io.ReaderAt, db *snapcodec.DB) ([]byte, error) {
	for page := range int64(metaPageCount) {
		meta := make([]byte, metaSize)
		if _, err := f.ReadAt(meta, page*db.PageSize()+pageHeader); err != nil {
			return nil, fmt.Errorf("read meta page: %w", err)
		}
		if binary.LittleEndian.Uint64(meta[metaTxID:]) == db.TxID() {
			return meta, nil
		}
	}
	return nil, errors.New("read meta page: the copy has other pages than its source")
}

// writePage writes the whole of a page without overflow.
func writePage(f io.WriterAt, db *snapcodec.DB, id uint64, flags uint16, body []byte) error {
	page := make([]byte, db.PageSize())
	binary.LittleEndian.PutUint64(page, id)
	binary.LittleEndian.PutUint16(page[pageFlags:], flags)
	copy(page[pageHeader:], body)
	_, err := f.WriteAt(page, int64(id)*db.PageSize())
	return err
}

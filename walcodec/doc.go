// Package walcodec reads, checks, writes and rewrites etcd write-ahead logs of
// every etcd from 2.0 on.
//
// Start with [NewReader] for one segment, [OpenLog] for a folder of them,
// [Verify] to check a whole log on all cores. Every record that a Reader
// returns has passed its checksum, its framing and a check of its payload's
// shape.
//
// A segment is a run of frames, integers little-endian:
//
//	 0        8                             8+n          8+n+pad
//	+--------+------------------------------+------------+
//	| length | record: kind, crc, data      | zeros      |
//	+--------+------------------------------+------------+
//
//	length, etcd 2.0 to 2.3    bits 0-63: n; no padding
//	length, etcd 3.0 and later bits 0-55: n; bits 56-63: 0 when n is a
//	                           multiple of 8, else 0x80 | pad
//	record                     protobuf: 1 kind, 2 crc, 3 data
//
// The crc is one CRC-32C rolling over the data bytes of every record since the
// log began. Each segment opens with a crc record that carries the value over
// from the segment before.
//
// Promises:
//   - Next allocates nothing: records are decoded in place.
//   - Memory stays flat whatever the log's size: one buffer of 256 KiB, grown
//     only by a larger record, only as its bytes arrive, and never beyond the
//     limit in [ReaderOptions].
//   - A log ends in one of three ways that stay distinct: io.EOF, [ErrTorn]
//     (the last write was cut short), [*CorruptError].
//   - Nothing is written, locked or opened by path: files come from an [io/fs.FS].
//
// docs/formats/wal.md describes the format with a worked example, and lists
// what it cannot tell.
package walcodec

// Package snapcodec reads and writes etcd's snapshots: the raft snapshot files
// (TERM-INDEX.snap) with the v2 key tree inside, and the v3 backend (the bbolt
// file member/snap/db, and the files that "snapshot save" makes of it).
//
// # Raft snapshots
//
//	byte   field
//	0      0x08 crc      varint: CRC-32C of data
//	       0x12 len data raftpb.Snapshot:
//	              0x0a len data      the v2 store as JSON; can be hundreds of MB
//	              0x12 len metadata  0x0a len conf_state, 0x10 index, 0x18 term
//
// Start with [OpenSnap]: it reads the envelope and the metadata, a few hundred
// bytes whatever the file's size. [Snap.Walk] visits the nodes of the key tree
// in one pass and checks the checksum on the way, [Snap.Membership] reads only
// the members, [RewriteSnap] writes a copy with another membership or version,
// and [WriteMembershipSnap] makes a snapshot from nothing.
//
// # The v3 backend
//
// Start with [OpenDB] for a file, with [NewInspector] for an image that streams
// by and is not kept, with [CopyLive] for a file that an etcd is writing.
//
// # Promises
//
// Everything is read through an io.ReaderAt or in a stream: memory stays flat,
// nothing is opened, locked, mapped or written. Damage is a [*CorruptError]
// with file, offset and cause, never a panic. Bytes that an edit does not touch
// are copied as they are.
package snapcodec

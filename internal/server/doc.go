// Package server boots an etcd data dir and serves it.
//
// Start with [Open], then [Server.Serve] on a listener and [Server.Close].
// What the dir holds picks the engine; the v2 engine is the one there is. It
// boots the data dir of any etcd from 2.0 to 3.5 and serves over HTTP what
// etcd did with its v2 API on: /v2/keys, /v2/members, /v2/machines, /v2/stats,
// /v2/auth, /version, /health, /metrics.
//
// # Promises
//
// A write is answered after it was synced to the log: SIGKILL loses nothing
// that was acknowledged. Log and snapshots are written by etcd's own packages,
// and etcd 3.4 boots what this server wrote.
//
// The server is a cluster of one. A dir that belonged to several members is
// taken over as etcd --force-new-cluster does it: entries that were not
// committed are dropped, the other members are removed, ids stay.
//
// A damaged log is refused by file and offset. A torn last write is cut off
// after a copy of its segment was kept beside it as .broken.
//
// v3 entries are kept in the log and not applied. As long as the log holds v3
// entries that the v3 backend has not seen, no snapshot is taken: etcd would
// start from it and never apply them. Any other snapshot is preceded by
// raising the backend's consistent index, without which etcd 3 refuses to boot
// from a snapshot. Segments and snapshots are never purged.
//
// With [Options.ReadOnly] nothing in the dir is written, locked or created;
// with [Options.Clone] a throw-away copy is served.
//
// # What it writes at a boot
//
// A dir opened for writing gets, through the log: the conf changes that make
// it stand alone, raft's empty entry, and once it is served its member's name
// and client URLs, as with etcd; for a dir of 2.x also the cluster version
// 3.0.0, since etcd 2 can't read the log any more from here on (etcd from 3.4.32
// on raises the version within 3.x only). The layout of 2.0.0 and 2.0.1 is moved
// under member/, and a dir of 2.x that has a snapshot gets an empty backend that
// saw it.
//
// # Differences from etcd
//
// A member that is added is in the list and in the log, and no more: etcd would
// lose its quorum until the member comes, this server goes on alone. The next
// boot removes it again.
//
// A PUT on /v2/keys/0/members/ID/attributes sets a key; etcd takes it for a
// member's and panics. /debug/vars and /config/local/log are not there, CORS
// headers only if asked for.
package server

// Package forensic looks into etcd's files after an accident: it lists,
// checks and prints write-ahead logs and snapshots, damaged ones too.
//
// Start with [OpenLog], then [Log.Survey] to learn what a log holds and where
// it is damaged, and [Dump] to print its records. [ListSnaps], [DumpTree] and
// [OpenTree] do the same for snapshots.
//
// Promises: files are only read, never locked; a member may be running on
// them. Damage is told with file, offset and cause, and read past only when
// asked. Memory stays flat whatever the log's size.
package forensic

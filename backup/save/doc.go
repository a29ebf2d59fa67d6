// Package save puts backups into a repository.
//
// Start with [Live], which takes a snapshot from a running member over gRPC,
// or [Files], which takes a member's own files, of any etcd from 2.3 on and
// whether it runs, is stopped or dead. Both stream: nothing is held in memory,
// and nothing goes to a local disk but the backend of a running member.
//
// Nothing is written to the source, and what is stored is what lay there, byte
// for byte: no id is changed, no record left out but a torn last one.
package save

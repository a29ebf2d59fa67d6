// Package datadir tells what a folder of etcd's files is.
//
// [Find] says where the files are, [Inspect] what they hold: ids, versions,
// the newest snapshot that the log covers, what is missing. It only reads:
// no lock is taken and nothing is written.
package datadir

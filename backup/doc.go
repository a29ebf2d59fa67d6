// Package backup copies what a member has into a folder that etcd boots.
//
// Start with [NewPlan], which decides what to write and changes nothing, then
// [Plan.Apply], which writes it: whole, or nothing. Node and cluster id are
// rewritten; entries, terms and indexes are kept as they are.
package backup

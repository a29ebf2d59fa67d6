// Package backup copies what a member has into a folder that etcd boots.
//
// Start with [Prepare], which decides what to write, then [Plan.Apply], which
// writes it: whole, or nothing. [NewPlan] only decides. Node and cluster id are
// rewritten; entries, terms and indexes are kept as they are.
//
// The member may be running: its backend is copied as of one of its commits,
// and the log reaches at least as far.
package backup

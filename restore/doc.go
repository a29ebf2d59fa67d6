// Package restore makes data dirs for the members of a new cluster.
//
// Start with [Open] for what is to be restored, [NewCluster] for the members it
// is restored to, then [NewPlan], which decides what to write and changes
// nothing, and [Plan.Apply], which writes it: all dirs whole, or none.
//
// Ids follow from peer URLs and token as in etcdutl, so that dirs made by both
// form one cluster. The source is only read.
package restore

// Package etcdctl2 is etcdctl's v2 client: the commands of etcdctl 2.3 with
// their flags, output, messages and exit codes, for servers that speak the
// v2 API.
//
// Start with [New]. Where etcdctl 2.3 and 3.4 (run with ETCDCTL_API=2) part
// ways, it does as 3.4; docs/v2.md lists where it differs from both.
package etcdctl2

//go:build e2e

// Package e2e proves Lifeboat against real etcds: what it writes, they boot.
//
// Run build.sh once, then `go test -tags e2e ./e2e`. Every etcd that a test
// starts listens on loopback ports of the kernel's choice and ends with the
// test. A missing binary fails the test when CI is set and skips it otherwise.
package e2e

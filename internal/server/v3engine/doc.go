// Package v3engine boots data dirs with v3 data, and proves that they boot.
//
// Start with [OfDir] or [OfFile] for a proof, [Clone] and [Start] for a server. The server is etcd itself: the 3.7 that is built in, or any etcd from
// 3.4 on that is installed.
//
// # Promises
//
// etcd runs as a process of its own, the built-in one too: on a damaged dir it
// panics in goroutines that nobody can recover from. The process sees none of
// the caller's environment and ends when the caller does.
//
// The source is only read. What is booted is a copy, given what the booting
// release needs, under new ids; a verification removes it again. Until a
// listening address is asked for, the server answers on a socket in a folder
// that only this user can enter: a copy of the keys is as secret as the keys.
package v3engine

// Package live takes snapshots from running members over gRPC.
//
// Start with [Pick], which looks at the endpoints and says which one to take
// the snapshot from and why, then [Save], which streams it and checks its
// SHA-256. A stream that stands still ends by itself; one that moves may take
// as long as it needs.
package live

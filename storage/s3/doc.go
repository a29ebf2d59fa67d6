// Package s3 keeps objects in a bucket of Amazon S3 or of a server that speaks
// its protocol.
//
// Start with [Open].
package s3

// Package s3 keeps objects in a bucket of Amazon S3 or of a server that speaks
// its protocol.
//
// Start with [Open]. Keys to the bucket come from the SDK's own chain:
// environment, shared config and credentials files, web identity, SSO,
// container and instance metadata.
//
// # Memory
//
// A body that fits one part is sent in one request, a longer one as a multipart
// upload. A Get of more than two parts fetches parts ahead, side by side. All
// Puts and Gets of a [Store] share its part buffers: Options.PartSize times one
// more than Options.Concurrency, 24 MiB by default. One of them is left to Puts;
// a Get that finds none free reads on over one connection.
//
// # Create-only
//
// A create-only Put sends If-None-Match: * with PutObject or
// CompleteMultipartUpload. Amazon honours it. Any other server is asked once a
// store, with a tiny object named .lifeboat-probe-… that is removed at once, if
// the keys may.
// Where the condition is ignored or refused, Put looks first, writes, waits a
// second, and looks whether what is there is its own. That is weaker: if two
// write within this second, the last one wins and the others get
// [storage.ErrExist]; a writer that takes longer than that between its look and
// its write can still take the place of one that was told it had won.
//
// Each object carries a random token in its metadata, by which a Put whose
// answer was lost on the way recognises its own work.
//
// # Checksums
//
// A CRC-32C goes with each request that has a body, and one of the whole object
// with the end of a multipart upload; the server compares them. What Get reads
// as a whole, over however many connections, is compared with the checksum that
// the server keeps. For a server that knows none set
// AWS_REQUEST_CHECKSUM_CALCULATION=when_required, which is the SDK's own
// variable.
//
// # Versions and locks
//
// In a bucket with versions, Delete and overwriting leave the old version
// behind; only a lifecycle rule for noncurrent versions frees its space. Object
// lock protects versions, so Delete looks for a lock first, and refuses with
// [storage.ErrRetained] instead of hiding the object behind a delete marker.
//
// # Permissions
//
// s3:ListBucket and s3:ListBucketMultipartUploads on the bucket; s3:GetObject,
// s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on its objects;
// with object lock also s3:GetObjectRetention and s3:PutObjectRetention; with a
// KMS key kms:GenerateDataKey and kms:Decrypt.
package s3

// Package atomicfile makes directories that appear whole or not at all.
//
// Start with [CreateDir]: it opens a staging directory beside the target,
// and [Dir.Commit] makes everything in it durable and gives it its final name.
// A process that dies before that leaves a staging directory behind, which
// the next [CreateDir] for the same target removes. Every operation goes
// through a [System], which tests make fail.
package atomicfile

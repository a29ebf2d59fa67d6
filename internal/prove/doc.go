// Package prove verifies data dirs and backups: that their bytes are what was
// written, that they make sense together, and that they boot.
//
// Start with [Verify]. The report says what each check found and how long it
// took; a check that could not run has not passed.
//
// What must be there after a boot is computed apart from the server that boots
// it: the key tree of the newest snapshot as [snapcodec] reads it, and the
// log's requests carried out on a key tree of this package's own.
//
// Nothing is written, locked or opened for writing in what is verified. To
// boot it, it is copied to a temporary dir, which is removed.
package prove

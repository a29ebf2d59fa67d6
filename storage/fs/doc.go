// Package fs keeps objects as files in a directory.
//
// Start with [Open], or with [Create] for a directory that may not be there
// yet. An object is a file of mode 0600 under its key; the folders of a key are
// directories of mode 0700 that come with the first object below them and go
// with the last.
//
// A Put writes a temporary file beside the object, makes it durable and gives
// it its name: by a hard link where that must not be taken, else by a rename.
// On file systems without hard links (FAT, some network and FUSE mounts) an
// exclusive rename takes the link's place; where there is neither, a create-only
// Put is refused, because nothing there would keep two writers apart. The
// temporary file, KEY~lifeboat-RANDOM, is held locked (flock) as long as its
// writer lives; no key has a "~". [Store.Sweep] removes those that nobody holds.
//
// The store stays with the directory that it opened: once a file system is
// mounted over it, or it is renamed, the files still go to the first one, and a
// file system can't be unmounted while a store is open on it. Symbolic links in
// it are not followed, but told of as an error. A file system that ignores case
// ignores that of keys.
package fs

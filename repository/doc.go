// Package repository keeps backups in a store: sealed, proven, found again.
//
// Start with [Init] or [Open]. To write a backup: [Repository.Begin],
// [Draft.Put] for each part, [Draft.Commit]. To read one: [Repository.Find],
// then [Repository.Load] or [Backup.Open].
//
// A backup is there from the moment that its manifest is: the manifest is put
// last, create-only, and never changed. What a save leaves that died is not
// listed as a backup. Every object carries the digests by which a changed byte
// anywhere is found; what can't be read is reported by name, never left out.
//
//	lifeboat.json                              what this place is
//	clusters/NAME/backups/ID/manifest.json     facts, parts, digests
//	clusters/NAME/backups/ID/db.zst[.age]      a part, and so on for each
//	clusters/NAME/backups/ID/proofs/TIME.json  one for each verification
//	clusters/NAME/backups/ID/hold.json         not pruned while it is there
//	clusters/NAME/backups/ID/pruned/TIME.json  a removal is under way
//
// No Lifeboat is needed to read a backup. A part is decrypted with age, where
// it is encrypted, and decompressed with zstd; the manifest says which file it
// is, with the SHA-256 before and after. A record's own is of its content as
// compact JSON:
//
//	age -d -i key.txt db.zst.age | zstd -d > db
//	jq -cj .manifest manifest.json | sha256sum
package repository

package forensic

import "fmt"

// DamageKind says in which way a log is damaged.
type DamageKind string

// The kinds of damage.
const (
	DamageCorrupt DamageKind = "corrupt" // bytes that are no sound record
	DamageTorn    DamageKind = "torn"    // the last write was cut short: no loss of what etcd had promised
	DamageMissing DamageKind = "missing" // a segment is not there
	DamageChain   DamageKind = "chain"   // a segment does not continue the one before: another checksum or metadata
	DamageGap     DamageKind = "gap"     // entries are missing between two sound records
	DamageCommit  DamageKind = "commit"  // the log ends before its commit index
)

// Damage is one thing that is wrong with a log, and where. It is an error.
type Damage struct {
	Kind    DamageKind
	Segment string // file name
	Offset  int64  // in the segment, bytes
	Len     int64  // bytes that could not be read; 0 where none were left out
	Cause   error

	// The entries that are lost with it, as far as the indexes around it tell.
	// Both are 0 when none are known to be.
	LostFirst, LostLast uint64

	seg int // position of the segment in its log
}

// Error names segment, offset and cause.
func (d *Damage) Error() string {
	text := fmt.Sprintf("segment %s: offset %d: ", d.Segment, d.Offset)
	if d.Kind == DamageTorn {
		return text + "torn write: " + d.Cause.Error()
	}
	text += d.Cause.Error()
	if d.Len > 0 {
		text += fmt.Sprintf(" (%d bytes unreadable, up to offset %d)", d.Len, d.Offset+d.Len)
	}
	if d.LostFirst != 0 {
		text += "; " + lost(d.LostFirst, d.LostLast)
	}
	return text
}

// Unwrap returns the cause.
func (d *Damage) Unwrap() error { return d.Cause }

// stops tells whether a reader in order can't go on without leaving something
// out.
func (d *Damage) stops() bool {
	return d.Kind != DamageTorn && d.Kind != DamageCommit
}

func lost(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("entry %d is lost", first)
	}
	return fmt.Sprintf("entries %d to %d are lost", first, last)
}

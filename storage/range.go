package storage

import "fmt"

// Within returns where r begins in an object of that many bytes, and how many
// of them it covers.
func (r Range) Within(size int64) (offset, length int64, err error) {
	if r.Offset < 0 || r.Length < 0 {
		return 0, 0, fmt.Errorf("range of %d bytes at %d: it can't be negative", r.Length, r.Offset)
	}
	offset = min(r.Offset, size)
	length = size - offset
	if r.Length > 0 {
		length = min(length, r.Length)
	}
	return offset, length, nil
}

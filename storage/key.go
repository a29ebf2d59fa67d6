package storage

import (
	"errors"
	"fmt"
	"strings"
)

// What a key may be: S3 ends at 1024 bytes, of which a prefix takes some, and
// file systems at 255 for a name, of which temporary files take some.
const (
	maxKey  = 800 // bytes
	maxPart = 200 // bytes
)

// CheckKey says what is wrong with a key. Every store refuses one that does not
// pass.
func CheckKey(key string) error {
	if err := checkParts(key); err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	return nil
}

// CheckPrefix says why no key can begin with prefix. Its last part may be empty
// or cut short.
func CheckPrefix(prefix string) error {
	folder, last := "", prefix
	if at := strings.LastIndexByte(prefix, '/'); at >= 0 {
		folder, last = prefix[:at], prefix[at+1:]
		if err := checkParts(folder); err != nil {
			return fmt.Errorf("prefix %q: %w", prefix, err)
		}
	}
	if err := checkBytes(last); err != nil {
		return fmt.Errorf("prefix %q: %w", prefix, err)
	}
	return nil
}

func checkParts(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("it has %d bytes, more than %d", len(key), maxKey)
	}
	for part := range strings.SplitSeq(key, "/") {
		switch part {
		case "":
			return errors.New("a part of it is empty")
		case ".", "..":
			return fmt.Errorf("%q can't be a part of it", part)
		}
		if err := checkBytes(part); err != nil {
			return err
		}
	}
	return nil
}

func checkBytes(part string) error {
	if len(part) > maxPart {
		return fmt.Errorf("a part of it has %d bytes, more than %d", len(part), maxPart)
	}
	for i := range len(part) {
		if !allowed(part[i]) {
			return fmt.Errorf("the byte %q is not allowed", part[i])
		}
	}
	return nil
}

func allowed(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
		strings.IndexByte("._-+=@", c) >= 0
}

package repository

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

// idTime is the layout of the time in an id, UTC.
const idTime = "20060102T150405Z"

var idPattern = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[a-z0-9]{6}$`)

// idPrefixPattern matches what ids can begin with.
var idPrefixPattern = regexp.MustCompile(`^[0-9]{1,8}$|^[0-9]{8}T[0-9]{0,6}$|^[0-9]{8}T[0-9]{6}Z(-[a-z0-9]{0,6})?$`)

// newID returns an id with six random characters for a time.
func newID(t time.Time) string {
	return t.UTC().Format(idTime) + "-" + strings.ToLower(rand.Text()[:6])
}

// idBegan is the time in an id, or an error if it is no id.
func idBegan(id string) (time.Time, error) {
	if !idPattern.MatchString(id) {
		return time.Time{}, fmt.Errorf("id %q: want YYYYMMDDThhmmssZ-xxxxxx", id)
	}
	t, err := time.Parse(idTime, id[:len(idTime)])
	if err != nil {
		return time.Time{}, fmt.Errorf("id %q: %w", id, err)
	}
	return t, nil
}

const (
	maxClusterName = 100  // bytes
	maxLabelKey    = 63   // bytes
	maxLabelValue  = 255  // bytes
	maxPartName    = 1024 // bytes
)

// CheckCluster says what is wrong with the name of a cluster: it is letters,
// digits and "._-+=@", and no dot comes first.
func CheckCluster(name string) error {
	if err := checkClusterName(name); err != nil {
		return fmt.Errorf("cluster name %q: %w", name, err)
	}
	return nil
}

func checkClusterName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty")
	case strings.Contains(name, "/"):
		return errors.New(`it can't hold "/"`)
	case len(name) > maxClusterName:
		return fmt.Errorf("it has %d bytes, more than %d", len(name), maxClusterName)
	case name[0] == '.':
		return errors.New("it can't begin with a dot")
	}
	return storage.CheckKey(name)
}

var labelKeyPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)

// ParseLabels reads labels of the form key=value. A key is letters, digits and
// "._/-", a value is any text on one line.
func ParseLabels(texts []string) (map[string]string, error) {
	labels := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("label %q: want key=value", text)
		}
		if old, twice := labels[key]; twice && old != value {
			return nil, fmt.Errorf("label %s: both %q and %q", key, old, value)
		}
		labels[key] = value
	}
	return labels, checkLabels(labels)
}

func checkLabels(labels map[string]string) error {
	for key, value := range labels {
		switch {
		case !labelKeyPattern.MatchString(key), len(key) > maxLabelKey:
			return fmt.Errorf("label %q: a key is 1 to %d letters, digits and ._/-, and begins with one of the former", key, maxLabelKey)
		case len(value) > maxLabelValue:
			return fmt.Errorf("label %s: the value has %d bytes, more than %d", key, len(value), maxLabelValue)
		case !printable(value):
			return fmt.Errorf("label %s: the value %q is not text on one line", key, value)
		}
	}
	return nil
}

// printable tells whether s is text without control characters.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// checkPartName says what is wrong with a part's name: it has to be a path that
// stays below the folder where it is restored, on any system that we run on.
func checkPartName(name string) error {
	switch {
	case !filepath.IsLocal(name), path.Clean(name) != name, name == ".":
		return errors.New("it is no clean path below a folder")
	case len(name) > maxPartName:
		return fmt.Errorf("it has %d bytes, more than %d", len(name), maxPartName)
	case !printable(name):
		return errors.New("it holds control characters or is no UTF-8")
	}
	return nil
}

const maxObjectName = 100 // bytes, before what tells two alike apart

// objectName is what a part is stored as: fit for a key, and telling a person
// what it is. The manifest has the name in full.
func objectName(role Role, name string) string {
	if role == RoleDB {
		return "db"
	}
	base := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && storage.CheckPrefix(string(r)) == nil && r != '/' {
			return r
		}
		return '_'
	}, path.Base(name))
	return string(role) + "-" + base[:min(len(base), maxObjectName)]
}

// isPartObject tells whether a file name in a backup's folder is one that
// objectName leads to.
func isPartObject(name string) bool {
	return (strings.HasSuffix(name, sealedSuffix) || strings.HasSuffix(name, sealedSuffix+encryptedSuffix)) &&
		!strings.Contains(name, "/")
}

// What the names of stored parts end in.
const (
	sealedSuffix    = ".zst"
	encryptedSuffix = ".age"
)

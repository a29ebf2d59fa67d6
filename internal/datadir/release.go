package datadir

import (
	"fmt"
	"strings"
)

// Release is a minor release of etcd, such as 3.5. The zero value is unknown.
type Release struct{ Major, Minor int }

// The releases whose files differ.
var (
	R20 = Release{2, 0}
	R23 = Release{2, 3}
	R30 = Release{3, 0}
	R34 = Release{3, 4}
	R35 = Release{3, 5}
	R36 = Release{3, 6}
	R37 = Release{3, 7}
)

// Releases are those whose files Lifeboat knows, oldest first.
func Releases() []Release {
	var all []Release
	for minor := R20.Minor; minor <= R23.Minor; minor++ {
		all = append(all, Release{2, minor})
	}
	for minor := R30.Minor; minor <= R37.Minor; minor++ {
		all = append(all, Release{3, minor})
	}
	return all
}

// ParseRelease reads "3.5", "v3.5" or "3.5.33". A release that Lifeboat does
// not know is an error that names those it does.
func ParseRelease(text string) (Release, error) {
	var r Release
	var patch int
	trimmed := strings.TrimPrefix(strings.TrimSpace(text), "v")
	n, _ := fmt.Sscanf(trimmed, "%d.%d.%d", &r.Major, &r.Minor, &patch)
	if n >= 2 {
		for _, known := range Releases() {
			if r == known {
				return r, nil
			}
		}
	}
	return Release{}, fmt.Errorf("unknown etcd version %q: known are 2.0 to 2.3 and 3.0 to 3.7", text)
}

func (r Release) String() string {
	if r == (Release{}) {
		return "unknown"
	}
	return fmt.Sprintf("%d.%d", r.Major, r.Minor)
}

// Before tells whether r came before other.
func (r Release) Before(other Release) bool {
	return r.Major < other.Major || r.Major == other.Major && r.Minor < other.Minor
}

// Next is the release after r; 3.7's next is 3.7.
func (r Release) Next() Release {
	all := Releases()
	for i, known := range all[:len(all)-1] {
		if known == r {
			return all[i+1]
		}
	}
	return r
}

package repository

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

const (
	surveyKeys  = 1000 // keys that are looked at: the place may be anything
	surveyNames = 5    // names that are told
)

// surveyed is what lies in a place that is no repository.
type surveyed struct {
	names  []string // at the top
	more   bool     // names than those
	below  string   // a folder that is a repository
	inside bool     // it looks like the inside of one
	orphan bool     // it looks like one that lost its lifeboat.json
}

// survey looks at the first keys.
func survey(ctx context.Context, s storage.Store) (surveyed, error) {
	var found surveyed
	n := 0
	for o, err := range s.List(ctx, "") {
		if err != nil {
			return surveyed{}, err
		}
		found.add(o.Key)
		if n++; n == surveyKeys {
			break
		}
	}
	return found, nil
}

// insidePattern matches keys as they are seen from within a repository.
var insidePattern = regexp.MustCompile(`^([^/]+/)?([^/]+/)?[0-9]{8}T[0-9]{6}Z-[a-z0-9]{6}/`)

func (f *surveyed) add(key string) {
	top, rest, isFolder := strings.Cut(key, "/")
	if isFolder {
		top += "/"
	}
	switch {
	case slices.Contains(f.names, top):
	case len(f.names) < surveyNames:
		f.names = append(f.names, top)
	default:
		f.more = true
	}
	if folder, ok := strings.CutSuffix(key, "/"+repositoryKey); ok && f.below == "" {
		f.below = folder
	}
	f.orphan = f.orphan || top == clustersDir && insidePattern.MatchString(rest)
	f.inside = f.inside || top != clustersDir && insidePattern.MatchString(key) || key == manifestName
}

func (f surveyed) empty() bool { return len(f.names) == 0 }

// String says what lies there, and where the repository may be.
func (f surveyed) String() string {
	if f.empty() {
		return "nothing is there"
	}
	s := "what is there: " + strings.Join(f.names, ", ")
	if f.more {
		s += " and more"
	}
	switch {
	case f.below != "":
		s += fmt.Sprintf("; a repository lies in %s/", f.below)
	case f.orphan:
		s += "; it looks like a repository that lost its " + repositoryKey
	case f.inside:
		s += "; it looks like a folder within a repository: name the folder that holds " + repositoryKey
	}
	return s
}

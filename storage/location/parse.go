package location

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

// errCredentials is what a location with keys gets, without repeating them.
var errCredentials = errors.New("keys do not stand in it: they come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"AWS_PROFILE, ~/.aws or the machine's role, as with any AWS tool")

var schemeText = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+):`)

var bucketText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Parse reads a location. Its errors repeat nothing that may be a secret.
func Parse(text string) (Location, error) {
	l, err := parse(text)
	if err != nil {
		return Location{}, fmt.Errorf("location: %w", err)
	}
	return l, nil
}

func parse(text string) (Location, error) {
	place, query, _ := strings.Cut(text, "?")
	l, err := parsePlace(place)
	if err != nil {
		return Location{}, err
	}
	if err := l.setAll(query); err != nil {
		return Location{}, err
	}
	if l.S3 != nil {
		err = l.S3.Validate()
	}
	return l, err
}

func parsePlace(place string) (Location, error) {
	m := schemeText.FindStringSubmatch(place)
	if m == nil {
		return parsePath(place)
	}
	rest, isURL := strings.CutPrefix(place[len(m[0]):], "//")
	switch scheme := strings.ToLower(m[1]); {
	case scheme == "s3" && isURL:
		return parseBucket(rest)
	case scheme == "file" && isURL:
		return parseFile(rest)
	case scheme == "s3":
		return Location{}, errors.New("want s3://BUCKET/PREFIX, the server as ?endpoint=https://HOST:PORT")
	case scheme == "file":
		return Location{}, errors.New("want file:///PATH, or the path alone")
	default:
		return Location{}, fmt.Errorf("%s: is no kind of store: want a directory (./%s:… if that is its name), or s3://BUCKET/PREFIX", scheme, m[1])
	}
}

func parsePath(dir string) (Location, error) {
	switch {
	case dir == "":
		return Location{}, errors.New("it is empty: want a directory, or s3://BUCKET/PREFIX")
	case dir == "~" || strings.HasPrefix(dir, "~/"):
		return Location{}, fmt.Errorf("%s: the shell did not replace the ~: write the directory in full", dir)
	case schemeText.MatchString(dir):
		return Location{}, fmt.Errorf("%s: it looks like a URL", dir)
	}
	return Location{Dir: dir}, checkText(dir)
}

func parseFile(rest string) (Location, error) {
	dir, ok := strings.CutPrefix(rest, "localhost/")
	if ok {
		rest = "/" + dir
	}
	if !strings.HasPrefix(rest, "/") {
		return Location{}, errors.New("want file:///PATH in full, or a relative path alone")
	}
	dir, err := unescape(rest)
	return Location{Dir: dir}, err
}

func parseBucket(rest string) (Location, error) {
	bucket, prefix, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(bucket, "@"), strings.Contains(prefix, "@") && strings.Contains(bucket, ":"):
		return Location{}, errCredentials
	case strings.Contains(bucket, ":"):
		return Location{}, errors.New("a bucket has no port: want s3://BUCKET/PREFIX?endpoint=https://HOST:PORT")
	case bucket == "":
		return Location{}, errors.New("it names no bucket: want s3://BUCKET/PREFIX")
	case !bucketText.MatchString(bucket):
		return Location{}, errors.New("the name of a bucket has letters, digits and ._- only: want s3://BUCKET/PREFIX")
	}
	prefix, err := unescape(strings.Trim(prefix, "/"))
	if err != nil {
		return Location{}, err
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "." || part == ".." || part == "" && prefix != "" {
			return Location{}, fmt.Errorf("prefix %q: %q can't be a part of it", prefix, part)
		}
	}
	return Location{S3: &s3.Options{Bucket: bucket, Prefix: prefix}}, nil
}

func unescape(text string) (string, error) {
	if strings.Contains(text, "#") {
		return "", errors.New("a # in it must be written %23")
	}
	plain, err := url.PathUnescape(text)
	if err != nil {
		return "", errors.New("a % in it must be written %25")
	}
	return plain, checkText(plain)
}

func checkText(text string) error {
	if at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); at >= 0 {
		return fmt.Errorf("the character %q in it can't be meant", text[at])
	}
	return nil
}

// setAll sets the parameters of a query.
func (l *Location) setAll(query string) error {
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(rawName)
		value, valueErr := url.QueryUnescape(rawValue)
		if nameErr != nil || valueErr != nil {
			return errors.New("a % after the ? must be written %25")
		}
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		if err := l.set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (l *Location) set(name, value string) error {
	at := slices.IndexFunc(parameters, func(p parameter) bool { return p.name == name })
	switch {
	case at < 0:
		return l.unknown(name)
	case l.S3 == nil && !parameters[at].everywhere:
		return fmt.Errorf("%s is only for buckets, not for a directory", name)
	case value == "":
		return fmt.Errorf("%s has no value", name)
	}
	if err := errors.Join(checkText(value), parameters[at].set(l, value)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// credentialText finds names of parameters that other tools take keys by.
var credentialText = regexp.MustCompile(`(?i)access.?key|secret|token|passw|credential|profile`)

func (l *Location) unknown(name string) error {
	if credentialText.MatchString(name) {
		return errCredentials
	}
	var names []string
	for _, p := range parameters {
		if l.S3 != nil || p.everywhere {
			names = append(names, p.name)
		}
	}
	if near := Nearest(name, names); near != "" {
		return fmt.Errorf("%q is no parameter of it: did you mean %s?", name, near)
	}
	return fmt.Errorf("%q is no parameter of it: there are %s", name, strings.Join(names, ", "))
}

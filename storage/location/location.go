// Package location opens the store that a text names.
//
// Start with [Parse]. A text is one of
//
//	/backup/etcd                    a directory, or a relative path to one
//	file:///backup/etcd             the same as a URL, %-escaped
//	s3://BUCKET/PREFIX?region=…     a bucket
//
// with parameters after a "?", joined by "&" and %-escaped. All stores take
// limit-upload and limit-download, in bytes a second such as 10MiB. A bucket
// takes endpoint, region, path-style, ca-file, sse, kms-key, storage-class,
// object-lock and lock-days. A directory with a "?" in its name, or one that
// looks like a URL, is given as a file URL.
//
// Credentials are not part of a location: they come from where the AWS tools
// take them, and are refused here.
package location

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/etcd-lifeboat/lifeboat/storage"
	"github.com/etcd-lifeboat/lifeboat/storage/fs"
	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

// Location is where a store is.
type Location struct {
	Dir string      // a directory; empty if it is a bucket
	S3  *s3.Options // a bucket; nil if it is a directory

	LimitUpload   int64 // bytes a second; 0: none
	LimitDownload int64 // bytes a second; 0: none
}

// Options of [Location.Open]; the zero value wants a directory to be there.
type Options struct {
	Create bool // make a directory that is not there; a bucket is never made
}

// Open opens the store. A directory, or bucket, must be there.
func (l Location) Open(ctx context.Context, o Options) (storage.Store, error) {
	s, err := l.open(ctx, o)
	if err != nil {
		return nil, err
	}
	return storage.Limit(s, l.LimitUpload, l.LimitDownload), nil
}

func (l Location) open(ctx context.Context, o Options) (storage.Store, error) {
	switch {
	case l.S3 != nil:
		o := *l.S3
		o.OneStream = o.OneStream || l.LimitDownload > 0 // what is read ahead passes no limit
		return opened(s3.Open(ctx, o))
	case o.Create:
		return opened(fs.Create(l.Dir))
	}
	return opened(fs.Open(l.Dir))
}

// opened keeps a nil pointer from becoming a store.
func opened[S storage.Store](s S, err error) (storage.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// String is a text that [Parse] takes, without secrets.
func (l Location) String() string {
	if l.S3 == nil {
		return l.dirText()
	}
	u := url.URL{Scheme: "s3", Host: l.S3.Bucket, RawQuery: l.query().Encode()}
	if l.S3.Prefix != "" {
		u.Path = "/" + strings.Trim(l.S3.Prefix, "/")
	}
	return u.String()
}

func (l Location) dirText() string {
	query := l.query()
	if _, err := parsePath(l.Dir); len(query) == 0 && err == nil && !strings.Contains(l.Dir, "?") {
		return l.Dir
	}
	dir := l.Dir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	u := url.URL{Scheme: "file", Path: dir, RawQuery: query.Encode()}
	return u.String()
}

// query has the parameters that are set.
func (l Location) query() url.Values {
	query := url.Values{}
	for _, p := range parameters {
		if l.S3 == nil && !p.everywhere {
			continue
		}
		if text := p.text(&l); text != "" {
			query.Set(p.name, text)
		}
	}
	return query
}

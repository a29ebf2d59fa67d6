package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage/location"
	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

// Location is where the repository is.
func (r *RepositoryConfig) Location() (location.Location, error) {
	var l location.Location
	if r.S3 != nil {
		l.S3 = r.S3.options()
		if err := l.S3.Validate(); err != nil {
			return l, err
		}
		if _, err := location.Parse(l.String()); err != nil {
			return l, err
		}
	} else {
		var err error
		if l, err = location.Parse(r.URL); err != nil {
			return l, err
		}
	}
	if r.LimitUpload > 0 && l.LimitUpload > 0 || r.LimitDownload > 0 && l.LimitDownload > 0 {
		return l, errors.New("a limit stands both in the url and beside it")
	}
	l.LimitUpload += int64(r.LimitUpload)
	l.LimitDownload += int64(r.LimitDownload)
	return l, nil
}

func (s *S3Config) options() *s3.Options {
	return &s3.Options{
		Bucket: s.Bucket, Prefix: s.Prefix, Endpoint: s.Endpoint, Region: s.Region, PathStyle: s.PathStyle,
		CAFile: s.CAFile, SSE: string(s.SSE), KMSKey: s.KMSKey, StorageClass: s.StorageClass,
		ObjectLock: string(s.ObjectLock), LockFor: time.Duration(s.LockDays) * day,
	}
}

// location checks where a repository is.
func (c checker) location(path string, r *RepositoryConfig) {
	at, address := join(path, "url"), r.URL
	if r.S3 != nil {
		at, address = join(path, "s3"), r.S3.Endpoint
	}
	_, err := r.Location()
	switch {
	case err == nil:
	case strings.Contains(address, "@") || secretName.MatchString(address):
		c.hideValue(join(path, "url"))
		c.hideValue(join(path, "s3.endpoint"))
		c.add(at, "is wrong, or holds a secret: keys come from the environment, ~/.aws or the machine's role, as with any AWS tool")
	case r.S3 != nil && r.S3.LockDays > 0 && r.S3.ObjectLock == "":
		c.lockDays(at)
	default:
		message := strings.TrimPrefix(err.Error(), "location: ")
		c.add(at, "%s", strings.TrimPrefix(message, "s3: "))
	}
}

func (c checker) lockDays(path string) {
	if !c.told(join(path, "object-lock")) {
		c.add(join(path, "lock-days"), "needs object-lock")
	}
}

// isFolder tells whether a repository is known to be in a folder.
func (c checker) isFolder(name string) bool {
	r := c.Repositories[name]
	if r == nil {
		return false
	}
	l, err := r.Location()
	return err == nil && l.S3 == nil
}

// sameRepositories notes two names for one place.
func (c checker) sameRepositories() {
	names := map[string]string{}
	for name, r := range sorted(c.Repositories) {
		l, err := r.Location()
		if err != nil {
			continue
		}
		where := l.Dir
		if l.S3 != nil {
			where = fmt.Sprintf("%s %s/%s", l.S3.Endpoint, l.S3.Bucket, strings.Trim(l.S3.Prefix, "/"))
		}
		if other, ok := names[where]; ok {
			c.add(join("repositories", name), "is the same place as %s", other)
		}
		names[where] = name
	}
}

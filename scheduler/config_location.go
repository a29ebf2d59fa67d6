package scheduler

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-lifeboat/lifeboat/storage/s3"
)

// Location is where the repository is, with all that belongs to it, as --repo
// takes it.
func (r *RepositoryConfig) Location() string {
	limits := url.Values{}
	if r.LimitUpload > 0 {
		limits.Set("limit-upload", strconv.FormatInt(int64(r.LimitUpload), 10))
	}
	if r.LimitDownload > 0 {
		limits.Set("limit-download", strconv.FormatInt(int64(r.LimitDownload), 10))
	}
	if r.S3 != nil {
		return r.S3.location(limits)
	}
	return withQuery(r.URL, limits)
}

// withQuery adds parameters to a URL, or to a path, which then becomes one.
func withQuery(text string, add url.Values) string {
	if len(add) == 0 {
		return text
	}
	if !strings.Contains(text, "://") {
		return (&url.URL{Scheme: "file", Path: text, RawQuery: add.Encode()}).String()
	}
	if strings.Contains(text, "?") {
		return text + "&" + add.Encode()
	}
	return text + "?" + add.Encode()
}

func (s *S3Config) location(query url.Values) string {
	for key, value := range map[string]string{
		"endpoint": s.Endpoint, "region": s.Region, "ca-file": s.CAFile,
		"sse": string(s.SSE), "kms-key": s.KMSKey, "storage-class": s.StorageClass,
		"object-lock": string(s.ObjectLock),
	} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if s.PathStyle {
		query.Set("path-style", "true")
	}
	if s.LockDays > 0 {
		query.Set("lock-days", strconv.Itoa(s.LockDays))
	}
	u := url.URL{Scheme: "s3", Host: s.Bucket, Path: "/" + strings.Trim(s.Prefix, "/"), RawQuery: query.Encode()}
	return u.String()
}

func (s *S3Config) options() s3.Options {
	return s3.Options{
		Bucket: s.Bucket, Prefix: s.Prefix, Endpoint: s.Endpoint, Region: s.Region, PathStyle: s.PathStyle,
		CAFile: s.CAFile, SSE: string(s.SSE), KMSKey: s.KMSKey, StorageClass: s.StorageClass,
		ObjectLock: string(s.ObjectLock), LockFor: time.Duration(s.LockDays) * day,
	}
}

func (c checker) repositoryURL(path string, r *RepositoryConfig) {
	scheme, rest, ok := strings.Cut(r.URL, "://")
	if !ok {
		return
	}
	u, err := url.Parse(r.URL)
	switch {
	case strings.Contains(rest, "@"):
		c.hideValue(path)
		c.add(path, "keys do not stand in the URL: they come from the environment, ~/.aws or the machine's role, as with any AWS tool")
	case scheme != "file" && scheme != "s3":
		c.add(path, "scheme %q: want a folder, or s3://BUCKET/PREFIX%s", scheme, didYouMean(scheme, []string{"file", "s3"}))
	case err != nil:
		c.add(path, "is no URL")
	case scheme == "file" && !strings.HasPrefix(rest, "/"):
		c.add(path, "want file:/// and the path in full, or a folder without file://")
	case scheme == "s3" && u.Host == "":
		c.add(path, "names no bucket: want s3://BUCKET/PREFIX")
	}
	for key, limit := range map[string]Size{"limit-upload": r.LimitUpload, "limit-download": r.LimitDownload} {
		if err == nil && limit > 0 && u.Query().Has(key) {
			c.add(join(parent(path), key), "is there in the url too")
		}
	}
}

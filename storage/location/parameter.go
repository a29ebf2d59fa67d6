package location

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// parameter is one that a location can have.
type parameter struct {
	name       string
	everywhere bool // not only for buckets
	set        func(l *Location, value string) error
	text       func(l *Location) string // "" if it is not set
}

// parameters in the order that they are told in.
var parameters = []parameter{
	s3Text("endpoint", func(l *Location) *string { return &l.S3.Endpoint }).hiding(redactURL),
	s3Text("region", func(l *Location) *string { return &l.S3.Region }),
	{name: "path-style", set: setPathStyle, text: pathStyle},
	s3Text("ca-file", func(l *Location) *string { return &l.S3.CAFile }),
	s3Text("sse", func(l *Location) *string { return &l.S3.SSE }),
	s3Text("kms-key", func(l *Location) *string { return &l.S3.KMSKey }),
	s3Text("storage-class", func(l *Location) *string { return &l.S3.StorageClass }),
	s3Text("object-lock", func(l *Location) *string { return &l.S3.ObjectLock }),
	{name: "lock-days", set: setLockDays, text: lockDays},
	limit("limit-upload", func(l *Location) *int64 { return &l.LimitUpload }),
	limit("limit-download", func(l *Location) *int64 { return &l.LimitDownload }),
}

func s3Text(name string, field func(*Location) *string) parameter {
	return parameter{
		name: name,
		set:  func(l *Location, value string) error { *field(l) = value; return nil },
		text: func(l *Location) string { return *field(l) },
	}
}

// hiding is a parameter whose text may hold secrets.
func (p parameter) hiding(redact func(string) string) parameter {
	text := p.text
	p.text = func(l *Location) string { return redact(text(l)) }
	return p
}

// redactURL leaves out who a URL is called as.
func redactURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "***"
	case u.User == nil:
		return text
	}
	u.User = nil
	return u.String()
}

func setPathStyle(l *Location, value string) error {
	switch value {
	case "true":
		l.S3.PathStyle = true
	case "false":
		l.S3.PathStyle = false
	default:
		return fmt.Errorf("%q: want true or false", value)
	}
	return nil
}

func pathStyle(l *Location) string {
	if l.S3.PathStyle {
		return "true"
	}
	return ""
}

const (
	day         = 24 * time.Hour
	maxLockDays = 36500 // as S3 has it
)

func setLockDays(l *Location, value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxLockDays {
		return fmt.Errorf("%q: want a number of days, 1 to %d", value, maxLockDays)
	}
	l.S3.LockFor = time.Duration(n) * day
	return nil
}

func lockDays(l *Location) string {
	if l.S3.LockFor == 0 {
		return ""
	}
	return strconv.Itoa(int((l.S3.LockFor + day - 1) / day))
}

func limit(name string, field func(*Location) *int64) parameter {
	return parameter{
		name:       name,
		everywhere: true,
		set: func(l *Location, value string) (err error) {
			*field(l), err = ParseSize(strings.TrimSuffix(value, "/s"))
			return err
		},
		text: func(l *Location) string { return sizeString(*field(l)) },
	}
}

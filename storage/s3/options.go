package s3

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Server-side encryptions that Options.SSE takes.
const (
	SSES3  = "AES256"
	SSEKMS = "aws:kms"
)

// Object lock modes that Options.ObjectLock takes.
const (
	Governance = "governance"
	Compliance = "compliance"
)

const (
	defaultPartSize    = 6 << 20 // bytes
	minPartSize        = 5 << 20 // bytes; S3 refuses smaller parts, but for the last
	maxPartSize        = 5 << 30 // bytes
	defaultConcurrency = 3
	maxParts           = 10_000 // of one object
)

// Options of a store. Bucket is required; the zero value of all else works.
type Options struct {
	Bucket string
	Prefix string // what all keys of the store stand below, with or without a slash at its end

	Endpoint  string // URL of the server; "": Amazon's for the region, or what the SDK's environment says
	Region    string // "": what the SDK's environment and profile say, or else us-east-1
	PathStyle bool   // address the bucket in the path, as most servers other than Amazon's want it
	CAFile    string // PEM file of authorities to trust beside the system's

	SSE          string // SSES3, SSEKMS or "": what the bucket does by default
	KMSKey       string // id or ARN of the key for SSEKMS; "": the account's default key
	StorageClass string // such as STANDARD_IA; "": the bucket's default

	ObjectLock string        // Governance, Compliance or "": objects are not locked by this store
	LockFor    time.Duration // how long each new object is locked; 0: only those that Retain is called for

	// PartSize and Concurrency bound the memory of all Puts and Gets together:
	// one part more than are sent at a time. An object has at most 10,000 parts, so PartSize also
	// bounds its size: 58 GiB by default.
	PartSize    int64 // bytes; 0: 6 MiB, at least 5 MiB
	Concurrency int   // parts that one Put sends at a time, and all Gets together fetch ahead; 0: 3

	OneStream bool // a Get reads over one connection and nothing ahead, as a limit of the bandwidth wants it
}

// Validate says what of the options contradicts itself, without asking the
// server.
func (o Options) Validate() error {
	switch {
	case o.Bucket == "":
		return errors.New("s3: no bucket given")
	case strings.Contains(o.Bucket, "/"):
		return fmt.Errorf("s3: bucket %q: a name has no slash", o.Bucket)
	case !slices.Contains([]string{"", SSES3, SSEKMS}, o.SSE):
		return fmt.Errorf("s3: sse %q: want %s or %s", o.SSE, SSES3, SSEKMS)
	case o.KMSKey != "" && o.SSE != SSEKMS:
		return fmt.Errorf("s3: a kms-key needs sse=%s", SSEKMS)
	case !slices.Contains([]string{"", Governance, Compliance}, o.ObjectLock):
		return fmt.Errorf("s3: object-lock %q: want %s or %s", o.ObjectLock, Governance, Compliance)
	case o.LockFor < 0:
		return fmt.Errorf("s3: object-lock for %v: want a time to come", o.LockFor)
	case o.LockFor > 0 && o.ObjectLock == "":
		return fmt.Errorf("s3: a time to lock for needs object-lock=%s or %s", Governance, Compliance)
	case o.PartSize != 0 && (o.PartSize < minPartSize || o.PartSize > maxPartSize):
		return fmt.Errorf("s3: part size of %d bytes: want %d to %d", o.PartSize, int64(minPartSize), int64(maxPartSize))
	case o.Concurrency < 0:
		return fmt.Errorf("s3: concurrency %d: want 1 or more", o.Concurrency)
	}
	return checkEndpoint(o.Endpoint)
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return errors.New("s3: endpoint: no URL: want one such as https://s3.example.com:9000")
	case u.User != nil:
		return errors.New("s3: endpoint: keys do not go into the URL, but into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials")
	case u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return fmt.Errorf("s3: endpoint %q: want a URL such as https://s3.example.com:9000", endpoint)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.PartSize == 0 {
		o.PartSize = defaultPartSize
	}
	if o.Concurrency == 0 {
		o.Concurrency = defaultConcurrency
	}
	return o
}

package s3

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-lifeboat/lifeboat/storage"
)

var (
	_ storage.Store    = (*Store)(nil)
	_ storage.Sweeper  = (*Store)(nil)
	_ storage.Retainer = (*Store)(nil)
	_ storage.Locker   = (*Store)(nil)
)

// Store is a place below a prefix of a bucket.
type Store struct {
	o        Options
	limits   limits
	prefix   string // "" or with a slash at its end
	client   *awss3.Client
	patient  func(*awss3.Options) // for a request that the server may take minutes over
	answered atomic.Bool          // has the server ever?
	amazon   bool                 // the endpoint is Amazon's own
	sums     bool                 // send checksums
	buffers  *buffers

	probing  sync.Mutex
	putCond  support // of If-None-Match by PutObject
	joinCond support // by CompleteMultipartUpload
}

// limits are the times and numbers that bound what a store waits for.
type limits struct {
	dial     time.Duration // for a connection
	stall    time.Duration // without a byte in either direction
	patience time.Duration // the same, while the server joins parts
	parts    int32         // of an object
	tries    int           // of a request
	early    int           // of a request before the server has ever answered
	backoff  time.Duration // between tries, at most
	settle   time.Duration // before a write without condition is read back
	cleanup  time.Duration // for what a failed operation puts in order
}

func defaultLimits() limits {
	return limits{
		dial:     10 * time.Second,
		stall:    45 * time.Second,
		patience: 10 * time.Minute,
		parts:    maxParts,
		tries:    8,
		early:    3,
		backoff:  15 * time.Second,
		settle:   time.Second,
		cleanup:  30 * time.Second,
	}
}

// Open connects to the bucket and lists it once, so that a wrong name, region,
// clock or key shows at once. It is not an error if nothing lies there.
func Open(ctx context.Context, o Options) (*Store, error) {
	return open(ctx, o, defaultLimits())
}

func open(ctx context.Context, o Options, l limits) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	s := &Store{o: o, limits: l, buffers: newBuffers(o.Concurrency+1, o.PartSize)}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		s.prefix = p + "/"
	}
	if err := s.connect(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", s, err)
	}
	if err := s.check(ctx); err != nil {
		return nil, s.fail(ctx, opOpen, "", err)
	}
	return s, nil
}

// check asks for one key. What answers as S3 does names the bucket: a web
// server's page would otherwise pass for an empty list.
func (s *Store) check(ctx context.Context) error {
	out, err := s.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{
		Bucket: &s.o.Bucket, Prefix: &s.prefix, MaxKeys: aws.Int32(1),
	})
	if err != nil {
		return err
	}
	if aws.ToString(out.Name) == "" {
		return errNotS3
	}
	return nil
}

// String is the place as a URL, with the endpoint if it isn't Amazon's.
func (s *Store) String() string {
	place := s.url("")
	if s.o.Endpoint != "" {
		place += " at " + s.o.Endpoint
	}
	return place
}

func (s *Store) url(key string) string {
	return strings.TrimSuffix("s3://"+s.o.Bucket+"/"+s.prefix+key, "/")
}

func (s *Store) object(key string) *string { return aws.String(s.prefix + key) }

// afterwards is a context for putting things in order when ctx may have ended.
func (s *Store) afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), s.limits.cleanup)
}

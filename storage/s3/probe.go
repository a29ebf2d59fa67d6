package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// probePrefix begins the names of objects that are none of the store's own; it
// does not list them.
const probePrefix = ".lifeboat-probe-"

// support of If-None-Match by a server.
type support int

const (
	unknown support = iota
	honoured
	ignored
)

// probe is a request that may take a condition.
type probe struct {
	known func(*Store) *support
	again func(*Store, context.Context, string) error // makes an object that is there, if it isn't
}

var (
	probePut  = probe{func(s *Store) *support { return &s.putCond }, (*Store).putAgain}
	probeJoin = probe{func(s *Store) *support { return &s.joinCond }, (*Store).joinAgain}
)

// honours tells whether the server heeds the condition with a request.
func (s *Store) honours(ctx context.Context, p probe) (bool, error) {
	if s.amazon {
		return true, nil
	}
	s.probing.Lock()
	defer s.probing.Unlock()
	known := p.known(s)
	if *known == unknown {
		found, err := s.tryCondition(ctx, p)
		if err != nil {
			return false, s.fail(ctx, opProbe, probePrefix, err)
		}
		*known = found
	}
	return *known == honoured, nil
}

// tryCondition puts an object, and again on the condition that it isn't there.
func (s *Store) tryCondition(ctx context.Context, p probe) (support, error) {
	key := probePrefix + rand.Text()
	if err := s.putTiny(ctx, key, nil); err != nil {
		return unknown, err
	}
	after, cancel := s.afterwards(ctx)
	defer cancel()
	err := p.again(s, ctx, key)
	cleanErr := s.remove(after, key)
	switch {
	case err == nil:
		return ignored, cleanErr
	case code(err) == "PreconditionFailed" || status(err) == http.StatusPreconditionFailed:
		return honoured, cleanErr
	case status(err) == http.StatusNotImplemented || status(err) == http.StatusBadRequest:
		return ignored, cleanErr
	}
	return unknown, errors.Join(err, cleanErr)
}

func (s *Store) putAgain(ctx context.Context, key string) error {
	return s.putTiny(ctx, key, aws.String("*"))
}

func (s *Store) putTiny(ctx context.Context, key string, ifNoneMatch *string) error {
	data := []byte("a probe of If-None-Match; may be removed\n")
	in := &awss3.PutObjectInput{Bucket: &s.o.Bucket, Key: s.object(key), Body: bytes.NewReader(data), IfNoneMatch: ifNoneMatch}
	in.ChecksumCRC32C, in.ContentMD5 = s.digests(data)
	_, err := s.client.PutObject(ctx, in)
	return err
}

func (s *Store) joinAgain(ctx context.Context, key string) error {
	created, err := s.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &s.o.Bucket, Key: s.object(key)})
	if err != nil {
		return err
	}
	id := created.UploadId
	err = s.joinTiny(ctx, key, id)
	if err == nil {
		return nil
	}
	after, cancel := s.afterwards(ctx)
	defer cancel()
	_, abortErr := s.client.AbortMultipartUpload(after, &awss3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: s.object(key), UploadId: id})
	if code(abortErr) == "NoSuchUpload" {
		abortErr = nil
	}
	if abortErr != nil {
		return abortErr
	}
	return err
}

func (s *Store) joinTiny(ctx context.Context, key string, id *string) error {
	data := []byte("a probe")
	part, err := s.client.UploadPart(ctx, &awss3.UploadPartInput{
		Bucket: &s.o.Bucket, Key: s.object(key), UploadId: id, PartNumber: aws.Int32(1), Body: bytes.NewReader(data),
	})
	if err != nil {
		return err
	}
	_, err = s.client.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{
		Bucket: &s.o.Bucket, Key: s.object(key), UploadId: id, IfNoneMatch: aws.String("*"),
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	})
	return err
}

func isProbe(key string) bool { return strings.HasPrefix(key, probePrefix) }
